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

    Formula: y = Σ_j m_j x_j/n over the places j, n = Σ_j m_j, with m_j = 1 where the mask is True or there is none,
    else 0; y = 0 where n = 0.

    Derivation: ∂y/∂x_j = m_j/n, so

        dx_j = m_j·dy/n

    Args:
      dims: how many axes of places x has: 2 for pictures (…, H, W, C).

    Returns:
      A `Layer` without params, x (…, places…, C) floats, y (…, C); the sum is taken in at least float32. What
      stands where a mask (…, places…) is False, NaN too, reaches nothing.

    Raises:
      TypeError: x is not floating point, or the mask holds no bools.
      ValueError: x has too few axes or no place; the mask does not fit.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.global_avg_pool().apply((), jnp.arange(8.0).reshape(2, 2, 2)).tolist()
      [3.0, 4.0]

    References:
      Lin, Chen & Yan, Network in network (2014), section 3.2.

    Differences: `fn.mean_over_time()` is the same for one axis. PyTorch's AdaptiveAvgPool2d(1) keeps the axes with
    length 1.
    """
    return _over_places(describe(global_avg_pool, dims=dims), dims, mean_over_time())


def global_max_pool(dims: int = 2) -> Layer:
    """Global max pooling: the largest value of each channel over all places.

    Formula: y = x_l, l = argmax_j x_j over the places j where the mask is True; y = 0 where there is none.

    Derivation: y is one entry of x, and l does not change when x changes a little: dx is dy there,

        dx_j = dy where j = l, else 0

    Of equal values the first (row by row) counts as the largest.

    Args:
      dims: how many axes of places x has: 2 for pictures (…, H, W, C).

    Returns:
      A `Layer` without params, x (…, places…, C) floats, y (…, C). What stands where a mask (…, places…)
      is False, NaN too, reaches nothing; NaN elsewhere gives NaN.

    Raises:
      TypeError: x is not floating point, or the mask holds no bools.
      ValueError: x has too few axes or no place; the mask does not fit.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.global_max_pool().apply((), jnp.arange(8.0).reshape(2, 2, 2)).tolist()
      [6.0, 7.0]

    References:
      Oquab, Bottou, Laptev & Sivic, Is object localization for free? (2015), section 3.2.

    Differences: `fn.max_over_time()` is the same for one axis.
    """
    return _over_places(describe(global_max_pool, dims=dims), dims, max_over_time())


def _over_places(info: Info, dims: int, over_steps: Layer) -> Layer:
    """A layer over the steps of a sequence, for all places in a row."""
    checks.positive(info.name, dims=dims)

    def in_a_row(x: Any, mask: Any) -> tuple[jax.Array, Any]:
        x, valid = w.fitting(info, x, mask, dims)
        batch, n = x.shape[: x.ndim - dims - 1], math.prod(w.sizes(x, dims))
        checks.positive(str(info), **{"the number of places": n})
        return x.reshape(*batch, n, x.shape[-1]), None if valid is None else valid.reshape(*batch, n)

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        x, mask = in_a_row(x, mask)
        return over_steps.apply(params, x, mask=mask)

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, Any]:
        rows, mask = in_a_row(x, mask)
        y, _, saved = over_steps.forward(params, rows, mask=mask)
        return y, (saved, Static(w.sizes(x, dims)))

    def backward(params: Any, saved: Any, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        _, dx, _ = over_steps.backward(params, saved[0], dy)
        return (), dx.reshape(*dx.shape[:-2], *saved[1].value, dx.shape[-1])

    return layer(no_params, apply, forward, backward, name=info)
