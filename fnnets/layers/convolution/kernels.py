"""Shared by convolutions and transposed convolutions: their params and the checks of x."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import zero_where_masked
from fnnets.core.layer import Info
from fnnets.core.parameters import Initializer


class Conv(NamedTuple):
    """The parameters of `conv` and `conv_transpose`."""

    w: jax.Array  # (*kernel_size, C / groups, features)
    b: jax.Array | None  # (features,); None without a bias


def features_in_groups(who: str, features: int, groups: int) -> None:
    """Refuses a number of groups that does not divide the features."""
    checks.positive(who, features=features, groups=groups)
    if features % groups:
        raise ValueError(
            f"{who}: groups must divide features, got features={features} and groups={groups}; "
            "each group computes features / groups of them."
        )


def start(
    info: Info,
    key: Any,
    x: Any,
    shape: tuple[int, ...],
    kernel_init: Initializer,
    bias_init: Initializer | None,
) -> Conv:
    """The initial params; `shape` is (*kernel_size, groups, features), and bias_init is None without a bias."""
    *kernel, groups, features = shape
    spatial(info, x, len(kernel))
    channels = x.shape[-1]
    if channels % groups:
        raise ValueError(
            f"{info}: groups must divide the channels of x, got {channels} channels and groups={groups}; "
            "the channels are the last axis of x."
        )
    dtype = jnp.result_type(float)
    w_key, b_key = jax.random.split(key)
    w = kernel_init(w_key, (*kernel, channels // groups, features), dtype)
    return Conv(w, None if bias_init is None else bias_init(b_key, (features,), dtype))


def spatial(info: Info, x: Any, axes: int) -> tuple[int, ...]:
    """The sizes of the spatial axes of x, floats (…, spatial…, C)."""
    x = checks.floats(info, x)
    if x.ndim < axes + 1:
        raise ValueError(
            f"{info}: x must have at least {axes + 1} axes, {axes} spatial and one of channels, got shape "
            f"{checks.shape_text(x.shape)}; x[..., None] adds a channel."
        )
    return tuple(x.shape[-axes - 1 : -1])


def fitting(info: Info, params: Any, x: Any, mask: Any, *, kernel: tuple[int, ...], groups: int) -> jax.Array:
    """x as an array, with 0 where the mask is False; refuses params, x or a mask that do not fit together."""
    checks.node(info, params, Conv)
    if tuple(params.w.shape[:-2]) != kernel:
        raise ValueError(
            f"{info}: params.w must have shape ({', '.join(map(str, kernel))}, C / groups, features), got "
            f"{checks.shape_text(params.w.shape)}; pass the params that this layer's init returned."
        )
    spatial(info, x, len(kernel))
    checks.width(info, x, params.w.shape[-2] * groups)
    if mask is None:
        return jnp.asarray(x)
    mask = checks.bools(info, mask)
    checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each place of x.")
    return zero_where_masked(jnp.asarray(x), mask)
