"""Mish: a smooth rectifier that dips below 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer, describe
from fnnets.layers.activations._pointwise import pointwise
from fnnets.layers.activations.rectifiers import Gated


def mish() -> Layer:
    """Mish: x times the tanh of its softplus.

    Formula: y = x·g, g = tanh(log(1 + eˣ)).

    Derivation: tanh' = 1 − tanh², and the derivative of log(1 + eˣ) is σ(x), so g' = (1 − g²)·σ(x). By the product
    rule,

        dx = dy ⊙ (g + x·(1 − g²)·σ(x))

    For large x, g is 1 and the second term is 0; for large negative x both are 0. Nothing overflows.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.mish().apply((), jnp.array([-1e4, 0.0, 1e4])).tolist()
      [-0.0, 0.0, 10000.0]

    References:
      Misra, Mish: a self regularized non-monotonic activation function (2019), eq. 1.

    Differences: the same values as PyTorch's `nn.Mish`, `jax.nn.mish` and Keras' `mish`.
    """

    def gate(x: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.logaddexp(x, jnp.zeros((), x.dtype)))

    def forward(x: jax.Array) -> tuple[jax.Array, Gated]:
        g = gate(x)
        return x * g, Gated(x, g)

    def backward(saved: Gated, dy: jax.Array) -> jax.Array:
        x, g = saved
        return dy * (g + x * (1 - g * g) * jax.nn.sigmoid(x))

    return pointwise(describe(mish), lambda x: x * gate(x), forward, backward)
