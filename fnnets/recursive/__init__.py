"""Recursive (tree) networks: nodes in topological order, each made of its children."""

from fnnets.recursive.binary import BinaryTreeLSTM as BinaryTreeLSTM
from fnnets.recursive.child_sum import ChildSumTreeLSTM as ChildSumTreeLSTM
from fnnets.recursive.nodes import nodes as nodes
from fnnets.recursive.padding import Trees as Trees
from fnnets.recursive.padding import pad_trees as pad_trees
from fnnets.recursive.recursive import Recursive as Recursive
from fnnets.recursive.recursive import recursive as recursive
from fnnets.recursive.tree_lstm import tree_lstm as tree_lstm
