"""Pools over all places at once."""

from __future__ import annotations

import math
from typing import Any

import jax

from fnnets.core import checks
from fnnets.core.layer import Info, Layer, Static, describe, layer, no_params
from fnnets.layers.pooling import pooling_windows as w
from fnnets.layers.pooling.over_time import max_over_time, mean_over_time


def global_avg_pool(dims: int = 2) -> Layer:
    """Global average pooling: the mean of each channel over all places.

    Formula: y = Σ_j m_j x_j/n over the places j, n = Σ_j m_j, with m_j = 1 where the mask is True (and everywhere
    without a mask), else 0; y = 0 if n = 0.

    Derivation: ∂y/∂x_j = m_j/n, so

        dx_j = m_j·dy/n

    Args:
      dims: the number of spatial axes of x: 2 for pictures (…, H, W, C).

    Returns:
      A `Layer` without params, x (…, places…, C) floats, y (…, C); the sum is taken in at least float32. Values
      where the mask (…, places…) is False, even NaN, have no effect.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: x has too few axes or no places, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.global_avg_pool().apply((), jnp.arange(8.0).reshape(2, 2, 2)).tolist()
      [3.0, 4.0]

    References:
      Lin, Chen & Yan, Network in network (2014), section 3.2.

    Differences: for one axis, `fn.mean_over_time()` is the same. PyTorch's AdaptiveAvgPool2d(1) keeps the axes, with
    length 1.
    """
    return _over_places(describe(global_avg_pool, dims=dims), dims, mean_over_time())


def global_max_pool(dims: int = 2) -> Layer:
    """Global max pooling: the largest value of each channel over all places.

    Formula: y = x_l, l = argmax_j x_j over the places j where the mask is True; y = 0 if there are none.

    Derivation: y is one entry of x, and l does not change when x changes slightly, so

        dx_j = dy where j = l, else 0

    Among equal values, the first one (row by row) counts as the largest.

    Args:
      dims: the number of spatial axes of x: 2 for pictures (…, H, W, C).

    Returns:
      A `Layer` without params, x (…, places…, C) floats, y (…, C). Values where the mask (…, places…) is False, even
      NaN, have no effect; NaN elsewhere gives NaN.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: x has too few axes or no places, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.global_max_pool().apply((), jnp.arange(8.0).reshape(2, 2, 2)).tolist()
      [6.0, 7.0]

    References:
      Oquab, Bottou, Laptev & Sivic, Is object localization for free? (2015), section 3.2.

    Differences: for one axis, `fn.max_over_time()` is the same.
    """
    return _over_places(describe(global_max_pool, dims=dims), dims, max_over_time())


def _over_places(info: Info, dims: int, over_steps: Layer) -> Layer:
    """Applies a layer over time to all places, flattened into one axis."""
    checks.positive(info.name, dims=dims)

    def flattened(x: Any, mask: Any) -> tuple[jax.Array, Any]:
        x, valid = w.fitting(info, x, mask, dims)
        batch, n = x.shape[: x.ndim - dims - 1], math.prod(w.sizes(x, dims))
        checks.positive(str(info), **{"the number of places": n})
        return x.reshape(*batch, n, x.shape[-1]), None if valid is None else valid.reshape(*batch, n)

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        x, mask = flattened(x, mask)
        return over_steps.apply(params, x, mask=mask)

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, Any]:
        rows, mask = flattened(x, mask)
        y, _, saved = over_steps.forward(params, rows, mask=mask)
        return y, (saved, Static(w.sizes(x, dims)))

    def backward(params: Any, saved: Any, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        _, dx, _ = over_steps.backward(params, saved[0], dy)
        return (), dx.reshape(*dx.shape[:-2], *saved[1].value, dx.shape[-1])

    return layer(no_params, apply, forward, backward, name=info)
