"""Paths such as "1.stack/0.lstm": which layer they lead to, and how they are sorted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fnnets.core.layer import Layer


class Place(NamedTuple):
    """Where a path leads."""

    layer: Layer
    copies: int  # the number of leading axes that layers in copies have added
    turned: bool  # whether its time runs from the end
    params: str  # the path of its params


def place_of(layer: Layer, path: str) -> Place:
    """Where a path leads."""
    copies, turned, params = 0, False, "params"
    for index in indices(path):
        info = layer.info
        copies += info.copies is not None
        turned ^= index in info.reversed_children
        params = params if info.unwrapped else f"{params}[{index}]"
        layer = info.children[index]
    return Place(layer, copies, turned, params)


def indices(path: str) -> Iterator[int]:
    """The numbers of the children on the way."""
    return (int(part.split(".")[0]) for part in path.split("/") if part)


def backward_order(path: str) -> tuple[int, ...]:
    """Sorts paths as the backward pass visits them: the last child first, a network before what is inside."""
    return tuple(-index for index in indices(path))
