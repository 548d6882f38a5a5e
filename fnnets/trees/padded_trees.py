"""Turns nested Python trees into arrays of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnnets.core import checks


class Trees(NamedTuple):
    """A batch of trees: `net.apply(params, trees.x, mask=trees.mask)`."""

    x: tuple[
        np.ndarray, np.ndarray
    ]  # the nodes' values (B, N, …); their children (B, N, K), −1 if there is none
    mask: tuple[np.ndarray, np.ndarray]  # which nodes exist (B, N), and which children (B, N, K)


def pad_trees(
    trees: Iterable[Any],
    *,
    children: Callable[[Any], Sequence[Any]] | None = None,
    value: Callable[[Any], Any] | None = None,
    size: int | None = None,
    arity: int | None = None,
) -> Trees:
    """Turns a batch of trees (nested tuples and lists, or any objects) into padded arrays.

    Numbers the nodes in postorder: children before their parent, left before right. Pads smaller trees in front,
    so the root of every tree is its last node.

    Args:
      trees: the trees. By default the elements of a tuple or list are its children; anything else is a leaf and its
        own value: a number, or an array (all of one shape).
      children: `tree -> its children`, for other objects: `lambda tree: tree.children`.
      value: `tree -> its value`, at every node. By default inner nodes get 0, so do not use id 0 for a word.
      size: N; by default the number of nodes of the largest tree. Set size and arity to compile once for all batches.
      arity: K, the places for children; by default the largest number of children, at least 1.

    Returns:
      `Trees(x, mask)` in NumPy, the pairs that `fn.recursive`, `fn.tree_lstm` and `fn.nodes` take. Values are int32 or
      floats, 0 in the padding.

    Raises:
      ValueError: there are no trees; a tree has more nodes than size, a node more children than arity; a tree
        contains itself; values differ in shape.
      TypeError: a value is neither a number nor an array of numbers.

    Example:
      >>> import fnnets as fn
      >>> (ids, children), (nodes, _) = fn.pad_trees([((1, 2), 3), (2, 4)])
      >>> ids.tolist()
      [[1, 2, 0, 3, 0], [0, 0, 2, 4, 0]]
      >>> children[0].tolist()
      [[-1, -1], [-1, -1], [0, 1], [-1, -1], [2, 3]]
      >>> nodes[1].tolist()
      [False, False, True, True, True]
    """
    flat = [_postorder(i, tree, children or _elements, value or _own) for i, tree in enumerate(trees)]
    if not flat:
        raise ValueError("pad_trees: trees must hold at least one tree, got none.")
    most_nodes = max(len(values) for values, _ in flat)
    most_children = max(len(below) for _, nodes in flat for below in nodes)
    n, k = most_nodes if size is None else size, max(1, most_children) if arity is None else arity
    checks.positive("pad_trees", size=n, arity=k)
    for name, limit, most, what in (
        ("size", n, most_nodes, "nodes"),
        ("arity", k, most_children, "children"),
    ):
        if most > limit:
            raise ValueError(
                f"pad_trees: {name} is {limit}, but there are {most} {what}; pass at least {most}."
            )
    values = _table([values for values, _ in flat], n)
    index, there = np.full((len(flat), n, k), -1, np.int32), np.zeros((len(flat), n), bool)
    for i, (_, nodes) in enumerate(flat):
        start = n - len(nodes)
        there[i, start:] = True
        for j, below in enumerate(nodes, start):
            index[i, j, : len(below)] = np.add(below, start)
    return Trees((values, index), (there, index >= 0))


def _elements(tree: Any) -> Sequence[Any]:
    return tree if isinstance(tree, tuple | list) else ()


def _own(tree: Any) -> Any:
    return None if isinstance(tree, tuple | list) else tree


def _postorder(
    number: int, tree: Any, children: Callable[[Any], Sequence[Any]], value: Callable[[Any], Any]
) -> tuple[list[Any], list[list[int]]]:
    """The nodes' values and the numbers of their children. Uses no recursion, since trees can be deep."""
    values: list[Any] = []
    below: list[list[int]] = []
    path: list[tuple[Any, Iterator[Any], list[int]]] = [
        (tree, iter(children(tree)), [])
    ]  # from the root down: a node, its remaining children, the numbers of the finished ones
    above = {id(tree)}
    while path:
        node, remaining, done = path[-1]
        for child in remaining:
            if id(child) in above and len(children(child)) > 0:
                raise ValueError(f"pad_trees: tree {number} contains itself; a tree has no cycles.")
            above.add(id(child))
            path.append((child, iter(children(child)), []))
            break
        else:
            path.pop()
            above.discard(id(node))
            values.append(value(node))
            below.append(done)
            if path:
                path[-1][2].append(len(values) - 1)
    return values, below


def _table(values: list[list[Any]], n: int) -> np.ndarray:
    """The values (B, n, …), padded in front; 0 for missing values."""
    present = [np.asarray(value) for row in values for value in row if value is not None]
    like = present[0] if present else np.zeros((), int)
    dtype = np.result_type(*{value.dtype for value in present}, like.dtype)
    if not (np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
        raise TypeError(
            f"pad_trees: values must be numbers, got {dtype}; "
            "number the words, as in value=lambda tree: vocabulary[tree.word]."
        )
    table = np.zeros((len(values), n, *like.shape), np.int32 if np.issubdtype(dtype, np.integer) else dtype)
    for i, row in enumerate(values):
        for j, value in enumerate(row, n - len(row)):
            if value is None:
                continue
            if np.shape(value) != like.shape:
                raise ValueError(
                    f"pad_trees: all values must have one shape, got {checks.shape_text(like.shape)} and "
                    f"{checks.shape_text(np.shape(value))}."
                )
            table[i, j] = value
    return table
