"""Less memory: only the state at the start of each segment is kept, the rest is computed again."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets import observe
from fnnets.recurrent.run import Run, Steps, output


def forward(run: Run, params: Any, carry: Any, steps: Steps, noise: Any, length: int) -> tuple[Any, Any, Any]:
    """(y, the last carry, the carry before each segment)."""

    def segment(carry: Any, steps: Steps) -> Any:
        last, after, _ = run.forward(params, carry, steps, noise)
        return last, (output(after), carry)

    last, (y, before) = jax.lax.scan(segment, carry, _cut(steps, length))
    return _joined(y, steps.t.size), last, before


def backward(
    run: Run, params: Any, before: Any, steps: Steps, noise: Any, dy: Any, dcarry: Any, length: int
) -> tuple[Any, Any, Any]:
    """(dparams, dx, the gradient of the first carry): segment by segment, from the last to the first."""

    def segment(state: Any, at: Any) -> Any:
        dcarry, total = state
        carry, steps, dy = at
        _, after, saved = run.forward(params, carry, steps, noise)
        with observe.recording() as seen:
            dparams, dx, dcarry = run.backward(params, carry, after, saved, steps, noise, dy, dcarry)
        return (dcarry, jax.tree.map(jnp.add, total, dparams)), (dx, seen)

    start = (dcarry, jax.tree.map(jnp.zeros_like, params))
    scanned = (before, _cut(steps, length), _pieces(dy, length))
    (first, dparams), (dx, seen) = jax.lax.scan(segment, start, scanned, reverse=True)
    observe.keep(jax.tree.map(lambda leaf: _joined(leaf, steps.t.size), seen))
    return dparams, _joined(dx, steps.t.size), first


def _cut(steps: Steps, length: int) -> Steps:
    """The steps in segments; the last one is filled up with masked steps, which hold the state."""
    mask = steps.mask
    if steps.t.size % length and mask is None:
        mask = jnp.ones(steps.x.shape[:-1], bool)
    return jax.tree.map(lambda leaf: _pieces(leaf, length), steps._replace(mask=mask))


def _pieces(leaf: jax.Array, length: int) -> jax.Array:
    missing = -leaf.shape[0] % length
    if missing:
        leaf = jnp.concatenate([leaf, jnp.zeros((missing, *leaf.shape[1:]), leaf.dtype)])
    return leaf.reshape(-1, length, *leaf.shape[1:])


def _joined(leaf: jax.Array, steps: int) -> jax.Array:
    return leaf.reshape(-1, *leaf.shape[2:])[:steps]
