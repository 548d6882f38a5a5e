"""Shared by the normalisations: the checks of x and its mask, the scale and the bias."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, sum_leading, zero_where_masked
from fnnets.layers.normalisation.moments import Moments


class NormSaved(NamedTuple):
    """What a normalisation keeps for its backward: x − μ, which gives x̂ with one product."""

    centred: jax.Array  # in the dtype of x
    valid: jax.Array | None  # the mask, (…, 1)
    moments: Moments


def start(info: Any, x: Any, use_scale: bool, use_bias: bool) -> tuple[Any, Any]:
    """The initial scale (1) and bias (0), or None if not used."""
    x = checks.floats(info, x)
    checks.rank(info, x, 1)
    size = x.shape[-1]
    return jnp.ones(size) if use_scale else None, jnp.zeros(size) if use_bias else None


def fitting(info: Any, params: Any, kind: type, x: Any, mask: Any) -> tuple[jax.Array, Any]:
    """Checks and returns x and the mask as (…, 1)."""
    checks.node(info, params, kind)
    x = checks.floats(info, x)
    checks.rank(info, x, 1)
    for leaf in jax.tree.leaves(params)[:1]:
        checks.width(info, x, leaf.shape[-1])
    if mask is None:
        return x, None
    mask = checks.bools(info, mask)
    checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each place of x.")
    return x, mask[..., None]


def clean(x: jax.Array, valid: Any) -> jax.Array:
    """x as the statistics use it: in at least float32, and 0 where the mask is False."""
    return at_least_float32(zero_where_masked(x, valid))


def scaled(params: Any, normal: jax.Array, valid: Any, like: jax.Array) -> jax.Array:
    """y = scale ⊙ x̂ + b, and 0 where the mask is False, in the dtype of the params (of `like` without params)."""
    y = normal if params.scale is None else normal * params.scale
    y = y if params.b is None else y + params.b
    return zero_where_masked(y, valid).astype(dtype(params, like))


def dtype(params: Any, like: jax.Array) -> Any:
    """The dtype of y."""
    return next((leaf.dtype for leaf in jax.tree.leaves(params)), like.dtype)


def scale_gradient(params: Any, dy: jax.Array, normal: jax.Array) -> tuple[Any, Any]:
    """(dscale, db) = (Σ dy ⊙ x̂, Σ dy), summed over all axes except the features."""
    dscale = None if params.scale is None else sum_leading(dy * normal).astype(params.scale.dtype)
    return dscale, None if params.b is None else sum_leading(dy).astype(params.b.dtype)
