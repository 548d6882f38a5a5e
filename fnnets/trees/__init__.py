"""Recursive (tree) networks: each node's state comes from its children's states."""

from fnnets.trees._nodes import nodes as nodes
from fnnets.trees._tree_lstm import tree_lstm as tree_lstm
from fnnets.trees.binary_tree_lstm import BinaryTreeLSTM as BinaryTreeLSTM
from fnnets.trees.child_sum_tree_lstm import ChildSumTreeLSTM as ChildSumTreeLSTM
from fnnets.trees.padded_trees import Trees as Trees
from fnnets.trees.padded_trees import pad_trees as pad_trees
from fnnets.trees.recursive_net import Recursive as Recursive
from fnnets.trees.recursive_net import recursive as recursive
