"""Paths such as "1.stack/0.lstm": which layer they lead to, and how they are sorted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fnnets.core.layer import Layer


class Place(NamedTuple):
    """Where a path leads."""

    layer: Layer
    copies: int  # the number of leading axes that stacks have added
    turned: bool  # whether its time runs from the end
    params: str  # the path of its params


def place_of(layer: Layer, path: str) -> Place:
    """Where a path leads."""
    copies, turned, params = 0, False, "params"
    for index in indices(path):
        stacked = layer.info.name == "stack"  # whose params are its child's
        copies, params = copies + stacked, params if stacked else f"{params}[{index}]"
        turned ^= layer.info.name == "bidirectional" and index == 1
        layer = layer.info.children[index]
    return Place(layer, copies, turned, params)


def indices(path: str) -> Iterator[int]:
    """The numbers of the children on the way."""
    return (int(part.split(".")[0]) for part in path.split("/") if part)


def backward_order(path: str) -> tuple[int, ...]:
    """Sorts paths as the backward pass visits them: the last child first, a network before what is inside."""
    return tuple(-index for index in indices(path))
