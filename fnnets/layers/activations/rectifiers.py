"""Activations that pass positive values: relu and its relatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Layer, describe, layer
from fnnets.layers.activations._pointwise import pointwise

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def relu() -> Layer:
    """The rectifier.

    Formula: y = max(x, 0).

    Derivation: dy/dx is 1 for x > 0, else 0 (and 0 at 0, as in `jax.nn.relu`), so

        dx = dy where x > 0, else 0

    Forward saves only one bool for each number: whether x > 0. A unit whose x is negative for every example gets no
    gradient, so it can die.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.relu().apply((), jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]

    References:
      Glorot, Bordes & Bengio, Deep sparse rectifier neural networks (2011), section 3.
    """

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.nn.relu(x), x > 0

    def backward(positive: jax.Array, dy: jax.Array) -> jax.Array:
        return jnp.where(positive, dy, jnp.zeros((), dy.dtype))

    return pointwise(describe(relu), jax.nn.relu, forward, backward)


def leaky_relu(negative_slope: float = 0.01) -> Layer:
    """The rectifier with a small slope on the negative side.

    Formula: y = x for x ≥ 0, a·x for x < 0, a = negative_slope.

    Derivation: dx = dy for x ≥ 0, a·dy for x < 0.

    Args:
      negative_slope: a.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.leaky_relu(0.5).apply((), jnp.array([-1.0, 2.0])).tolist()
      [-0.5, 2.0]

    References:
      Maas, Hannun & Ng, Rectifier nonlinearities improve neural network acoustic models (2013), eq. 2.

    Differences: a = 0.01, as in jax and PyTorch; Keras has 0.3. The slope at 0 is 1, as in jax; in PyTorch it is a.
    """

    def scaled(positive: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(positive, x, negative_slope * x)

    return pointwise(
        describe(leaky_relu, negative_slope=negative_slope),
        lambda x: scaled(x >= 0, x),
        lambda x: (scaled(x >= 0, x), x >= 0),
        scaled,
    )


class PReLU(NamedTuple):
    """The parameters of `prelu`."""

    a: jax.Array  # (), or (D,) with one slope for each feature


def prelu(
    *, per_feature: bool = False, slope_init: Callable[..., jax.Array] = jax.nn.initializers.constant(0.25)
) -> Layer:
    """A rectifier that learns its negative slope.

    Formula: y = x for x ≥ 0, a·x for x < 0.

    Derivation: ∂y/∂x is 1 or a; ∂y/∂a is x where x < 0, else 0. With the sum over all places that share a,

        dx = dy for x ≥ 0, a·dy for x < 0
        da = Σ_{x < 0} dy·x

    Args:
      per_feature: whether each entry of the last axis has its own slope; otherwise there is a single one.
      slope_init: `(key, shape, dtype) -> a`.

    Returns:
      A `Layer` with params `PReLU(a)`, x (…) floats (at least one axis with per_feature), y of the same shape.

    Raises:
      ValueError: with per_feature, the last axis of x does not have the length of a.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.prelu(), jnp.array([-1.0, 2.0])
      >>> net.apply(net.init(jax.random.key(0), x), x).tolist()
      [-0.25, 2.0]

    References:
      He, Zhang, Ren & Sun, Delving deep into rectifiers (2015), eqs. 1 and 3.

    Differences: a single slope that starts at 1/4, as in PyTorch; Keras learns one for each feature, starting at 0.
    """
    info = describe(prelu, per_feature=per_feature)

    def init(key: Any, x: Any) -> PReLU:
        x = checks.floats(info, x)
        checks.rank(info, x, int(per_feature))
        return PReLU(slope_init(key, x.shape[-1:] if per_feature else (), jnp.result_type(float)))

    def apply(params: PReLU, x: Any) -> jax.Array:
        checks.node(info, params, PReLU)
        x = checks.floats(info, x)
        if per_feature:
            checks.width(info, x, params.a.shape[0])
        x = x.astype(params.a.dtype)
        return jnp.where(x >= 0, x, params.a * x)

    def forward(params: PReLU, x: Any) -> tuple[jax.Array, jax.Array]:
        return apply(params, x), jnp.asarray(x)

    def backward(params: PReLU, x: jax.Array, dy: jax.Array) -> tuple[PReLU, jax.Array]:
        negative = jnp.where(x < 0, dy * x.astype(dy.dtype), jnp.zeros((), dy.dtype))
        da = negative.sum(range(x.ndim - params.a.ndim))
        return PReLU(da), jnp.where(x >= 0, dy, params.a * dy).astype(x.dtype)

    return layer(init, apply, forward, backward, name=info)


def elu(alpha: float = 1.0) -> Layer:
    """The exponential linear unit.

    Formula: y = x for x > 0, a(eˣ − 1) for x ≤ 0, a = alpha.

    Derivation: for x ≤ 0, dy/dx = a·eˣ = y + a. Since y > 0 exactly where x > 0, forward saves only y:

        dx = dy where y > 0, else dy ⊙ (y + a)

    Args:
      alpha: a, at least 0.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Raises:
      ValueError: alpha is negative, so y would not show the sign of x.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.elu().apply((), jnp.array([-1e4, 2.0])).tolist()
      [-1.0, 2.0]

    References:
      Clevert, Unterthiner & Hochreiter, Fast and accurate deep network learning by exponential linear
      units (2016), eqs. 15-16.
    """
    if alpha < 0:
        raise ValueError(
            f"elu: alpha must be at least 0, got {alpha!r}; for a negative slope use fn.leaky_relu."
        )

    def f(x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0, x)))

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = f(x)
        return y, y

    def backward(y: jax.Array, dy: jax.Array) -> jax.Array:
        return dy * jnp.where(y > 0, 1, y + alpha)

    return pointwise(describe(elu, alpha=alpha), f, forward, backward)


def selu() -> Layer:
    """The self-normalising exponential linear unit.

    Formula: y = λ·x for x > 0, λa(eˣ − 1) for x ≤ 0, λ = 1.0507…, a = 1.6732….

    Derivation: as for `elu`, with the factor λ: dx = λ·dy where y > 0, else dy ⊙ (y + λa).

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> round(float(fn.selu().apply((), jnp.array(-1e4))), 4)
      -1.7581

    References:
      Klambauer, Unterthiner, Mayr & Hochreiter, Self-normalizing neural networks (2017), eq. 2.
    """
    floor = SELU_SCALE * SELU_ALPHA

    def f(x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, SELU_SCALE * x, floor * jnp.expm1(jnp.where(x > 0, 0, x)))

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = f(x)
        return y, y

    def backward(y: jax.Array, dy: jax.Array) -> jax.Array:
        return dy * jnp.where(y > 0, SELU_SCALE, y + floor)

    return pointwise(describe(selu), f, forward, backward)


def softplus() -> Layer:
    """A smooth rectifier.

    Formula: y = log(1 + eˣ).

    Derivation: dy/dx = eˣ/(1 + eˣ) = σ(x), so dx = dy ⊙ σ(x).

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.softplus().apply((), jnp.array([-1e4, 1e4])).tolist()
      [0.0, 10000.0]

    References:
      Dugas, Bengio, Bélisle, Nadeau & Garcia, Incorporating second-order functional knowledge (2000).
    """

    def f(x: jax.Array) -> jax.Array:
        return jnp.logaddexp(x, jnp.zeros((), x.dtype))

    return pointwise(describe(softplus), f, lambda x: (f(x), x), lambda x, dy: dy * jax.nn.sigmoid(x))


class Gated(NamedTuple):
    """What `gelu`, `silu` and `mish` keep for their backward: y = x·gate(x)."""

    x: jax.Array
    gate: jax.Array


def gelu(*, approximate: bool = False) -> Layer:
    """The Gaussian error linear unit.

    Formula: y = x·Φ(x), Φ(x) = ½(1 + erf(x/√2)); approximate: y = x·½(1 + tanh u),
    u = √(2/π)(x + 0.044715x³).

    Derivation: by the product rule, with the density φ(x) = Φ'(x) = e^{−x²/2}/√(2π),

        dx = dy ⊙ (Φ(x) + x·φ(x))

    For the tanh form, with G = ½(1 + tanh u), G' = ½(1 − tanh²u)·u' = 2G(1 − G)·u' and
    u' = √(2/π)(1 + 0.134145x²): dx = dy ⊙ (G + x·G').

    Args:
      approximate: whether to use the tanh form.

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.gelu().apply((), jnp.array([-1e4, 0.0, 1e4])).tolist()
      [-0.0, 0.0, 10000.0]

    References:
      Hendrycks & Gimpel, Gaussian error linear units (2016), section 2.

    Differences: erf is the default in PyTorch and Keras too; `jax.nn.gelu` and flax use the tanh form
    (approximate=True) by default.
    """
    root = math.sqrt(2 / math.pi)

    def gate(x: jax.Array) -> jax.Array:
        if approximate:
            x = jnp.clip(x, -16, 16)  # outside, the gate is 0 or 1, and x³ overflows in float16
            return jax.nn.sigmoid(2 * root * (x + 0.044715 * x**3))  # ½(1 + tanh u) = σ(2u)
        return 0.5 * jax.scipy.special.erfc(-x * math.sqrt(0.5))

    def forward(x: jax.Array) -> tuple[jax.Array, Gated]:
        g = gate(x)
        return x * g, Gated(x, g)

    def backward(saved: Gated, dy: jax.Array) -> jax.Array:
        x, g = saved
        if approximate:
            inner = jnp.clip(x, -16, 16)
            slope = 2 * g * (1 - g) * root * (1 + 0.134145 * inner * inner)
        else:
            slope = jnp.exp(-0.5 * x * x) * (0.5 * root)  # 1/√(2π) = ½√(2/π)
        return dy * (g + x * slope)

    return pointwise(describe(gelu, approximate=approximate), lambda x: x * gate(x), forward, backward)


def silu() -> Layer:
    """The sigmoid linear unit (swish).

    Formula: y = x·σ(x).

    Derivation: by the product rule, with s = σ(x) and s' = s(1 − s),

        dx = dy ⊙ (s + x·s(1 − s)) = dy ⊙ s(1 + x(1 − s))

    Returns:
      A `Layer` without params, x (…) floats of any shape, y the same.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.silu().apply((), jnp.array([-1e4, 0.0, 1e4])).tolist()
      [-0.0, 0.0, 10000.0]

    References:
      Elfwing, Uchibe & Doya, Sigmoid-weighted linear units (2018), eqs. 5-6.
    """

    def forward(x: jax.Array) -> tuple[jax.Array, Gated]:
        s = jax.nn.sigmoid(x)
        return x * s, Gated(x, s)

    def backward(saved: Gated, dy: jax.Array) -> jax.Array:
        x, s = saved
        return dy * (s * (1 + x * (1 - s)))

    return pointwise(describe(silu), lambda x: x * jax.nn.sigmoid(x), forward, backward)
