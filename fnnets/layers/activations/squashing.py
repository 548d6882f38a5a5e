"""Activations that squash: sigmoid, tanh, hard_sigmoid, softmax and log_softmax."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer, describe
from fnnets.layers.activations._pointwise import pointwise


def sigmoid() -> Layer:
    """The logistic function.

    Formula: y = σ(x) = 1/(1 + e⁻ˣ).

    Derivation: dy/dx = e⁻ˣ/(1 + e⁻ˣ)² = y(1 − y), so

        dx = dy ⊙ y ⊙ (1 − y)

    The factor is at most 1/4, so gradients vanish in a chain of sigmoids.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.sigmoid().apply((), jnp.zeros(2)).tolist()
      [0.5, 0.5]
    """

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jax.nn.sigmoid(x)
        return y, y

    def backward(y: jax.Array, dy: jax.Array) -> jax.Array:
        return dy * (y * (1 - y))

    info = dataclasses.replace(describe(sigmoid), saturates_at=(0.0, 1.0))
    return pointwise(info, jax.nn.sigmoid, forward, backward)


def tanh() -> Layer:
    """The hyperbolic tangent.

    Formula: y = (eˣ − e⁻ˣ)/(eˣ + e⁻ˣ).

    Derivation: by the quotient rule, dy/dx = 1 − y², so

        dx = dy ⊙ (1 − y²)

    Each y_i depends on its own x_i only, so in forward mode dy = dx ⊙ (1 − y²), the same map.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.tanh().apply((), jnp.zeros(2)).tolist()
      [0.0, 0.0]
    """

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jnp.tanh(x)
        return y, y

    def backward(y: jax.Array, dy: jax.Array) -> jax.Array:
        return dy * (1 - y * y)

    info = dataclasses.replace(describe(tanh), saturates_at=(-1.0, 1.0))
    return pointwise(info, jnp.tanh, forward, backward, tangent=backward)


def hard_sigmoid() -> Layer:
    """A piecewise linear sigmoid: three straight lines.

    Formula: y = 0 for x ≤ −3, x/6 + 1/2 for −3 < x < 3, 1 for x ≥ 3.

    Derivation: dx = dy/6 for −3 < x < 3, else 0. At the two kinks it is 0.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.hard_sigmoid().apply((), jnp.array([-4.0, 0.0, 4.0])).tolist()
      [0.0, 0.5, 1.0]

    References:
      Howard et al., Searching for MobileNetV3 (2019), section 5.2.

    Differences: the same form as in jax, PyTorch and Keras 3; Keras 2 used x/5 + 1/2 between ±2.5. At a
    kink, jax gives half the slope.
    """

    def between(x: jax.Array) -> jax.Array:
        return (x > -3) & (x < 3)

    def f(x: jax.Array) -> jax.Array:
        return jnp.where(between(x), x / 6 + 0.5, (x > 0).astype(x.dtype))

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return f(x), between(x)

    def backward(linear: jax.Array, dy: jax.Array) -> jax.Array:
        return jnp.where(linear, dy / 6, jnp.zeros((), dy.dtype))

    info = dataclasses.replace(describe(hard_sigmoid), saturates_at=(0.0, 1.0))
    return pointwise(info, f, forward, backward)


def softmax() -> Layer:
    """Softmax: turns the last axis into probabilities.

    Formula: y_i = e^{x_i − m} / Σ_j e^{x_j − m}, m = max_j x_j (m only prevents overflow).

    Derivation: ∂y_j/∂x_i = y_j(δ_ij − y_i), so dx_i = Σ_j dy_j y_j (δ_ij − y_i):

        dx = y ⊙ (dy − Σ_j y_j dy_j)

    Returns:
      A `Layer` without params, x (…, C) floats, y of the same shape; each row is a distribution.

    Raises:
      ValueError: x has no axis.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.softmax().apply((), jnp.zeros((1, 4))).tolist()
      [[0.25, 0.25, 0.25, 0.25]]

    References:
      Bridle, Probabilistic interpretation of feedforward classification network outputs (1990).
    """

    def f(x: jax.Array) -> jax.Array:
        e = jnp.exp(x - jax.lax.stop_gradient(x.max(-1, keepdims=True, initial=-jnp.inf)))
        return e / e.sum(-1, keepdims=True)

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = f(x)
        return y, y

    def backward(y: jax.Array, dy: jax.Array) -> jax.Array:
        return y * (dy - (y * dy).sum(-1, keepdims=True))

    return pointwise(describe(softmax), f, forward, backward, least_rank=1)


def log_softmax() -> Layer:
    """The logarithm of softmax over the last axis.

    Formula: y = x − log Σ_j e^{x_j}; the maximum is subtracted first.

    Derivation: ∂y_j/∂x_i = δ_ij − softmax(x)_i, and softmax(x) = e^y, so

        dx = dy − e^y ⊙ Σ_j dy_j

    Returns:
      A `Layer` without params, x (…, C) floats, y of the same shape.

    Raises:
      ValueError: x has no axis.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.log_softmax().apply((), jnp.array([[0.0, -1e4]])).tolist()
      [[0.0, -10000.0]]
    """

    def f(x: jax.Array) -> jax.Array:
        z = x - jax.lax.stop_gradient(x.max(-1, keepdims=True, initial=-jnp.inf))
        return z - jnp.log(jnp.exp(z).sum(-1, keepdims=True))

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = f(x)
        return y, y

    def backward(y: jax.Array, dy: jax.Array) -> jax.Array:
        return dy - jnp.exp(y) * dy.sum(-1, keepdims=True)

    return pointwise(describe(log_softmax), f, forward, backward, least_rank=1)
