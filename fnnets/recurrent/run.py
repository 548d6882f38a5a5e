"""The steps of a cell one after another: forward in time, and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.recurrent.cell import Cell
from fnnets.recurrent.noise import Noise, takes_noise


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
            new = self._call(self.cell.step, noise, t, carry, params, carry, z)
            new = held(mask, new, carry)
            return new, output(new)

        scanned = (self.cell.project(params, steps.x), steps.t, steps.mask)
        return jax.lax.scan(step, carry, scanned, unroll=self.unroll)[1]

    def forward(self, params: Any, carry: Any, steps: Steps, noise: Any) -> tuple[Any, Any, Any, Any]:
        """(y, the last carry, the carry before each step, what the cell saved of each step)."""

        def step(carry: Any, at: Any) -> Any:
            z, t, mask = at
            new, saved = self._call(self.cell.forward, noise, t, carry, params, carry, z)
            return held(mask, new, carry), (carry, saved)

        scanned = (self.cell.project(params, steps.x), steps.t, steps.mask)
        last, (before, saved) = jax.lax.scan(step, carry, scanned, unroll=self.unroll)
        # What is before a step came out of the one before it: the outputs need no memory of their own.
        y = jnp.concatenate([output(before)[1:], output(last)[None]])
        return y, last, before, saved

    def backward(
        self, params: Any, before: Any, saved: Any, steps: Steps, noise: Any, dy: Any, dcarry: Any
    ) -> tuple[Any, Any, Any]:
        """(dparams, dx, the gradient of the first carry)."""

        def step(dnew: Any, at: Any) -> Any:
            carry, saved, t, mask, dy = at
            total = plus(dnew, dy if mask is None else hidden(mask, dy))
            dcarry, dz = self._call(self.cell.backward, noise, t, carry, params, carry, saved, total)
            if mask is not None:
                dcarry, dz = held(mask, dcarry, dnew), jax.tree.map(lambda leaf: hidden(mask, leaf), dz)
            return dcarry, dz

        scanned = (before, saved, steps.t, steps.mask, dy)
        first, dz = jax.lax.scan(step, dcarry, scanned, reverse=True, unroll=self.unroll)
        dparams, dx = self._call(
            self.cell.collect, noise, steps.t, before, params, steps.x, before, saved, dz
        )
        return dparams, dx, first

    def _call(self, function: Callable[..., Any], source: Any, t: Any, carry: Any, *given: Any) -> Any:
        if not takes_noise(function):
            return function(*given)
        return function(*given, noise=self.noise.at(source, t, output(carry)))


def output(carry: Any) -> jax.Array:
    """A cell's output: its carry, or the first field of it."""
    return jax.tree.leaves(carry)[0]


def plus(dcarry: Any, dy: jax.Array) -> Any:
    """The gradient of a carry whose output has the gradient dy besides."""
    leaves, structure = jax.tree.flatten(dcarry)
    return jax.tree.unflatten(structure, [leaves[0] + dy, *leaves[1:]])


def hidden(mask: jax.Array, a: jax.Array) -> jax.Array:
    """The array with 0 where the mask is False."""
    return jnp.where(mask[..., None], a, jnp.zeros((), a.dtype))


def held(mask: jax.Array | None, new: Any, old: Any) -> Any:
    """The new carry where the mask is True, the old one elsewhere."""
    if mask is None:
        return new
    return jax.tree.map(lambda new, old: jnp.where(mask[..., None], new, old), new, old)
