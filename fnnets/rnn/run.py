"""The loops over the steps of a cell: forward in time, and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import recording
from fnnets.core.arrays import transpose_kernels, transpose_kernels_back, zero_where_masked
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import Noise, takes_noise
from fnnets.rnn.step_records import Probed


class Steps(NamedTuple):
    """The inputs of all steps. Time is the first axis here; `recomputed_segments` keeps the layer's layout."""

    x: jax.Array  # (T, …, D)
    t: jax.Array  # (T,), the step numbers, from which dropout is drawn
    mask: jax.Array | None  # (T, …)


@dataclass(frozen=True)
class Run:
    """A cell with its options, and the loops over its steps."""

    cell: Cell
    noise: Noise
    unroll: int

    def plain(self, params: Any, carry: Any, steps: Steps, noise: Any) -> Any:
        """Returns the outputs of all steps, by the textbook equation."""

        def step(carry: Any, at: Any) -> Any:
            z, t, mask = at
            old, z = _probed("before", carry), _probed("z", z)
            new = self._call(self.cell.step, noise, t, old, params, old, z)
            new = _probed("after", held(mask, new, old))
            return new, output(new)

        scanned = (self.cell.project(params, steps.x), steps.t, steps.mask)
        return jax.lax.scan(step, carry, scanned, unroll=self.unroll)[1]

    def forward(self, params: Any, carry: Any, steps: Steps, noise: Any) -> tuple[Any, Any, Any]:
        """Returns (the last carry, the carry after each step, what the cell saved at each step)."""

        def step(carry: Any, at: Any) -> Any:
            z, t, mask = at
            old, z = _probed("before", carry), _probed("z", z)
            new, saved = self._call(self.cell.forward, noise, t, old, params, old, z)
            new = _probed("after", held(mask, new, old))
            return new, (new, saved)

        scanned = (self.cell.project(params, steps.x), steps.t, steps.mask)
        last, (after, saved) = jax.lax.scan(step, carry, scanned, unroll=self.unroll)
        return last, after, saved

    def backward(
        self, params: Any, first: Any, after: Any, saved: Any, steps: Steps, noise: Any, dy: Any, dcarry: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Returns (dparams, dx, the gradient of the first carry, the backward steps if recorded, else None)."""

        def step(dnew: Any, at: Any) -> Any:
            carry, ready, t, mask, dy = at
            params = transpose_kernels_back(kernels)
            total = add_to_output(dnew, zero_where_masked(dy, mask))
            dcarry, dz = self._call(self.cell.backward, noise, t, carry, params, carry, ready, total)
            if mask is not None:
                dcarry = held(mask, dcarry, dnew)
                dz = jax.tree.map(lambda leaf: zero_where_masked(leaf, mask), dz)
            return dcarry, (dz, (total, dcarry) if traced else None)

        kernels = transpose_kernels(params)
        traced = recording.collects("gradients", "values")
        before = _before(first, after)
        ready = self._call(self.cell.ready, noise, steps.t, before, params, before, saved)
        scanned = (before, ready, steps.t, steps.mask, dy)
        dfirst, (dz, dcarries) = jax.lax.scan(step, dcarry, scanned, reverse=True, unroll=self.unroll)
        args = (params, steps.x, before, saved, dz)
        dparams, dx = self._call(self.cell.collect, noise, steps.t, before, *args)
        shown = {"after": dcarries[0], "dz": self.cell.shown(dz), "before": dcarries[1]} if traced else None
        return dparams, dx, dfirst, shown

    def tangent(
        self, params: Any, first: Any, after: Any, saved: Any, steps: Steps, noise: Any, dparams: Any, dx: Any,
        dcarry: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Returns (dy, the change of the last carry) for changes of the params, x and the first carry."""
        assert self.cell.spread is not None
        assert self.cell.tangent is not None
        advance = self.cell.tangent

        def step(dcarry: Any, at: Any) -> Any:
            carry, ready, t, mask, dz = at
            new = self._call(advance, noise, t, carry, params, carry, ready, dcarry, dz)
            new = held(mask, new, dcarry)
            return new, output(new)

        before = _before(first, after)
        ready = self._call(self.cell.ready, noise, steps.t, before, params, before, saved)
        args = (params, steps.x, before, saved, dparams, dx)
        dz = self._call(self.cell.spread, noise, steps.t, before, *args)
        last, dy = jax.lax.scan(step, dcarry, (before, ready, steps.t, steps.mask, dz), unroll=self.unroll)
        return dy, last

    def _call(self, function: Callable[..., Any], source: Any, t: Any, carry: Any, *args: Any) -> Any:
        if not takes_noise(function):
            return function(*args)
        return function(*args, noise=self.noise.at(source, t, output(carry)))


def _probed(name: str, value: Any) -> Any:
    """Marks a value of a step, so that a comparison can read its gradient."""
    return recording.probe(name, Probed(value)).value


def _before(first: Any, after: Any) -> Any:
    """The carry before each step."""
    return jax.tree.map(lambda one, each: jnp.concatenate([one[None], each[:-1]]), first, after)


def output(carry: Any) -> jax.Array:
    """The output of a cell: its carry, or the first field of its carry."""
    return jax.tree.leaves(carry)[0]


def add_to_output(dcarry: Any, dy: jax.Array) -> Any:
    """Adds dy, the gradient of the output, to the gradient of the carry."""
    leaves, structure = jax.tree.flatten(dcarry)
    return jax.tree.unflatten(structure, [leaves[0] + dy, *leaves[1:]])


def held(mask: jax.Array | None, new: Any, old: Any) -> Any:
    """The new carry where the mask is True, the old one elsewhere."""
    if mask is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(mask[..., None], new, old), new, old)
