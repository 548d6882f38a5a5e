"""The three products behind convolutions and their gradients; each is a convolution itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnnets.layers.convolution import depthwise
from fnnets.layers.convolution.geometry import Axis

# One sum links an input x (…, spatial…, I), a kernel w (*kernel, I/groups, O) and an output y (…, spatial…, O). It runs
# over the positions t of a window, the places k in it, and the channels i and o of the same group:
#
#     E = Σ_{t,k,i,o} x[t·stride + k·dilation − low, i] · w[k, i, o] · y[t, o]
#
# Each function takes two of them and returns the derivative of E with respect to the third.


def correlate(x: jax.Array, w: jax.Array, axes: Sequence[Axis], groups: int) -> jax.Array:
    """y[t, o] = Σ_{k,i} x[t·stride + k·dilation − low, i] · w[k, i, o]."""
    rows = _rows(x, axes)
    if groups == x.shape[-1] > 1:
        return _with_batch(x, axes, depthwise.correlate(rows, w, axes))
    y = jax.lax.conv_general_dilated(
        rows, w,
        window_strides=[axis.stride for axis in axes],
        padding=[(axis.low, max(axis.high, 0)) for axis in axes],
        rhs_dilation=[axis.dilation for axis in axes],
        dimension_numbers=_channels_last(axes),
        feature_group_count=groups,
    )  # fmt: skip
    return _with_batch(x, axes, y)


def spread(y: jax.Array, w: jax.Array, axes: Sequence[Axis], groups: int) -> jax.Array:
    """x[j, i] = Σ_{t,k: t·stride + k·dilation − low = j} Σ_o w[k, i, o] · y[t, o].

    For fixed j, k decreases as t increases. So this is a correlation of y with the flipped kernel: y gets stride − 1
    zeros between its entries, and padding that aligns its first entry with t = 0.
    """
    rows = _rows(y, axes)
    if w.shape[-2] == 1 and groups > 1:
        return _with_batch(y, axes, depthwise.spread(rows, w, axes, groups))
    reach = [axis.dilation * (axis.kernel - 1) for axis in axes]
    x = jax.lax.conv_general_dilated(
        rows, jnp.flip(exchanged(w, groups), range(len(axes))),
        window_strides=[1] * len(axes),
        padding=[(most - axis.low, most - axis.high) for most, axis in zip(reach, axes, strict=True)],
        lhs_dilation=[axis.stride for axis in axes],
        rhs_dilation=[axis.dilation for axis in axes],
        dimension_numbers=_channels_last(axes),
        feature_group_count=groups,
    )  # fmt: skip
    return _with_batch(y, axes, x)


def kernel_sum(x: jax.Array, y: jax.Array, axes: Sequence[Axis], groups: int) -> jax.Array:
    """w[k, i, o] = Σ_{n,t} x[n, t·stride + k·dilation − low, i] · y[n, t, o], n the batch.

    This is the correlation of x with y as the kernel. Stride and dilation swap roles, the sum runs over the batch, and
    the channels i take the place of the batch. The arrays are transposed here because XLA's CPU compiler does so itself
    only outside of `lax.scan`; inside, it would not find its fast convolution. A kernel with one place gives the
    product of a dense layer. Each group has its own sum.
    """
    x, y = _rows(x, axes), _rows(y, axes)
    if groups == x.shape[-1] > 1:
        return depthwise.kernel_sum(x, y, axes)
    if groups > 1:
        parts = zip(jnp.split(x, groups, -1), jnp.split(y, groups, -1), strict=True)
        return jnp.concatenate([kernel_sum(*pair, axes, 1) for pair in parts], -1)
    if all(axis.kernel == 1 for axis in axes):
        ((_, part),) = depthwise.values_at_places(x, axes)
        rows = math.prod(y.shape[:-1])
        w = part.reshape(rows, x.shape[-1]).T @ y.reshape(rows, y.shape[-1])
        return w.reshape((1,) * len(axes) + w.shape)
    w = jax.lax.conv_general_dilated(
        jnp.swapaxes(x, 0, -1), jnp.moveaxis(y, 0, -2),
        window_strides=[axis.dilation for axis in axes],
        padding=[(axis.low, axis.high) for axis in axes],
        rhs_dilation=[axis.stride for axis in axes],
        dimension_numbers=_channels_last(axes),
    )  # fmt: skip
    return jnp.moveaxis(w, 0, -2)


def exchanged(w: jax.Array, groups: int) -> jax.Array:
    """Swaps inputs and outputs of a kernel: from (*kernel, I/groups, O) to (*kernel, O/groups, I)."""
    *kernel, inputs, outputs = w.shape
    w = w.reshape(*kernel, inputs, groups, outputs // groups)
    return jnp.swapaxes(w, -1, -3).reshape(*kernel, outputs // groups, groups * inputs)


def _channels_last(axes: Sequence[Axis]) -> Any:
    r = len(axes)
    spatial = tuple(range(1, r + 1))
    return jax.lax.ConvDimensionNumbers(
        lhs_spec=(0, r + 1, *spatial), rhs_spec=(r + 1, r, *range(r)), out_spec=(0, r + 1, *spatial)
    )


def _rows(x: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """x (…, spatial…, C) with a single batch axis."""
    batch = x.ndim - len(axes) - 1
    return x.reshape(math.prod(x.shape[:batch]), *x.shape[batch:])


def _with_batch(like: jax.Array, axes: Sequence[Axis], rows: jax.Array) -> jax.Array:
    """The rows with the batch axes of `like`."""
    return rows.reshape(*like.shape[: like.ndim - len(axes) - 1], *rows.shape[1:])
