"""The three products that convolutions and their gradients are made of, each a convolution itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fnnets.convolution.window import Axis

# An input x (…, spatial…, I), a kernel w (*kernel, I/groups, O) and an output y (…, spatial…, O) are linked by
# one sum over the positions t of a window, the places k in it, and the channels i and o of the same group:
#
#     E = Σ_{t,k,i,o} x[t·stride + k·dilation − low, i] · w[k, i, o] · y[t, o]
#
# Each of the functions takes two of them and gives the derivative of E by the third.


def correlate(x: jax.Array, w: jax.Array, axes: Sequence[Axis], groups: int) -> jax.Array:
    """y[t, o] = Σ_{k,i} x[t·stride + k·dilation − low, i] · w[k, i, o]."""
    return _channels_last(
        x, w, groups,
        window_strides=[axis.stride for axis in axes],
        padding=[(axis.low, max(axis.high, 0)) for axis in axes],
        rhs_dilation=[axis.dilation for axis in axes],
    )  # fmt: skip


def spread(y: jax.Array, w: jax.Array, axes: Sequence[Axis], groups: int) -> jax.Array:
    """x[j, i] = Σ_{t,k: t·stride + k·dilation − low = j} Σ_o w[k, i, o] · y[t, o].

    With j fixed, k falls as t grows: a correlation with the kernel turned round, of y with stride − 1
    zeros between its entries, and with as many before it as the kernel's extent leaves of `low`.
    """
    turned = jnp.flip(exchanged(w, groups), range(len(axes)))
    extents = [axis.dilation * (axis.kernel - 1) for axis in axes]
    return _channels_last(
        y, turned, groups,
        window_strides=[1] * len(axes),
        padding=[(most - axis.low, most - axis.high) for most, axis in zip(extents, axes, strict=True)],
        lhs_dilation=[axis.stride for axis in axes],
        rhs_dilation=[axis.dilation for axis in axes],
    )  # fmt: skip


def kernel_sum(x: jax.Array, y: jax.Array, axes: Sequence[Axis], groups: int) -> jax.Array:
    """w[k, i, o] = Σ_{n,t} x[n, t·stride + k·dilation − low, i] · y[n, t, o], n the batch.

    The correlation of x with y in place of the kernel: stride and dilation change places, the batch is
    what is summed over, and the channels i stand where the batch was.
    """
    r = len(axes)
    x, y = x.reshape(_rows(x, r), *x.shape[-r - 1 :]), y.reshape(_rows(y, r), *y.shape[-r - 1 :])
    places = tuple(range(1, r + 1))
    return jax.lax.conv_general_dilated(
        x, y,
        window_strides=[axis.dilation for axis in axes],
        padding=[(axis.low, axis.high) for axis in axes],
        rhs_dilation=[axis.stride for axis in axes],
        dimension_numbers=jax.lax.ConvDimensionNumbers(
            lhs_spec=(r + 1, 0, *places), rhs_spec=(r + 1, 0, *places), out_spec=(r, r + 1, *range(r))
        ),
        batch_group_count=groups,
    )  # fmt: skip


def exchanged(w: jax.Array, groups: int) -> jax.Array:
    """The kernel with inputs and outputs in each other's place: (*kernel, I/groups, O) becomes (*kernel, O/groups, I)."""
    *kernel, inputs, outputs = w.shape
    w = w.reshape(*kernel, inputs, groups, outputs // groups)
    return jnp.swapaxes(w, -1, -3).reshape(*kernel, outputs // groups, groups * inputs)


def _channels_last(x: jax.Array, w: jax.Array, groups: int, **settings: object) -> jax.Array:
    r = w.ndim - 2
    places = tuple(range(1, r + 1))
    y = jax.lax.conv_general_dilated(
        x.reshape(_rows(x, r), *x.shape[-r - 1 :]), w, **settings,
        dimension_numbers=jax.lax.ConvDimensionNumbers(
            lhs_spec=(0, r + 1, *places), rhs_spec=(r + 1, r, *range(r)), out_spec=(0, r + 1, *places)
        ),
        feature_group_count=groups,
    )  # fmt: skip
    return y.reshape(*x.shape[: -r - 1], *y.shape[1:])


def _rows(x: jax.Array, r: int) -> int:
    """How many examples there are in front of r spatial axes and the channels."""
    return math.prod(x.shape[: -r - 1])
