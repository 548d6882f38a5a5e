"""Shared by the pools: the values of windows at one place, and the gradient from windows back to x."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.layers.convolution.geometry import Axis, WindowShape, per_axis, window_shape

Place = tuple[int, ...]


def pool_window(who: str, size: Any, strides: Any, padding: Any, rounding: str) -> WindowShape:
    """Checks the settings of a pool; without strides, its windows are side by side."""
    size = per_axis(who, "window", size, 1 if hasattr(size, "__index__") else None)
    return window_shape(who, size, size if strides is None else strides, padding, 1, rounding)


def fitting(info: Any, x: Any, mask: Any, dims: int) -> tuple[jax.Array, Any]:
    """Checks and returns x (…, places…, C) and the mask as (…, places…, 1)."""
    x = checks.floats(info, x)
    if x.ndim < dims + 1:
        raise ValueError(
            f"{info}: x must have at least {dims + 1} axes, {dims} spatial and one of channels, got shape "
            f"{checks.shape_text(x.shape)}; x[..., None] adds a channel."
        )
    if mask is None:
        return jnp.asarray(x), None
    mask = checks.bools(info, mask)
    checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each place of x.")
    return jnp.asarray(x), mask[..., None]


def sizes(x: jax.Array, dims: int) -> tuple[int, ...]:
    """The number of places of x along each axis."""
    return x.shape[-dims - 1 : -1]


def empty(axis: Axis) -> bool:
    """Whether some window holds padding only: at the start, or at the end if sizes are rounded up."""
    last = (axis.outputs - 1) * axis.stride - axis.low
    return axis.kernel <= axis.low or last >= axis.inputs


def places(axes: tuple[Axis, ...]) -> Iterator[Place]:
    """The places of a window, row by row."""
    return itertools.product(*(range(axis.kernel) for axis in axes))


def padded(x: jax.Array, axes: tuple[Axis, ...], fill: float) -> jax.Array:
    """x with `fill` around it, cut where windows do not reach its end."""
    edges = [(axis.low, axis.high, 0) for axis in axes]
    return jax.lax.pad(
        x, jnp.asarray(fill, x.dtype), [*[(0, 0, 0)] * (x.ndim - len(axes) - 1), *edges, (0, 0, 0)]
    )


def values_at(x: jax.Array, axes: tuple[Axis, ...], place: Place) -> jax.Array:
    """The value of every window of the padded x at one of its places."""
    ends = zip(place, axes, strict=True)
    cuts = [slice(k, k + (axis.outputs - 1) * axis.stride + 1, axis.stride) for k, axis in ends]
    return x[(..., *cuts, slice(None))]


def reduced(x: jax.Array, axes: tuple[Axis, ...], start: Any, combine: Any) -> jax.Array:
    """One value for each window, by `lax.reduce_window`."""
    x = padded(x, axes, start)
    batch = (1,) * (x.ndim - len(axes) - 1)
    kernel, strides = ((*batch, *each, 1) for each in zip(*((a.kernel, a.stride) for a in axes), strict=True))
    return jax.lax.reduce_window(x, start, combine, kernel, strides, "valid")


def spread(
    axes: tuple[Axis, ...], batch: int, share: Callable[..., jax.Array], *arrays: jax.Array
) -> jax.Array:
    """dx: for every place, the sum of the gradients from all windows that contain it.

    With stride s, place t·s + r of the padded x (0 ≤ r < s) lies in window t − q at place k = r + q·s, for every q
    that keeps k inside the window. So the windows' arrays are shifted by q, each of their axes is followed by a new
    one of length s for r, and `share(k, *arrays)` is the gradient from the windows' place k.
    """
    steps = [range(-(-axis.kernel // axis.stride)) for axis in axes]
    parts = []
    for moves in itertools.product(*steps):
        shifted = [_shifted(array, axes, moves, batch) for array in arrays]
        parts.append(share(_numbers(axes, moves), *shifted))
    dx = sum(parts[1:], parts[0])
    shape = [len(step) + axis.outputs - 1 for step, axis in zip(steps, axes, strict=True)]
    dx = dx.reshape(
        *dx.shape[:batch], *(n * axis.stride for n, axis in zip(shape, axes, strict=True)), dx.shape[-1]
    )
    edges = [
        (-axis.low, axis.inputs + axis.low - size, 0)
        for axis, size in zip(axes, dx.shape[batch:], strict=False)
    ]
    return jax.lax.pad(dx, jnp.zeros((), dx.dtype), [*[(0, 0, 0)] * batch, *edges, (0, 0, 0)])


def _shifted(array: jax.Array, axes: tuple[Axis, ...], moves: Place, batch: int) -> jax.Array:
    """The windows' array shifted by whole strides, with a new axis of length 1 after each of its axes."""
    rooms = [-(-axis.kernel // axis.stride) - 1 for axis in axes]
    edges = [(move, room - move, 0) for move, room in zip(moves, rooms, strict=True)]
    zero = jnp.zeros((), array.dtype)
    array = jax.lax.pad(array, zero, [*[(0, 0, 0)] * batch, *edges, (0, 0, 0)])
    return jnp.expand_dims(array, tuple(batch + 2 * i + 1 for i in range(len(axes))))


def _numbers(axes: tuple[Axis, ...], moves: Place) -> np.ndarray:
    """The number of the place k = r + q·s for each r, with q from `moves`; −1 outside the window."""
    kernel = [axis.kernel for axis in axes]
    each = [np.arange(axis.stride) + move * axis.stride for axis, move in zip(axes, moves, strict=True)]
    grid = np.meshgrid(*each, indexing="ij")
    inside = np.all([k < n for k, n in zip(grid, kernel, strict=True)], axis=0)
    weights = [math.prod(kernel[i + 1 :]) for i in range(len(kernel))]
    number = np.where(inside, sum(k * weight for k, weight in zip(grid, weights, strict=True)), -1)
    return number.reshape(*(n for axis in axes for n in (1, axis.stride)), 1)
