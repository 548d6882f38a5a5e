"""What a recurrent layer shows to those who look inside: its steps back, and its gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer, Static


class Probed(NamedTuple):
    """A value of one step, whose gradient is asked for."""

    value: Any
    time: Static = Static(0)  # the axis that the scan over time has put in front

    def behind(self, front: tuple[str, ...]) -> Probed:
        """Behind other axes: the innermost scan is that over time, and a vmap around it is put in front of a step."""
        return self._replace(time=Static(len(front) - 1 - front.index("scan")))


class Traced(NamedTuple):
    """The steps back, in the order in which one computes; time where the layer has it."""

    after: Any  # the carry's gradient as it arrives: dy, and what came from the step after
    dz: Any  # as the cell gives it
    before: Any  # the carry's gradient as it leaves for the step before
    blocks: Static  # of the params: see `blocks_of`
    axis: Static  # where time is

    def behind(self, front: tuple[str, ...]) -> Traced:
        """Behind other axes."""
        return self._replace(axis=Static(self.axis.value + len(front)))


class Stepped(NamedTuple):
    """The steps forward, in the order in which one computes; time where the layer has it."""

    z: Any  # what was projected, of all steps at once
    gates: dict[str, Any]  # as the cell gives them
    after: Any  # the carry
    blocks: Static  # of the params: see `blocks_of`
    axis: Static  # where time is

    def behind(self, front: tuple[str, ...]) -> Stepped:
        """Behind other axes."""
        return self._replace(axis=Static(self.axis.value + len(front)))


class Gates(NamedTuple):
    """The gates of all steps."""

    values: Any  # {name: (…, T, H)}, from 0 to 1
    mask: Any  # (…, T); None without one


def blocks_of(params: Any) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """(length, names) for every length that the params document as equal blocks of a field's last axis."""
    found: dict[int, tuple[str, ...]] = {}
    for field, names in getattr(type(params), "blocks", {}).items():
        width = (getattr(getattr(params, field), "shape", None) or (1,))[-1]
        if width % len(names) == 0:
            found.setdefault(width, tuple(names))
    return tuple(found.items())


def moved(tree: Any, axis: int, *, back: bool = False) -> Any:
    """Every leaf with time, its first axis, at `axis`; or brought back from there."""
    here, there = (axis, 0) if back else (0, axis)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, here, there) if leaf.ndim > axis else leaf, tree)


def squashed(activation: Layer, name: str, y: jax.Array) -> dict[str, jax.Array]:
    """An activation's values as `Cell.gates` gives them; nothing where it does not saturate at both ends."""
    if activation.info.saturates_at is None:
        return {}
    low, high = activation.info.saturates_at
    return {name: (y - low) / (high - low)}
