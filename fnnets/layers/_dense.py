"""The dense layer: every output depends on every input."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import sum_leading
from fnnets.core.layer import Layer, describe, layer
from fnnets.core.parameters import Initializer


class Dense(NamedTuple):
    """The parameters of `dense`."""

    w: jax.Array  # (D, features)
    b: jax.Array | None  # (features,); None without a bias


def dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Layer:
    """A dense (fully connected) layer.

    Formula: y = x·w + b, x (…, D), w (D, features), b (features,).

    Derivation: y_j = Σ_i x_i w_ij + b_j, so ∂y_j/∂w_ij = x_i, ∂y_j/∂b_j = 1 and ∂y_j/∂x_i = w_ij.
    Given dy, and with sums over all leading axes n:

        dw_ij = Σ_n x_ni dy_nj    that is,  dw = xᵀ·dy
        db_j  = Σ_n dy_nj
        dx_ni = Σ_j dy_nj w_ij    that is,  dx = dy·wᵀ

    In forward mode, d∗ is a change of ∗. By the product rule, the same three derivatives give

        dy_nj = Σ_i dx_ni w_ij + Σ_i x_ni dw_ij + db_j    that is,  dy = dx·w + x·dw + db

    Args:
      features: the number of outputs.
      use_bias: whether the layer has a bias; otherwise `Dense.b` is None.
      kernel_init: `(key, shape, dtype) -> w`, one of `jax.nn.initializers`.
      bias_init: the same for b.

    Returns:
      A `Layer` with params `Dense(w, b)`, x (…, D) floats, y (…, features) in the dtype of w.

    Raises:
      TypeError: x is not floating point.
      ValueError: x has no axis, or its last axis is not D.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.dense(3)
      >>> params = net.init(jax.random.key(0), jnp.ones((4, 2)))
      >>> net.apply(params, jnp.ones((4, 2))).shape
      (4, 3)

    References:
      Rumelhart, Hinton & Williams, Learning representations by back-propagating errors, Nature 323
      (1986), eqs. 1 and 6-7.

    Differences: the kernel is (inputs, outputs), as in Keras and flax; PyTorch stores its transpose. w is initialised
    as in flax (LeCun normal); Keras uses Glorot uniform, PyTorch U(±1/√D) for w and b.
    """
    checks.positive("dense", features=features)
    info = describe(dense, features=features, use_bias=use_bias)

    def init(key: Any, x: Any) -> Dense:
        x = checks.floats(info, x)
        checks.rank(info, x, 1)
        dtype = jnp.result_type(float)
        w_key, b_key = jax.random.split(key)
        w = kernel_init(w_key, (x.shape[-1], features), dtype)
        return Dense(w, bias_init(b_key, (features,), dtype) if use_bias else None)

    def apply(params: Dense, x: Any) -> jax.Array:
        checks.node(info, params, Dense)
        x = checks.floats(info, x)
        checks.width(info, x, params.w.shape[0])
        y = x.astype(params.w.dtype) @ params.w
        return y if params.b is None else y + params.b

    def forward(params: Dense, x: Any) -> tuple[jax.Array, jax.Array]:
        return apply(params, x), jnp.asarray(x)

    def backward(params: Dense, x: jax.Array, dy: jax.Array) -> tuple[Dense, jax.Array]:
        *batch, width = x.shape
        rows = math.prod(batch)
        dw = x.reshape(rows, width).astype(params.w.dtype).T @ dy.reshape(rows, features)
        db = None if params.b is None else sum_leading(dy)
        # Computes dw before dx: dw is the last to read x, so dx can reuse its memory.
        dw, dy = jax.lax.optimization_barrier((dw, dy))
        dx = (dy @ params.w.T).astype(x.dtype)
        return Dense(dw, db), dx

    def tangent(params: Dense, x: jax.Array, dparams: Dense, dx: jax.Array) -> jax.Array:
        x, dx = (each.astype(params.w.dtype) for each in (x, dx))
        dy = dx @ params.w + x @ dparams.w
        return dy if dparams.b is None else dy + dparams.b

    return layer(init, apply, forward, backward, tangent=tangent, name=info)
