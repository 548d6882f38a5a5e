"""The convolution: moves one small kernel over the whole input."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnnets.core.arrays import sum_leading, zero_where_masked
from fnnets.core.layer import Layer, describe, layer
from fnnets.core.parameters import Initializer
from fnnets.layers.convolution import kernels
from fnnets.layers.convolution.geometry import Axis, Padding, window_shape
from fnnets.layers.convolution.kernels import Conv
from fnnets.layers.convolution.products import correlate, kernel_sum, spread


class ConvSaved(NamedTuple):
    """What `conv` keeps for its backward."""

    x: jax.Array  # 0 where the mask is False
    mask: jax.Array | None


def conv(
    features: int,
    kernel_size: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "same",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    rounding: str = "floor",
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """A convolution over 1, 2 or 3 axes, channels last.

    Formula: for each spatial axis, with positions t, places k < kernel_size and l zeros before x,

        y[t, o] = Σ_{k,i} x[t·stride + k·dilation − l, i] · w[k, i, o] + b[o]

    x (…, spatial…, C), w (*kernel_size, C/groups, features), b (features,); x is 0 outside. The kernel is not flipped:
    this is the correlation that all frameworks call convolution. With groups, the sum over i runs over the inputs of
    o's own group. groups = C is the depthwise convolution.

    Derivation: y[t, o] contains the product x[j, i]·w[k, i, o] exactly where j = t·stride + k·dilation − l. With sums
    over the batch n and all positions t,

        dw[k, i, o] = Σ_{n,t} x[n, t·stride + k·dilation − l, i] · dy[n, t, o]
        db[o]       = Σ_{n,t} dy[n, t, o]
        dx[j, i]    = Σ_{t,k: t·stride + k·dilation − l = j} Σ_o dy[t, o] · w[k, i, o]

    dw is the correlation of x with dy, with stride and dilation swapped. dx is the transposed convolution of dy: it
    gets stride − 1 zeros between its entries, and the kernel is flipped.

    Args:
      features: the number of kernels, which is the number of channels of y.
      kernel_size: an int for one spatial axis, or a tuple of one, two or three.
      strides: the distance from one position to the next: an int for all axes, or a tuple.
      padding: "same", "valid", an int, or a tuple with an int or a pair (before, after) for each axis;
        see `fn.out_size`.
      dilation: the distance from one place of the kernel to the next: an int for all axes, or a tuple.
      groups: the number of groups that the channels of x and the features are split into; it divides both.
      rounding: how to round a size that the stride does not divide: "floor", "ceil" or "torch"; see `fn.out_size`.
      use_bias: whether the layer has a bias; otherwise `Conv.b` is None.
      kernel_init: `(key, shape, dtype) -> w`, one of `jax.nn.initializers`.
      bias_init: the same for b.

    Returns:
      A `Layer` with params `Conv(w, b)`, x (…, spatial…, C) floats, y (…, spatial…, features) in the dtype of
      w; the spatial sizes are those of `fn.out_size`. Where a mask (…, spatial…) is False, x counts as 0.

    Raises:
      TypeError: x is not floating point.
      ValueError: a setting is out of range, groups does not divide the channels, x has too few axes, or
        the window is larger than the padded input.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.conv(32, (1, 1)), jnp.ones((6, 6, 128))
      >>> params = net.init(jax.random.key(0), x)
      >>> params.w.shape, net.apply(params, x).shape
      ((1, 1, 128, 32), (6, 6, 32))

    References:
      LeCun, Boser, Denker, Henderson, Howard, Hubbard & Jackel, Backpropagation applied to handwritten zip
      code recognition, Neural Computation 1 (1989); Dumoulin & Visin, A guide to convolution arithmetic (2016).

    Differences: channels are last, as in Keras and flax. In PyTorch they are second, and the kernel is (features,
    C/groups, *kernel_size). The default padding is "same", as in flax; in Keras and PyTorch it is "valid". w is
    initialised as in flax (LeCun normal over kernel_size and C/groups); Keras uses Glorot uniform, PyTorch
    U(±1/√fan_in).
    """
    kernels.features_in_groups("conv", features, groups)
    window = window_shape("conv", kernel_size, strides, padding, dilation, rounding)
    info = describe(
        conv, features=features, kernel_size=kernel_size, strides=strides, padding=padding, dilation=dilation,
        groups=groups, rounding=rounding, use_bias=use_bias,
    )  # fmt: skip

    def axes(x: Any) -> tuple[Axis, ...]:
        return window.over(info, kernels.spatial(info, x, len(window.kernel)))

    def init(key: Any, x: Any) -> Conv:
        axes(x)
        shape = (*window.kernel, groups, features)
        return kernels.start(info, key, x, shape, kernel_init, bias_init if use_bias else None)

    def apply(params: Conv, x: Any, *, mask: Any = None) -> jax.Array:
        x = kernels.fitting(info, params, x, mask, kernel=window.kernel, groups=groups)
        y = correlate(x.astype(params.w.dtype), params.w, axes(x), groups)
        return y if params.b is None else y + params.b

    def forward(params: Conv, x: Any, *, mask: Any = None) -> tuple[jax.Array, ConvSaved]:
        x = kernels.fitting(info, params, x, mask, kernel=window.kernel, groups=groups)
        return apply(params, x), ConvSaved(x, mask)

    def backward(params: Conv, saved: ConvSaved, dy: jax.Array) -> tuple[Conv, jax.Array]:
        x, mask = saved
        dw = kernel_sum(x.astype(params.w.dtype), dy, axes(x), groups)
        db = None if params.b is None else sum_leading(dy)
        dx = spread(dy, params.w, axes(x), groups).astype(x.dtype)
        return Conv(dw, db), zero_where_masked(dx, mask)

    return layer(init, apply, forward, backward, name=info)
