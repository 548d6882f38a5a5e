"""Losses for yes-or-no answers, one per class: on probabilities and on logits."""

from __future__ import annotations

import jax

from fnnets.core import checks
from fnnets.losses import logarithm, targets
from fnnets.losses.loss import Loss, loss


def binary_cross_entropy(*, weights: targets.Weights = None, label_smoothing: float = 0.0) -> Loss:
    """The binary cross entropy of probabilities: one or more classes, each independent of the others.

    Formula: E = 1/N Σ_n Σ_c w_c e_nc / Σ_c w_c, e = −t log q − (1 − t) log(1 − q), with q = y the
    probability. Each logarithm is that of max(·, tiny), tiny the smallest normal number of the dtype: 0·log 0 is 0,
    and a wrong answer with q = 0 costs −log tiny (87.3 in float32). With smoothing, t becomes (1 − s)t + s/2.

    Derivation: ∂e/∂q = −t/q + (1 − t)/(1 − q). A clipped logarithm is constant, so its term is 0. With
    de_c = dvalue·w_c/(N·Σ_c w_c),

        dy = de ⊙ ((1 − t)/(1 − q) − t/q)

    It grows without bound as q approaches a wrong 0 or 1. If you have logits, use `sigmoid_cross_entropy`, in which σ'
    cancels the denominators.

    Args:
      weights: w, one number for each class (C,); None means 1 for each.
      label_smoothing: s, in [0, 1].

    Returns:
      A `Loss` of y (…, C) probabilities and target (…, C) in [0, 1], floats, integers or bools. The range is not
      checked, because values cannot be checked under jit. value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: label_smoothing is outside [0, 1], target does not have the shape of y, or weights does not have the
        shape (C,).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> loss = fn.losses.binary_cross_entropy()
      >>> round(float(loss.apply(jnp.array([[0.5, 1.0]]), jnp.array([[1, 1]]))), 4)
      0.3466

    References:
      Solla, Levin & Fleisher, Accelerated learning in layered neural networks, Complex Systems 2 (1988).

    Differences: PyTorch's `BCELoss` clamps logarithms at −100; Keras clips q to [1e-7, 1 − 1e-7]. Weights give a
    weighted mean here. PyTorch's `weight=` gives the plain mean of w·e, which is larger by a factor, the mean of w.
    """
    checks.fraction("binary_cross_entropy", "label_smoothing", label_smoothing)
    info = targets.describe_weighted(binary_cross_entropy, weights=weights, label_smoothing=label_smoothing)

    def equation(q: jax.Array, t: jax.Array) -> jax.Array:
        return -t * logarithm.log(q) - (1 - t) * logarithm.log(1 - q)

    def forward(q: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return equation(q, t), (q, t)

    def backward(saved: tuple[jax.Array, jax.Array], de: jax.Array) -> jax.Array:
        q, t = saved
        return de * ((1 - t) * logarithm.slope_of_log(1 - q) - t * logarithm.slope_of_log(q))

    return loss(
        info,
        equation,
        forward,
        backward,
        features="mean",
        examples="mean",
        weights=weights,
        read_target=targets.binary(label_smoothing),
    )


def sigmoid_cross_entropy(*, weights: targets.Weights = None, label_smoothing: float = 0.0) -> Loss:
    """The binary cross entropy of logits: one or more classes, each independent of the others.

    Formula: E = 1/N Σ_n Σ_c w_c e_nc / Σ_c w_c, e = −t log σ(z) − (1 − t) log(1 − σ(z)), with z = y the
    logit. Since −log σ(z) = log(1 + e⁻ᶻ) = softplus(−z) and 1 − σ(z) = σ(−z),

        e = t·softplus(−z) + (1 − t)·softplus(z)

    which neither overflows nor cancels. With smoothing, t becomes (1 − s)t + s/2.

    Derivation: softplus' = σ, so ∂e/∂z = (1 − t)σ(z) − t·σ(−z). This equals σ(z) − t, but keeps its digits where σ(z)
    is nearly t. With de_c = dvalue·w_c/(N·Σ_c w_c),

        dy = de ⊙ ((1 − t)σ(z) − t·σ(−z))

    Args:
      weights: w, one number for each class (C,); None means 1 for each.
      label_smoothing: s, in [0, 1].

    Returns:
      A `Loss` of y (…, C) logits and target (…, C) in [0, 1], floats, integers or bools. The range is not checked,
      because values cannot be checked under jit. value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: label_smoothing is outside [0, 1], target does not have the shape of y, or weights does not have the
        shape (C,).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> loss = fn.losses.sigmoid_cross_entropy()
      >>> float(loss.apply(jnp.array([[1e4, -1e4]]), jnp.array([[1, 1]])))
      5000.0

    References:
      Solla, Levin & Fleisher, Accelerated learning in layered neural networks, Complex Systems 2 (1988).

    Differences: the same as PyTorch's `BCEWithLogitsLoss`; `optax.sigmoid_binary_cross_entropy` is e, for each number.
    Weights give a weighted mean here. PyTorch's `weight=` gives the plain mean of w·e, which is larger by a factor, the
    mean of w.
    """
    checks.fraction("sigmoid_cross_entropy", "label_smoothing", label_smoothing)
    info = targets.describe_weighted(sigmoid_cross_entropy, weights=weights, label_smoothing=label_smoothing)

    def equation(z: jax.Array, t: jax.Array) -> jax.Array:
        return t * jax.nn.softplus(-z) + (1 - t) * jax.nn.softplus(z)

    def forward(z: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return equation(z, t), (z, t)

    def backward(saved: tuple[jax.Array, jax.Array], de: jax.Array) -> jax.Array:
        z, t = saved
        return de * ((1 - t) * jax.nn.sigmoid(z) - t * jax.nn.sigmoid(-z))

    return loss(
        info,
        equation,
        forward,
        backward,
        features="mean",
        examples="mean",
        weights=weights,
        read_target=targets.binary(label_smoothing),
    )
