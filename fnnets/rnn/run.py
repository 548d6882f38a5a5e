"""The steps of a cell one after another: forward in time, and backward."""

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
    """What a run of steps is given, time first."""

    x: jax.Array  # (T, …, D)
    t: jax.Array  # (T,), the steps' numbers, which draw their dropout
    mask: jax.Array | None  # (T, …)


@dataclass(frozen=True)
class Run:
    """A cell and how it is run: plainly, forward with what is saved, and backward."""

    cell: Cell
    noise: Noise
    unroll: int

    def plain(self, params: Any, carry: Any, steps: Steps, noise: Any) -> Any:
        """The outputs of all steps, by the textbook equation."""

        def step(carry: Any, at: Any) -> Any:
            z, t, mask = at
            old, z = _probed("before", carry), _probed("z", z)
            new = self._call(self.cell.step, noise, t, old, params, old, z)
            new = _probed("after", held(mask, new, old))
            return new, output(new)

        scanned = (self.cell.project(params, steps.x), steps.t, steps.mask)
        return jax.lax.scan(step, carry, scanned, unroll=self.unroll)[1]

    def forward(self, params: Any, carry: Any, steps: Steps, noise: Any) -> tuple[Any, Any, Any]:
        """(the last carry, the carry after each step, what the cell saved of each step)."""

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
        """(dparams, dx, the gradient of the first carry, the steps back where they are collected)."""

        def step(dnew: Any, at: Any) -> Any:
            carry, ready, t, mask, dy = at
            params = transpose_kernels_back(kernels)
            total = plus(dnew, zero_where_masked(dy, mask))
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
        dfirst, (dz, passed) = jax.lax.scan(step, dcarry, scanned, reverse=True, unroll=self.unroll)
        given = (params, steps.x, before, saved, dz)
        dparams, dx = self._call(self.cell.collect, noise, steps.t, before, *given)
        shown = {"after": passed[0], "dz": self.cell.shown(dz), "before": passed[1]} if traced else None
        return dparams, dx, dfirst, shown

    def tangent(
        self, params: Any, first: Any, after: Any, saved: Any, steps: Steps, noise: Any, dparams: Any, dx: Any,
        dcarry: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        """(dy, the change of the last carry), for changes of the params, of x and of the first carry."""
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
        given = (params, steps.x, before, saved, dparams, dx)
        dz = self._call(self.cell.spread, noise, steps.t, before, *given)
        last, dy = jax.lax.scan(step, dcarry, (before, ready, steps.t, steps.mask, dz), unroll=self.unroll)
        return dy, last

    def _call(self, function: Callable[..., Any], source: Any, t: Any, carry: Any, *given: Any) -> Any:
        if not takes_noise(function):
            return function(*given)
        return function(*given, noise=self.noise.at(source, t, output(carry)))


def _probed(name: str, value: Any) -> Any:
    """A value of a step, whose gradient a comparison may ask for."""
    return recording.probe(name, Probed(value)).value


def _before(first: Any, after: Any) -> Any:
    """The carry before each step."""
    return jax.tree.map(lambda one, each: jnp.concatenate([one[None], each[:-1]]), first, after)


def output(carry: Any) -> jax.Array:
    """A cell's output: its carry, or the first field of it."""
    return jax.tree.leaves(carry)[0]


def plus(dcarry: Any, dy: jax.Array) -> Any:
    """The gradient of a carry whose output has the gradient dy besides."""
    leaves, structure = jax.tree.flatten(dcarry)
    return jax.tree.unflatten(structure, [leaves[0] + dy, *leaves[1:]])


def held(mask: jax.Array | None, new: Any, old: Any) -> Any:
    """The new carry where the mask is True, the old one elsewhere."""
    if mask is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(mask[..., None], new, old), new, old)
