"""The records of a recurrent layer's steps, for traces, comparisons and gate statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer, Static


class Probed(NamedTuple):
    """A value of one step whose gradient is recorded."""

    value: Any
    time: Static = Static(0)  # the axis that the scan over time adds in front

    def behind(self, front: tuple[str, ...]) -> Probed:
        """The record with other axes in front. The innermost scan is the one over time."""
        return self._replace(time=Static(len(front) - 1 - front.index("scan")))


class Traced(NamedTuple):
    """The backward steps, with the fields in the order of computation and time at `axis`."""

    after: Any  # the gradient of the carry after the step: dy plus that from the next step
    dz: Any  # as `Cell.shown` returns it
    before: Any  # the gradient of the carry before the step
    blocks: Static  # `blocks_of(params)`
    axis: Static  # the time axis

    def behind(self, front: tuple[str, ...]) -> Traced:
        """The record with other axes in front."""
        return self._replace(axis=Static(self.axis.value + len(front)))


class Stepped(NamedTuple):
    """The forward steps, with the fields in the order of computation and time at `axis`."""

    z: Any  # the projected inputs
    gates: dict[str, Any]  # as `Cell.gates` returns them
    after: Any  # the carry after the step
    blocks: Static  # `blocks_of(params)`
    axis: Static  # the time axis

    def behind(self, front: tuple[str, ...]) -> Stepped:
        """The record with other axes in front."""
        return self._replace(axis=Static(self.axis.value + len(front)))


class Gates(NamedTuple):
    """The gates of all steps."""

    values: Any  # {name: (…, T, H)}, from 0 to 1
    mask: Any  # (…, T); None without a mask


def blocks_of(params: Any) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """The named blocks of a last axis: (its length, the names), for every such length in the params."""
    blocks: dict[int, tuple[str, ...]] = {}
    for field, names in getattr(type(params), "blocks", {}).items():
        width = (getattr(getattr(params, field), "shape", None) or (1,))[-1]
        if width % len(names) == 0:
            blocks.setdefault(width, tuple(names))
    return tuple(blocks.items())


def time_at(tree: Any, axis: int) -> Any:
    """Moves time from the first axis of every leaf to `axis`."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, axis) if leaf.ndim > axis else leaf, tree)


def time_in_front(tree: Any, axis: int) -> Any:
    """Moves time from `axis` of every leaf to the front."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axis, 0) if leaf.ndim > axis else leaf, tree)


def squashed(activation: Layer, name: str, y: jax.Array) -> dict[str, jax.Array]:
    """The values of an activation for `Cell.gates`; empty if it does not saturate at both ends."""
    if activation.info.saturates_at is None:
        return {}
    low, high = activation.info.saturates_at
    return {name: (y - low) / (high - low)}
