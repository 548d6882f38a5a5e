"""The sums over all time steps and examples, as matrix products."""

from __future__ import annotations

import jax


def rows(a: jax.Array) -> jax.Array:
    """The vectors of an array (…, n), one below the other."""
    return a.reshape(-1, a.shape[-1])


def outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """Σ aᵀb over all leading axes: (…, n) and (…, m) give (n, m), in one product."""
    return rows(a).T @ rows(b)


def total(a: jax.Array) -> jax.Array:
    """Σ a over all leading axes: (…, n) gives (n,)."""
    return a.sum(range(a.ndim - 1))


def dropped(h: jax.Array, noise: jax.Array | None) -> jax.Array:
    """What a product sees of the hidden state; of its gradient, what comes back."""
    return h if noise is None else h * noise
