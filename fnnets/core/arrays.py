"""What several packages do with arrays: widen them, mask them, sum them up, lay them out in memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(x: Any) -> jax.Array:
    """x in float32, or in its own dtype where that is wider: what sums, means and logarithms are computed in."""
    x = jnp.asarray(x)
    return x.astype(float32_or_wider(x.dtype))


def float32_or_wider(dtype: Any) -> Any:
    """The dtype that `at_least_float32` gives an array of this one."""
    return jnp.promote_types(dtype, jnp.float32)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of typed random keys."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jax.dtypes.prng_key))


def zero_where_masked(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """x where the mask is True, 0 elsewhere; x itself without a mask.

    The mask has the leading axes of x (all of them, or fewer), each of the length that x has, or of length 1.
    """
    if mask is None:
        return x
    mask = jnp.expand_dims(mask, tuple(range(mask.ndim, x.ndim)))
    return jnp.where(mask, x, jnp.zeros((), x.dtype))


def outer_sum(a: jax.Array, b: jax.Array) -> jax.Array:
    """Σ aᵀb over all leading axes: (…, n) and (…, m) give (n, m), in one product.

    The leading axes are not merged into one here: of merged ones the compiler no longer knows which is shared among
    devices, and would bring all rows to every one.
    """
    leading = tuple(range(a.ndim - 1))
    return jnp.tensordot(a, b, (leading, leading))


def sum_leading(a: jax.Array) -> jax.Array:
    """Σ a over all leading axes: (…, n) gives (n,)."""
    return a.sum(range(a.ndim - 1))


def transpose_kernels(params: Any) -> Any:
    """Params whose matrices lie transposed in memory, for a step back, which multiplies by uᵀ.

    Transposed once before the loop instead of in every step of it, the product is up to a quarter faster on a CPU.
    Inside the loop `transpose_kernels_back` gives the params again.
    """
    return jax.tree.map(lambda leaf: jax.lax.optimization_barrier(_transposed(leaf)), params)


def transpose_kernels_back(params: Any) -> Any:
    """What `transpose_kernels` was given; the transposes of its matrices are there as rows."""
    return jax.tree.map(_transposed, params)


def _transposed(leaf: jax.Array) -> jax.Array:
    return leaf.T if leaf.ndim == 2 else leaf
