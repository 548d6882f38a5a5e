"""What stands around x̂ in every normalisation: the checks of x and of its mask, the scale and the bias."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets import checks


class Entered(NamedTuple):
    """An input as the normalisations compute with it."""

    x: jax.Array  # in at least float32; 0 where the mask is False
    valid: Any  # the mask as (…, 1); None without one


def entered(info: Any, x: Any, mask: Any, size: int | None) -> Entered:
    """x and its mask, checked; size is that of the features, None where no parameter knows it."""
    x = checks.floats(info, x)
    checks.rank(info, x, 1)
    if size is not None:
        checks.width(info, x, size)
    if mask is None:
        return Entered(precise(x), None)
    mask = checks.bools(info, mask)
    checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each place of x.")
    valid = mask[..., None]
    return Entered(precise(hidden(x, valid)), valid)


def precise(x: jax.Array) -> jax.Array:
    """x in at least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def hidden(x: jax.Array, valid: Any) -> jax.Array:
    """x where it counts, 0 elsewhere."""
    return x if valid is None else jnp.where(valid, x, jnp.zeros((), x.dtype))


def features(x: Any, use_scale: bool, use_bias: bool) -> tuple[Any, Any]:
    """The scale and the bias at the start: 1 and 0, None where they are not used."""
    shape, dtype = x.shape[-1:], jnp.result_type(float)
    return jnp.ones(shape, dtype) if use_scale else None, jnp.zeros(shape, dtype) if use_bias else None


def size_of(*leaves: Any) -> int | None:
    """The number of features, told by the first of the params that there is."""
    return next((leaf.shape[-1] for leaf in leaves if leaf is not None), None)


def dtype_of(x: Any, *leaves: Any) -> Any:
    """The dtype of y: that of the first of the params that there is, else that of x."""
    return next((leaf.dtype for leaf in leaves if leaf is not None), jnp.result_type(x))


def scaled(normal: jax.Array, scale: Any, b: Any, valid: Any, dtype: Any) -> jax.Array:
    """y = scale ⊙ x̂ + b, and 0 where nothing counts."""
    y = normal if scale is None else normal * scale
    y = y if b is None else y + b
    return hidden(y, valid).astype(dtype)


def scale_gradient(dy: jax.Array, normal: jax.Array, scale: Any, b: Any) -> tuple[Any, Any]:
    """(dscale, db) = (Σ dy ⊙ x̂, Σ dy), sums over all axes but the features."""
    axes = tuple(range(dy.ndim - 1))
    dscale = None if scale is None else (dy * normal).sum(axes).astype(scale.dtype)
    return dscale, None if b is None else dy.sum(axes).astype(b.dtype)
