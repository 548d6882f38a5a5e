"""Paths such as "1.stack/0.lstm": the layer at a path, and the order of paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fnnets.core.layer import Layer


class Place(NamedTuple):
    """The layer at a path, and how its values are laid out."""

    layer: Layer
    copies: int  # the number of leading axes for copies, one for each stack around the layer
    from_end: bool  # whether the layer reads the sequence from its end
    params: str  # the path of its params


def place_of(layer: Layer, path: str) -> Place:
    """The place that a path leads to."""
    copies, from_end, params = 0, False, "params"
    for index in indices(path):
        info = layer.info
        copies += info.copies is not None
        from_end ^= index in info.reversed_children
        params = params if info.unwrapped else f"{params}[{index}]"
        layer = info.children[index]
    return Place(layer, copies, from_end, params)


def indices(path: str) -> Iterator[int]:
    """The indices of the children along a path."""
    return (int(part.split(".")[0]) for part in path.split("/") if part)


def backward_order(path: str) -> tuple[int, ...]:
    """A sort key for the order of the backward pass: the last child first, a network before its children."""
    return tuple(-index for index in indices(path))
