"""A logarithm of probabilities that is finite at 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def log(q: jax.Array) -> jax.Array:
    """The logarithm of max(q, tiny), tiny the smallest normal number of the dtype."""
    return jnp.log(_clipped(q))


def slope_of_log(q: jax.Array) -> jax.Array:
    """The derivative of `log`: 1/q, or 0 where q is clipped."""
    return jnp.where(q < jnp.finfo(q.dtype).tiny, 0, 1 / _clipped(q))


def _clipped(q: jax.Array) -> jax.Array:
    # jnp.maximum would halve the slope at tiny itself. q comes second so that NaN stays NaN.
    tiny = jnp.finfo(q.dtype).tiny
    return jnp.where(q < tiny, tiny, q)
