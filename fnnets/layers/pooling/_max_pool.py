"""Max pooling: the largest value of each window."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.arrays import zero_where_masked
from fnnets.core.layer import Layer, Static, describe, layer, no_params
from fnnets.layers.convolution.geometry import Axis, Padding
from fnnets.layers.pooling import pooling_windows as w


class MaxPoolSaved(NamedTuple):
    """What `max_pool` keeps for its backward."""

    place: jax.Array  # for each y, the number of its place in the window
    valid: jax.Array | None  # the mask, (…, places…, 1)
    x: Static  # the spatial sizes and the dtype of x


def max_pool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "valid",
    rounding: str = "floor",
) -> Layer:
    """Max pooling over 1, 2 or 3 axes, channels last: the largest value of each window.

    Formula: for each axis, with positions t, places k < window and l places of padding before x, channel by channel

        y[t] = max_k x[t·stride + k − l]

    over the places inside x where the mask is True; y = 0 for a window without such a place.

    Derivation: y[t] is one entry of x, at place k_t = argmax_k, and k_t does not change when x changes slightly. If
    windows overlap, one entry of x may be the largest in several of them:

        dx[j] = Σ_{t: t·stride + k_t − l = j} dy[t]

    Among equal values, the first one (row by row) counts as the largest and gets the whole gradient.

    Args:
      window: the size of the window: an int for one axis, or a tuple of one, two or three.
      strides: the distance from one window to the next, an int for all axes, or a tuple; None for windows side by side,
        without overlap.
      padding: "valid", "same", an int, or a tuple with an int or a pair (before, after) for each axis;
        see `fn.out_size`.
      rounding: how to round a size that the stride does not divide: "floor", "ceil" or "torch"
        (PyTorch's `ceil_mode`); see `fn.out_size`.

    Returns:
      A `Layer` without params, x (…, places…, C) floats, y (…, positions…, C) with the sizes that `fn.out_size`
      gives. Where a mask (…, places…) is False, x counts as padding. NaN in a window makes its y NaN.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: a setting is out of range, x has too few axes, the window is larger than the padded input, or
        the mask does not fit.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> x = jnp.array([1.0, 5.0, 2.0, 3.0, 4.0])[:, None]
      >>> fn.max_pool(2).apply((), x)[:, 0].tolist()
      [5.0, 3.0]
      >>> fn.max_pool(2, rounding="ceil").apply((), x)[:, 0].tolist()
      [5.0, 3.0, 4.0]

    References:
      Scherer, Müller & Behnke, Evaluation of pooling operations in convolutional architectures for object
      recognition (2010), eq. 3.

    Differences: by default the windows are side by side, as in PyTorch and Keras; flax's default strides are 1. In all
    of them, padding is −∞ and the first of equal values gets the gradient. A window with padding only gives 0 here, −∞
    in the others.
    """
    geometry = w.pool_window("max_pool", window, strides, padding, rounding)
    info = describe(max_pool, window=window, strides=strides, padding=padding, rounding=rounding)
    dims = len(geometry.kernel)
    small = jnp.uint8 if math.prod(geometry.kernel) <= 256 else jnp.int32

    def prepared(x: Any, mask: Any) -> tuple[jax.Array, jax.Array | None, tuple[Axis, ...], Any]:
        """x with −∞ where the mask is False, the mask, the axes, and which windows have a valid place.

        The last is None if all have one.
        """
        x, valid = w.fitting(info, x, mask, dims)
        axes = geometry.over(info, w.sizes(x, dims))
        counts = jnp.ones((*w.sizes(x, dims), 1), bool) if valid is None else valid
        maybe_empty = valid is not None or any(w.empty(axis) for axis in axes)
        filled = w.reduced(counts, axes, False, jax.lax.bitwise_or) if maybe_empty else None
        return x if valid is None else jnp.where(valid, x, -jnp.inf), valid, axes, filled

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        del params
        x, _, axes, filled = prepared(x, mask)
        y = w.reduced(x, axes, -jnp.inf, jax.lax.max)
        return y if filled is None else jnp.where(filled, y, 0)

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, MaxPoolSaved]:
        del params
        x, valid, axes, filled = prepared(x, mask)
        around = w.padded(x, axes, -jnp.inf)
        first, *others = w.places(axes)
        y = w.values_at(around, axes, first)
        place = jnp.zeros(y.shape, small)
        for number, where in enumerate(others, 1):
            part = w.values_at(around, axes, where)
            larger = ~(part <= y) & ~jnp.isnan(y)  # NaN counts as the largest
            y, place = jnp.where(larger, part, y), jnp.where(larger, small(number), place)
        y = y if filled is None else jnp.where(filled, y, 0)
        return y, MaxPoolSaved(place, valid, Static((w.sizes(x, dims), x.dtype)))

    def backward(params: Any, saved: MaxPoolSaved, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        sizes, dtype = saved.x.value
        axes = geometry.over(info, sizes)

        def share(number: Any, dy: jax.Array, place: jax.Array) -> jax.Array:
            return jnp.where(place == number, dy, 0)

        dx = w.spread(axes, dy.ndim - dims - 1, share, dy, saved.place)
        return (), zero_where_masked(dx, saved.valid).astype(dtype)

    return layer(no_params, apply, forward, backward, name=info)
