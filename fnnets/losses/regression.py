"""Losses between numbers: squared and absolute error, Huber's error and the hinge."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnnets.core.layer import describe
from fnnets.losses.loss import Loss, loss


def half_squared_error() -> Loss:
    """Half the squared error, summed over everything.

    Formula: E = Σ_n Σ_c ½(y_nc − t_nc)².

    Derivation: the half cancels the 2 of the square: ∂e/∂y = y − t for each term e. With de = dvalue,

        dy = de·(y − t)

    Returns:
      A `Loss` of y (…, C) floats and target (…, C); value () is a sum, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> float(fn.losses.half_squared_error().apply(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
      2.5

    References:
      Rumelhart, Hinton & Williams, Learning representations by back-propagating errors, Nature 323
      (1986), eq. 3.

    Differences: `optax.l2_loss` is e, for each number. PyTorch and Keras have no factor ½.
    """

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = y - t
        return 0.5 * r * r, r

    def backward(r: jax.Array, de: jax.Array) -> jax.Array:
        return de * r

    return loss(
        describe(half_squared_error),
        lambda y, t: 0.5 * (y - t) ** 2,
        forward,
        backward,
        features="sum",
        examples="sum",
    )


def squared_error() -> Loss:
    """The squared error, summed over everything.

    Formula: E = Σ_n Σ_c (y_nc − t_nc)².

    Derivation: ∂e/∂y = 2(y − t) for each term e. With de = dvalue,

        dy = de·2(y − t)

    Returns:
      A `Loss` of y (…, C) floats and target (…, C); value () is a sum, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> float(fn.losses.squared_error().apply(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
      5.0

    References:
      Bishop, Pattern Recognition and Machine Learning (2006), section 3.1.1.

    Differences: the same as PyTorch's `MSELoss(reduction="sum")`. `optax.squared_error` is e, for each number.
    """

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = y - t
        return r * r, r

    def backward(r: jax.Array, de: jax.Array) -> jax.Array:
        return de * 2 * r

    return loss(
        describe(squared_error),
        lambda y, t: (y - t) ** 2,
        forward,
        backward,
        features="sum",
        examples="sum",
    )


def mse() -> Loss:
    """The mean squared error.

    Formula: E = 1/N Σ_n 1/C Σ_c (y_nc − t_nc)², N the number of examples that are not masked.

    Derivation: ∂e/∂y = 2(y − t) for each term e. With de = dvalue/(N·C),

        dy = de·2(y − t)

    After a sigmoid, the chain rule adds the factor σ' ≤ 1/4, which is nearly 0 where a unit is confidently wrong. Such
    a unit learns slowly; with `sigmoid_cross_entropy` it does not.

    Returns:
      A `Loss` of y (…, C) floats and target (…, C); value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> float(fn.losses.mse().apply(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
      2.5

    References:
      Bishop, Pattern Recognition and Machine Learning (2006), section 3.1.1.

    Differences: the same value as PyTorch's and Keras' MSE. For the shapes (B, 1) and (B,), PyTorch broadcasts to
    (B, B) with a warning and Keras reshapes; this is an error here. Without examples, PyTorch's mean is NaN and this
    one 0.
    """

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        r = y - t
        return r * r, r

    def backward(r: jax.Array, de: jax.Array) -> jax.Array:
        return de * 2 * r

    return loss(describe(mse), lambda y, t: (y - t) ** 2, forward, backward, features="mean", examples="mean")


def mae() -> Loss:
    """The mean absolute error.

    Formula: E = 1/N Σ_n 1/C Σ_c |y_nc − t_nc|, N the number of examples that are not masked.

    Derivation: ∂e/∂y = sgn(y − t) for each term e, where we choose sgn 0 = 0. With de = dvalue/(N·C),

        dy = de·sgn(y − t)

    Returns:
      A `Loss` of y (…, C) floats and target (…, C); value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> float(fn.losses.mae().apply(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
      1.5

    References:
      Koenker & Bassett, Regression quantiles, Econometrica 46 (1978), with θ = ½ (but for a factor).

    Differences: the same value as PyTorch's `L1Loss` and Keras' MAE. The slope at the kink is 0, as in PyTorch;
    `jnp.abs` has 1 there.
    """

    def equation(y: jax.Array, t: jax.Array) -> jax.Array:
        r = y - t
        return r * jnp.sign(r)  # |r|; jnp.abs has a slope of 1 at 0

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.abs(y - t), jnp.sign(y - t)

    def backward(slope: jax.Array, de: jax.Array) -> jax.Array:
        return de * slope

    return loss(describe(mae), equation, forward, backward, features="mean", examples="mean")


def huber(delta: float = 1.0) -> Loss:
    """Huber's error: squared near the target and absolute far from it, so outliers have less influence.

    Formula: E = 1/N Σ_n 1/C Σ_c h(y_nc − t_nc); h(r) = ½r² for |r| ≤ δ, else δ(|r| − ½δ), with δ = delta.

    Derivation: h'(r) = r for |r| ≤ δ, else δ·sgn r. Both agree at |r| = δ, so h has no kink. With de = dvalue/(N·C),

        dy = de·min(max(y − t, −δ), δ)

    Args:
      delta: δ, greater than 0.

    Returns:
      A `Loss` of y (…, C) floats and target (…, C); value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: delta is not greater than 0, or target has another shape than y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> float(fn.losses.huber().apply(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])))
      1.0

    References:
      Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964).

    Differences: the same value as PyTorch's `HuberLoss` and Keras' `Huber`; `optax.huber_loss` is e, for each number.
    PyTorch's `SmoothL1Loss(beta=δ)` is this loss divided by δ.
    """
    if not delta > 0:
        raise ValueError(f"huber: delta must be greater than 0, got {delta!r}.")
    delta = float(delta)  # a numpy scalar would widen the dtype

    def equation(y: jax.Array, t: jax.Array) -> jax.Array:
        r = y - t
        return jnp.where(jnp.abs(r) <= delta, 0.5 * r * r, delta * (jnp.abs(r) - 0.5 * delta))

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return equation(y, t), y - t

    def backward(r: jax.Array, de: jax.Array) -> jax.Array:
        return de * jnp.clip(r, -delta, delta)

    return loss(describe(huber, delta=delta), equation, forward, backward, features="mean", examples="mean")


def hinge() -> Loss:
    """The hinge loss: a right answer costs nothing if its margin is at least 1.

    Formula: E = 1/N Σ_n 1/C Σ_c max(0, 1 − t_nc·y_nc), t in {−1, +1}.

    Derivation: ∂e/∂y = −t where 1 − t·y > 0, else 0; at the kink, t·y = 1, we choose 0. With de = dvalue/(N·C),

        dy = −de·t where 1 − t·y > 0, else 0

    Returns:
      A `Loss` of y (…, C) floats and target (…, C) of −1 and +1. This is not checked, because values cannot be checked
      under jit. value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> float(fn.losses.hinge().apply(jnp.array([[0.5, 3.0]]), jnp.array([[-1, 1]])))
      0.75

    References:
      Cortes & Vapnik, Support-vector networks, Machine Learning 20 (1995).

    Differences: Keras also accepts targets 0 and 1, and converts them to −1 and +1. `optax.hinge_loss` has half the slope
    at the kink. PyTorch's `HingeEmbeddingLoss` is a different loss.
    """

    def equation(y: jax.Array, t: jax.Array) -> jax.Array:
        short = 1 - t * y
        return jnp.where(short <= 0, 0, short)

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        e = equation(y, t)
        return e, jnp.where(e == 0, 0, -t)

    def backward(slope: jax.Array, de: jax.Array) -> jax.Array:
        return de * slope

    return loss(describe(hinge), equation, forward, backward, features="mean", examples="mean")
