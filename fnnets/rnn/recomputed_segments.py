"""Saves memory: keeps the carry at the start of each segment, and recomputes the rest in the backward pass.

Segments are cut out of x, y, dy and dx in their own layout, with time at any axis. Copies of all four with time first
would take more memory than this saves.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core.devices import varying_like
from fnnets.rnn.run import Run, Steps, output


def forward(
    run: Run, params: Any, carry: Any, steps: Steps, noise: Any, length: int, axis: int
) -> tuple[Any, Any, Any]:
    """Returns (y, the last carry, the carry before each segment). Time is at `axis` in x and y."""
    count, padded = _pad_steps(steps, length, axis)

    def segment(state: Any, i: Any) -> Any:
        carry, y = state
        last, after, _ = run.forward(params, carry, _segment(padded, i, length, axis), noise)
        return (last, _put(y, output(after), i, axis)), carry

    h = output(carry)
    y = varying_like(jnp.zeros((*padded.x.shape[:-1], h.shape[-1]), h.dtype), h)
    (last, y), before = jax.lax.scan(segment, (carry, y), jnp.arange(count))
    return _unpadded(y, steps, axis), last, before


def backward(
    run: Run, params: Any, before: Any, steps: Steps, noise: Any, dy: Any, dcarry: Any, length: int, axis: int
) -> tuple[Any, Any, Any, Any]:
    """As `Run.backward`, but segment by segment, from the last to the first."""
    count, padded = _pad_steps(steps, length, axis)
    dy = _padded(dy, length, axis)

    def segment(state: Any, at: Any) -> Any:
        (dcarry, total, dx), (carry, i) = state, at
        own = _segment(padded, i, length, axis)
        _, after, saved = run.forward(params, carry, own, noise)
        dparams, piece, dcarry, shown = run.backward(
            params, carry, after, saved, own, noise, _piece(dy, i, length, axis), dcarry
        )
        return (dcarry, jax.tree.map(jnp.add, total, dparams), _put(dx, piece, i, axis)), shown

    zeros = jax.tree.map(jnp.zeros_like, (params, padded.x))
    start = (dcarry, *varying_like(zeros, dcarry))
    (first, dparams, dx), shown = jax.lax.scan(segment, start, (before, jnp.arange(count)), reverse=True)
    shown = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: steps.t.size], shown)
    return dparams, _unpadded(dx, steps, axis), first, shown


def _pad_steps(steps: Steps, length: int, axis: int) -> tuple[int, Steps]:
    """The number of segments, and the steps, padded to whole segments. Masked steps keep the carry unchanged."""
    count, mask = -(-steps.t.size // length), steps.mask
    if steps.t.size % length and mask is None:
        mask = jnp.ones(steps.x.shape[:-1], bool)
    return count, Steps(
        _padded(steps.x, length, axis),
        _padded(steps.t, length, 0),
        None if mask is None else _padded(mask, length, axis),
    )


def _padded(leaf: jax.Array, length: int, axis: int) -> jax.Array:
    missing = -leaf.shape[axis] % length
    return jnp.pad(leaf, [(0, missing if k == axis else 0) for k in range(leaf.ndim)]) if missing else leaf


def _unpadded(leaf: jax.Array, steps: Steps, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(leaf, 0, steps.t.size, axis=axis)


def _segment(steps: Steps, i: Any, length: int, axis: int) -> Steps:
    """Segment i, with time first."""
    x, t, mask = steps
    mask = None if mask is None else _piece(mask, i, length, axis)
    return Steps(_piece(x, i, length, axis), _piece(t, i, length, 0), mask)


def _piece(leaf: jax.Array, i: Any, length: int, axis: int) -> jax.Array:
    return jnp.moveaxis(jax.lax.dynamic_slice_in_dim(leaf, i * length, length, axis), axis, 0)


def _put(whole: jax.Array, piece: jax.Array, i: Any, axis: int) -> jax.Array:
    """The whole array with segment i replaced by `piece`, which has time first."""
    return jax.lax.dynamic_update_slice_in_dim(whole, jnp.moveaxis(piece, 0, axis), i * piece.shape[0], axis)
