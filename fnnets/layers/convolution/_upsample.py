"""Upsampling: enlarges the spatial axes by copying or by interpolation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.layer import Layer, Static, describe, layer, no_params
from fnnets.layers.convolution import kernels
from fnnets.layers.convolution.geometry import per_axis


def upsample(factor: int | tuple[int, ...], method: str = "nearest") -> Layer:
    """Enlarges every spatial axis by a whole factor, channels last.

    Formula: for each spatial axis with n places and factor f, position j of y lies at s = (j + ½)/f − ½ in x,

        nearest:   y[j] = x[⌊j/f⌋]
        bilinear:  y[j] = Σ_i A[j, i] x[i],  A[j, i] = max(0, 1 − |min(max(s, 0), n − 1) − i|)

    Bilinear weights the two places next to s by their distance, one axis after the other. Beyond the outermost places,
    it repeats their values.

    Derivation: both are linear in x, so dx is dy times the transposed matrix. With nearest, x[i] is copied to
    the f places j = i·f + r:

        nearest:   dx[i] = Σ_{r<f} dy[i·f + r]
        bilinear:  dx[i] = Σ_j A[j, i] dy[j]

    Args:
      factor: an int for one spatial axis, or a tuple with an int for each: (2, 2) for pictures (…, H, W, C).
      method: "nearest" or "bilinear", which interpolates along any number of axes.

    Returns:
      A `Layer` without params, x (…, spatial…, C) floats; each spatial size of y is that of x times its factor.

    Raises:
      TypeError: x is not floating point.
      ValueError: factor is not a whole number of at least 1, method is unknown, or x has too few axes.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.upsample(2, "bilinear").apply((), jnp.array([[0.0], [4.0]])).ravel()
      Array([0., 1., 3., 4.], dtype=float32)

    References:
      Odena, Dumoulin & Olah, Deconvolution and checkerboard artifacts, Distill (2016).

    Differences: bilinear is as in `jax.image.resize` and in PyTorch with align_corners=False. align_corners=True, where
    the outermost places of x and y coincide, is not available.
    """
    checks.choice("upsample", "method", method, ("nearest", "bilinear"))
    factors = per_axis("upsample", "factor", factor, 1 if hasattr(factor, "__index__") else None)
    info = describe(upsample, factor=factor, method=method)
    enlarge, reduce = (_repeat, _sum_blocks) if method == "nearest" else (_interpolate, _gather)

    def apply(params: Any, x: Any) -> jax.Array:
        del params
        sizes = kernels.spatial(info, x, len(factors))
        x = jnp.asarray(x)
        for k, (n, f) in enumerate(zip(sizes, factors, strict=True)):
            x = enlarge(x, x.ndim - len(factors) - 1 + k, n, f)
        return x

    def forward(params: Any, x: Any) -> tuple[jax.Array, Static]:
        return apply(params, x), Static(kernels.spatial(info, x, len(factors)))

    def backward(params: Any, sizes: Static, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        for k, (n, f) in enumerate(zip(sizes.value, factors, strict=True)):
            dy = reduce(dy, dy.ndim - len(factors) - 1 + k, n, f)
        return (), dy

    return layer(no_params, apply, forward, backward, name=info)


def _repeat(x: jax.Array, axis: int, n: int, f: int) -> jax.Array:
    """Repeats every entry of an axis f times."""
    shape = (*x.shape[:axis], n, f, *x.shape[axis + 1 :])
    return jnp.broadcast_to(jnp.expand_dims(x, axis + 1), shape).reshape(
        *x.shape[:axis], n * f, *x.shape[axis + 1 :]
    )


def _sum_blocks(dy: jax.Array, axis: int, n: int, f: int) -> jax.Array:
    """The sum of every f entries of an axis."""
    return dy.reshape(*dy.shape[:axis], n, f, *dy.shape[axis + 1 :]).sum(axis + 1)


def _interpolate(x: jax.Array, axis: int, n: int, f: int) -> jax.Array:
    return jnp.moveaxis(jnp.tensordot(_matrix(n, f).astype(x.dtype), x, (1, axis)), 0, axis)


def _gather(dy: jax.Array, axis: int, n: int, f: int) -> jax.Array:
    return jnp.moveaxis(jnp.tensordot(_matrix(n, f).astype(dy.dtype), dy, (0, axis)), 0, axis)


def _matrix(n: int, f: int) -> np.ndarray:
    """The matrix A (n·f, n): the weight of each place of x in each place of y."""
    at = np.clip((np.arange(n * f) + 0.5) / f - 0.5, 0, n - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))
