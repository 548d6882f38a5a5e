"""Layers that only change the shape: flatten, reshape and identity."""

from __future__ import annotations

import math
from typing import Any

import jax

from fnnets.core import checks
from fnnets.core.layer import Info, Layer, Static, describe, layer, no_params


def flatten(axes: int) -> Layer:
    """Flattens the last axes into one.

    Formula: y[…, k] = x[…, i_1, …, i_axes] in row-major order.

    Derivation: every entry of y is one entry of x, so dx is dy in the shape of x.

    Args:
      axes: the number of trailing axes to flatten: 3 for pictures (…, H, W, C).

    Returns:
      A `Layer` without params.

    Raises:
      ValueError: x has fewer axes.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.flatten(3).apply((), jnp.ones((4, 8, 8, 2))).shape
      (4, 128)

    Differences: PyTorch, Keras and flax keep the first axis and flatten all others. This layer takes the number of
    trailing axes, so it works with any number of batch axes, and with none.
    """
    checks.positive("flatten", axes=axes)
    info = describe(flatten, axes=axes)

    def shape(x: jax.Array) -> tuple[int, ...]:
        checks.rank(info, x, axes)
        return (math.prod(x.shape[x.ndim - axes :]),)

    return _trailing(info, axes, shape)


def reshape(shape: tuple[int, ...], *, axes: int = 1) -> Layer:
    """Gives the last axes another shape.

    Formula: y is x with its last `axes` axes replaced by `shape`, in row-major order.

    Derivation: every entry of y is one entry of x, so dx is dy in the shape of x.

    Args:
      shape: the new trailing shape, with as many values as before.
      axes: the number of trailing axes that it replaces.

    Returns:
      A `Layer` without params.

    Raises:
      ValueError: x has fewer axes, or these axes do not hold as many values as `shape`.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.reshape((8, 8, 1)).apply((), jnp.ones((4, 64))).shape
      (4, 8, 8, 1)
    """
    checks.positive("reshape", axes=axes, **{f"shape[{i}]": size for i, size in enumerate(shape)})
    info = describe(reshape, shape=tuple(shape), axes=axes)

    def new_shape(x: jax.Array) -> tuple[int, ...]:
        checks.rank(info, x, axes)
        tail = x.shape[x.ndim - axes :]
        if math.prod(tail) != math.prod(shape):
            raise ValueError(
                f"{info}: the last {axes} axes of x must hold {math.prod(shape)} values, got shape "
                f"{checks.shape_text(x.shape)}; give another shape or number of axes."
            )
        return tuple(shape)

    return _trailing(info, axes, new_shape)


def identity() -> Layer:
    """The identity: returns x unchanged.

    Formula: y = x.

    Derivation: dx = dy.

    Returns:
      A `Layer` without params. In a `branch`, it passes the input through.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.identity().apply((), jnp.ones(3)).shape
      (3,)
    """
    info = describe(identity)

    def apply(params: Any, x: Any) -> jax.Array:
        del params
        return checks.floats(info, x)

    return layer(
        no_params,
        apply,
        lambda params, x: (apply(params, x), None),
        lambda params, _, dy: ((), dy),
        name=info,
    )


def _trailing(info: Info, axes: int, new_shape: Any) -> Layer:
    def apply(params: Any, x: Any) -> jax.Array:
        del params
        x = checks.floats(info, x)
        tail = new_shape(x)
        return x.reshape(x.shape[: x.ndim - axes] + tail)

    def forward(params: Any, x: Any) -> tuple[jax.Array, Static]:
        y = apply(params, x)
        return y, Static((x.shape[x.ndim - axes :], y.ndim - (x.ndim - axes)))

    def backward(params: Any, saved: Static, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        tail, replaced = saved.value
        return (), dy.reshape(dy.shape[: dy.ndim - replaced] + tail)

    return layer(no_params, apply, forward, backward, name=info)
