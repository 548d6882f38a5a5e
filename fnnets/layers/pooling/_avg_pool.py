"""Average pooling: the mean of each window."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core.arrays import at_least_float32, float32_or_wider, zero_where_masked
from fnnets.core.layer import Layer, Static, describe, layer, no_params
from fnnets.layers.convolution.geometry import Axis, Padding
from fnnets.layers.pooling import pooling_windows as w


class AvgPoolSaved(NamedTuple):
    """What `avg_pool` keeps for its backward."""

    valid: jax.Array | None  # the mask, (…, places…, 1)
    x: Static  # the spatial sizes and the dtype of x


def avg_pool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "valid",
    rounding: str = "floor",
    count_include_pad: bool = True,
) -> Layer:
    """Average pooling over 1, 2 or 3 axes, channels last: the mean of each window.

    Formula: for each axis, with positions t, places k < window and l places of padding before x, channel by channel

        y[t] = Σ_k x[t·stride + k − l]/n[t]

    where x is 0 outside. n[t] is the number of places of the window in x or in the padding. Without
    `count_include_pad`, it is the number of places in x where the mask is True. If n[t] is 0, y is 0.

    Derivation: y is linear in x, and y[t] contains x[j]/n[t] exactly where j = t·stride + k − l, so

        dx[j] = Σ_{t,k: t·stride + k − l = j} dy[t]/n[t]

    Args:
      window: the size of the window: an int for one axis, or a tuple of one, two or three.
      strides: the distance from one window to the next, an int for all axes, or a tuple; None for windows side by side,
        without overlap.
      padding: "valid", "same", an int, or a tuple with an int or a pair (before, after) for each axis;
        see `fn.out_size`.
      rounding: how to round a size that the stride does not divide: "floor", "ceil" or "torch"
        (PyTorch's `ceil_mode`); see `fn.out_size`. Places beyond the padding never count.
      count_include_pad: whether places in the padding count, as zeros.

    Returns:
      A `Layer` without params, x (…, places…, C) floats, y (…, positions…, C) with the sizes that `fn.out_size`
      gives; sums are taken in at least float32. Where a mask (…, places…) is False, x counts as padding.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: a setting is out of range, x has too few axes, the window is larger than the padded input, or
        the mask does not fit.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> x = jnp.array([1.0, 5.0, 2.0, 4.0])[:, None]
      >>> fn.avg_pool(2).apply((), x)[:, 0].tolist()
      [3.0, 3.0]
      >>> fn.avg_pool(2, padding=1).apply((), x)[:, 0].tolist()
      [0.5, 3.5, 2.0]
      >>> fn.avg_pool(2, padding=1, count_include_pad=False).apply((), x)[:, 0].tolist()
      [1.0, 3.5, 4.0]

    References:
      LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document recognition (1998), section
      2.B (subsampling, there with a weight and a bias).

    Differences: padding counts, as in PyTorch and flax; Keras and TensorFlow leave it out.
    """
    geometry = w.pool_window("avg_pool", window, strides, padding, rounding)
    info = describe(
        avg_pool, window=window, strides=strides, padding=padding, rounding=rounding,
        count_include_pad=count_include_pad,
    )  # fmt: skip
    dims = len(geometry.kernel)

    def prepared(x: Any, mask: Any) -> tuple[jax.Array, jax.Array | None, tuple[Axis, ...]]:
        """x in at least float32 and 0 where the mask is False, the mask, and the axes."""
        x, valid = w.fitting(info, x, mask, dims)
        return zero_where_masked(at_least_float32(x), valid), valid, geometry.over(info, w.sizes(x, dims))

    def counted(axes: tuple[Axis, ...], valid: Any, dtype: Any) -> Any:
        """n, or 1 where n is 0."""
        if valid is None or count_include_pad:
            each = (
                _number(axis, pad, count_include_pad)
                for axis, pad in zip(axes, geometry.padding, strict=True)
            )
            n = functools.reduce(np.multiply.outer, each)[..., None]
            return np.maximum(n, 1).astype(dtype)
        return jnp.maximum(w.reduced(valid.astype(dtype), axes, 0.0, jax.lax.add), 1)

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        del params
        dtype = jnp.result_type(x)
        x, valid, axes = prepared(x, mask)
        return (w.reduced(x, axes, 0.0, jax.lax.add) / counted(axes, valid, x.dtype)).astype(dtype)

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, AvgPoolSaved]:
        del params
        dtype = jnp.result_type(x)
        x, valid, axes = prepared(x, mask)
        around = w.padded(x, axes, 0.0)
        total = sum(w.values_at(around, axes, place) for place in w.places(axes))
        y = total / counted(axes, valid, x.dtype)
        return y.astype(dtype), AvgPoolSaved(valid, Static((w.sizes(x, dims), dtype)))

    def backward(params: Any, saved: AvgPoolSaved, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        valid, (sizes, dtype) = saved.valid, saved.x.value
        axes = geometry.over(info, sizes)
        dy = dy.astype(float32_or_wider(dtype))

        def share(number: Any, dy: jax.Array) -> jax.Array:
            return dy * (number >= 0).astype(dy.dtype)

        dx = w.spread(axes, dy.ndim - dims - 1, share, dy / counted(axes, valid, dy.dtype))
        return (), zero_where_masked(dx, valid).astype(dtype)

    return layer(no_params, apply, forward, backward, name=info)


def _number(axis: Axis, padding: Any, count_include_pad: bool) -> np.ndarray:
    """The number of places that count in each window along one axis."""
    first = np.arange(axis.outputs) * axis.stride - axis.low
    after = axis.high if padding == "same" else padding[1]
    start, end = (-axis.low, axis.inputs + after) if count_include_pad else (0, axis.inputs)
    return np.maximum(np.minimum(first + axis.kernel, end) - np.maximum(first, start), 0)
