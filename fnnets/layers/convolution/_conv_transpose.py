"""The transposed convolution: every input spreads a kernel over the output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer, describe, layer
from fnnets.core.parameters import Initializer
from fnnets.layers.convolution import kernels
from fnnets.layers.convolution.geometry import Axis, Padding, window_shape
from fnnets.layers.convolution.kernels import Conv
from fnnets.layers.convolution.products import correlate, exchanged, kernel_sum, spread


def conv_transpose(
    features: int,
    kernel_size: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "same",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """A transposed convolution: what the backward of a convolution does to dy, as a layer of its own.

    Formula: for each spatial axis, with positions t of x, places k < kernel_size and l cut off before y,

        y[j, o] = Σ_{t,k: t·stride + k·dilation − l = j} Σ_i x[t, i] · w[k, i, o] + b[o]

    x (…, spatial…, C), w (*kernel_size, C/groups, features), b (features,): each x[t] adds its multiple of
    the kernel to y at t·stride. The size of an axis of n becomes n·stride with padding "same", and
    (n − 1)·stride + dilation·(kernel − 1) + 1 − p otherwise, with p the padding at both ends, which is
    cut off: of all sizes that a convolution with these settings makes n of, the least.

    Derivation: y[j, o] holds x[t, i]·w[k, i, o] exactly where j = t·stride + k·dilation − l. So, summing
    over the batch n,

        dx[t, i]    = Σ_{k,o} dy[t·stride + k·dilation − l, o] · w[k, i, o]
        dw[k, i, o] = Σ_{n,t} x[n, t, i] · dy[n, t·stride + k·dilation − l, o]
        db[o]       = Σ_{n,j} dy[n, j, o]

    dx is the convolution of dy with the inputs and outputs of w exchanged, and dw the kernel's gradient of
    that convolution, dy being its input.

    Args:
      features: the number of channels in y.
      kernel_size: an int for one spatial axis, or a tuple with an int for each.
      strides: the way in y from one position of x to the next: an int for all axes, or a tuple.
      padding: that of the convolution which leads back: "same", "valid", an int, or a tuple with an int or a
        pair (before, behind) for each axis.
      dilation: the way from one place of the kernel to the next: an int for all axes, or a tuple.
      groups: into how many groups the channels of x and the features are parted; divides both.
      use_bias: whether b is there; `Conv.b` is None without.
      kernel_init: `(key, shape, dtype) -> w`, one of `jax.nn.initializers`.
      bias_init: likewise for b.

    Returns:
      A `Layer` with params `Conv(w, b)`, x (…, spatial…, C) floats, y (…, spatial…, features) in the dtype of w.

    Raises:
      TypeError: x is not floating point.
      ValueError: a setting is out of range, groups does not divide the channels, x has too few axes, or
        the padding leaves nothing of y.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.conv_transpose(3, (4, 4), strides=2), jnp.ones((8, 8, 16))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (16, 16, 3)

    References:
      Zeiler, Krishnan, Taylor & Fergus, Deconvolutional networks (2010); Dumoulin & Visin, A guide to
      convolution arithmetic for deep learning (2016), section 4.

    Differences: PyTorch's padding p and output_padding q are ((p, p − q), …) here; its kernel is (C,
    features/groups, *kernel_size). flax correlates instead, unless told transpose_kernel=True: its kernel is
    this one, flipped. Where the stride is larger than the kernel, flax and Keras make "valid" n·stride.
    """
    kernels.features_in_groups("conv_transpose", features, groups)
    lying = window_shape("conv_transpose", kernel_size, strides, padding, dilation)
    info = describe(
        conv_transpose, features=features, kernel_size=kernel_size, strides=strides, padding=padding,
        dilation=dilation, groups=groups, use_bias=use_bias,
    )  # fmt: skip

    def axes(x: Any) -> tuple[Axis, ...]:
        return lying.under(info, kernels.spatial(info, x, len(lying.kernel)))

    def init(key: Any, x: Any) -> Conv:
        axes(x)
        shape = (*lying.kernel, groups, features)
        return kernels.start(info, key, x, shape, kernel_init, bias_init if use_bias else None)

    def apply(params: Conv, x: Any) -> jax.Array:
        x = kernels.fitting(info, params, x, None, kernel=lying.kernel, groups=groups)
        y = spread(x.astype(params.w.dtype), exchanged(params.w, groups), axes(x), groups)
        return y if params.b is None else y + params.b

    def forward(params: Conv, x: Any) -> tuple[jax.Array, jax.Array]:
        return apply(params, x), jnp.asarray(x)

    def backward(params: Conv, x: jax.Array, dy: jax.Array) -> tuple[Conv, jax.Array]:
        w = exchanged(params.w, groups)
        dw = exchanged(kernel_sum(dy, x.astype(params.w.dtype), axes(x), groups), groups)
        db = None if params.b is None else dy.sum(range(dy.ndim - 1))
        return Conv(dw, db), correlate(dy, w, axes(x), groups).astype(x.dtype)

    return layer(init, apply, forward, backward, name=info)
