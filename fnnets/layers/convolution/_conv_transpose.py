"""The transposed convolution: every input adds a multiple of the kernel to the output."""

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
    """A transposed convolution: does to x what the backward of a convolution does to dy.

    Formula: for each spatial axis, with positions t of x, places k < kernel_size and l entries cut off before y,

        y[j, o] = Σ_{t,k: t·stride + k·dilation − l = j} Σ_i x[t, i] · w[k, i, o] + b[o]

    x (…, spatial…, C), w (*kernel_size, C/groups, features), b (features,). Each x[t] adds a multiple of the kernel to
    y at t·stride. With padding "same", an axis of size n becomes n·stride. Otherwise it becomes
    (n − 1)·stride + dilation·(kernel − 1) + 1 − p, where p is the padding at both ends, which is cut off. This is the
    smallest size that a convolution with these settings turns into n.

    Derivation: y[j, o] contains x[t, i]·w[k, i, o] exactly where j = t·stride + k·dilation − l. With sums over the
    batch n,

        dx[t, i]    = Σ_{k,o} dy[t·stride + k·dilation − l, o] · w[k, i, o]
        dw[k, i, o] = Σ_{n,t} x[n, t, i] · dy[n, t·stride + k·dilation − l, o]
        db[o]       = Σ_{n,j} dy[n, j, o]

    dx is the convolution of dy with inputs and outputs of w swapped. dw is the kernel gradient of that convolution,
    with dy as its input.

    Args:
      features: the number of channels of y.
      kernel_size: an int for one spatial axis, or a tuple with an int for each.
      strides: the distance in y from one position of x to the next: an int for all axes, or a tuple.
      padding: the padding of the convolution from y back to x: "same", "valid", an int, or a tuple with an int or a
        pair (before, after) for each axis.
      dilation: the distance from one place of the kernel to the next: an int for all axes, or a tuple.
      groups: the number of groups that the channels of x and the features are split into; it divides both.
      use_bias: whether the layer has a bias; otherwise `Conv.b` is None.
      kernel_init: `(key, shape, dtype) -> w`, one of `jax.nn.initializers`.
      bias_init: the same for b.

    Returns:
      A `Layer` with params `Conv(w, b)`, x (…, spatial…, C) floats, y (…, spatial…, features) in the dtype of w.

    Raises:
      TypeError: x is not floating point.
      ValueError: a setting is out of range, groups does not divide the channels, x has too few axes, or
        the padding cuts off all of y.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.conv_transpose(3, (4, 4), strides=2), jnp.ones((8, 8, 16))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (16, 16, 3)

    References:
      Zeiler, Krishnan, Taylor & Fergus, Deconvolutional networks (2010); Dumoulin & Visin, A guide to
      convolution arithmetic for deep learning (2016), section 4.

    Differences: PyTorch's padding p and output_padding q are ((p, p − q), …) here; its kernel is (C,
    features/groups, *kernel_size). flax correlates instead, except with transpose_kernel=True: its kernel is this one,
    flipped. If the stride is larger than the kernel, "valid" gives n·stride in flax and Keras.
    """
    kernels.features_in_groups("conv_transpose", features, groups)
    window = window_shape("conv_transpose", kernel_size, strides, padding, dilation)
    info = describe(
        conv_transpose, features=features, kernel_size=kernel_size, strides=strides, padding=padding,
        dilation=dilation, groups=groups, use_bias=use_bias,
    )  # fmt: skip

    def axes(x: Any) -> tuple[Axis, ...]:
        return window.under(info, kernels.spatial(info, x, len(window.kernel)))

    def init(key: Any, x: Any) -> Conv:
        axes(x)
        shape = (*window.kernel, groups, features)
        return kernels.start(info, key, x, shape, kernel_init, bias_init if use_bias else None)

    def apply(params: Conv, x: Any) -> jax.Array:
        x = kernels.fitting(info, params, x, None, kernel=window.kernel, groups=groups)
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
