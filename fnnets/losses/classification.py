"""Losses for one class among several: on probabilities, log-probabilities and logits; and the KL divergence."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Info, describe
from fnnets.losses import logarithm, targets
from fnnets.losses.loss import Loss, loss, of_either


def cross_entropy(
    *, weights: targets.Weights = None, label_smoothing: float = 0.0, ignore_label: int | None = None
) -> Loss:
    """The cross entropy of predicted probabilities, such as those of softmax.

    Formula: E = Σ_n e_n / N, e = −Σ_c w_c t_c log q_c, with q = y the probabilities. The logarithm is that of
    max(q, tiny), tiny the smallest normal number of the dtype: 0·log 0 is 0, and a wrong answer with q = 0
    costs −log tiny (87.3 in float32). N is the number of examples that count; with weights it is the sum of their
    weights, Σ_n Σ_c w_c t_nc. With smoothing, t becomes (1 − s)t + s/C in e, but not in N.

    The cross entropy is the entropy of t plus the divergence of q from t: H(t, q) = H(t) + D(t‖q).

    Derivation: ∂e/∂q_c = −w_c t_c/q_c, or 0 where the logarithm is clipped and therefore constant. With
    de_c = dvalue·w_c/N,

        dy = −de ⊙ t/q

    It grows without bound as q approaches 0. If you have logits, use `softmax_cross_entropy`, in which the derivative
    of softmax cancels the denominator.

    Args:
      weights: w, one number for each class (C,); None means 1 for each.
      label_smoothing: s, in [0, 1].
      ignore_label: examples with this label count in neither value, gradient nor N; for integer labels only.

    Returns:
      A `Loss` of y (…, C) probabilities and target, integer labels (…) in [0, C) or distributions
      (…, C) that sum to 1; value () is a mean, dy (…, C) has the dtype of y. A label outside [0, C) makes
      both NaN: no error can be raised under jit, and with a clamped label the network would silently learn a wrong
      class.

    Raises:
      TypeError: y is not floating point, or labels are not integers.
      ValueError: label_smoothing is outside [0, 1], ignore_label is set but target holds distributions, target has
        neither shape, or weights does not have the shape (C,).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> y = jnp.array([[0.5, 0.5], [1.0, 0.0]])
      >>> round(float(fn.losses.cross_entropy().apply(y, jnp.array([1, 0]))), 4)
      0.3466

    References:
      Bridle, Probabilistic interpretation of feedforward classification network outputs (1990).
      Szegedy et al., Rethinking the Inception architecture (2016), section 7, for the smoothing.

    Differences: PyTorch's `CrossEntropyLoss` and optax take logits, as `softmax_cross_entropy` does here. Keras takes
    probabilities by default, makes them sum to 1 and clips them at 1e-7.
    """
    checks.fraction("cross_entropy", "label_smoothing", label_smoothing)
    info = targets.describe_weighted(
        cross_entropy, weights=weights, label_smoothing=label_smoothing, ignore_label=ignore_label
    )

    def equation(q: jax.Array, t: jax.Array) -> jax.Array:
        return -t * logarithm.log(q)

    def forward(q: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return equation(q, t), (q, t)

    def backward(saved: tuple[jax.Array, jax.Array], de: jax.Array) -> jax.Array:
        q, t = saved
        return -de * t * logarithm.slope_of_log(q)

    return loss(
        info,
        equation,
        forward,
        backward,
        features="sum",
        examples="mean",
        weights=weights,
        read_target=targets.classes(weights, label_smoothing, ignore_label),
    )


def nll(
    *, weights: targets.Weights = None, label_smoothing: float = 0.0, ignore_label: int | None = None
) -> Loss:
    """The negative log-likelihood: cross entropy of log-probabilities, such as those of log_softmax.

    Formula: E = Σ_n e_n / N, e = −Σ_c w_c t_c y_c, with y the log-probabilities; a term with t = 0 is 0
    even where y is −∞. N is the number of examples that count; with weights it is the sum of their weights,
    Σ_n Σ_c w_c t_nc. With smoothing, t becomes (1 − s)t + s/C in e, but not in N.

    Derivation: e is linear in y. With de_c = dvalue·w_c/N,

        dy = −de ⊙ t

    Args:
      weights: w, one number for each class (C,); None means 1 for each.
      label_smoothing: s, in [0, 1].
      ignore_label: examples with this label count in neither value, gradient nor N; for integer labels only.

    Returns:
      A `Loss` of y (…, C) log-probabilities and target, integer labels (…) in [0, C) or
      distributions (…, C) that sum to 1; value () is a mean, dy (…, C) has the dtype of y. A label outside
      [0, C) makes both NaN.

    Raises:
      TypeError: y is not floating point, or labels are not integers.
      ValueError: label_smoothing is outside [0, 1], ignore_label is set but target holds distributions, target has
        neither shape, or weights does not have the shape (C,).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> y = jnp.log(jnp.array([[0.5, 0.5], [1.0, 0.0]]))
      >>> round(float(fn.losses.nll().apply(y, jnp.array([1, 0]))), 4)
      0.3466

    References:
      Bridle, Probabilistic interpretation of feedforward classification network outputs (1990).

    Differences: the same as PyTorch's `NLLLoss`, with classes last instead of second. PyTorch takes labels only, has no
    smoothing, ignores −100 by default, raises on a label outside [0, C) and gives NaN if no example counts.
    """
    checks.fraction("nll", "label_smoothing", label_smoothing)
    info = targets.describe_weighted(
        nll, weights=weights, label_smoothing=label_smoothing, ignore_label=ignore_label
    )

    def equation(y: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.where(t == 0, 0, -t * y)

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return equation(y, t), t

    def backward(t: jax.Array, de: jax.Array) -> jax.Array:
        return -de * t

    return loss(
        info,
        equation,
        forward,
        backward,
        features="sum",
        examples="mean",
        weights=weights,
        read_target=targets.classes(weights, label_smoothing, ignore_label),
    )


class OfLabels(NamedTuple):
    """What `softmax_cross_entropy` keeps for its backward if the target holds labels."""

    label: jax.Array  # (…, 1)
    log_p: jax.Array  # (…, 1) of the label; NaN where it is outside [0, C)
    powers: jax.Array  # (…, C) e^{z − max z}
    total: jax.Array  # (…, 1) their sum


def _of_labels(info: Info, ignore_label: int | None) -> Loss:
    """`softmax_cross_entropy` for labels only: looks each one up, because a one-hot array would be as large as y."""

    def shifted(z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        largest = jax.lax.stop_gradient(z.max(-1, keepdims=True))  # any other number gives the same e
        powers = jnp.exp(z - largest)
        return largest, powers, powers.sum(-1, keepdims=True)

    def equation(z: jax.Array, label: jax.Array) -> jax.Array:
        largest, _, total = shifted(z)
        of_label, known = targets.look_up(z, label)
        return known * (jnp.log(total) + largest - of_label)

    def forward(z: jax.Array, label: jax.Array) -> tuple[jax.Array, OfLabels]:
        largest, powers, total = shifted(z)
        of_label, known = targets.look_up(z, label)
        log_p = known * (of_label - largest - jnp.log(total))
        return -log_p, OfLabels(label, log_p, powers, total)

    def backward(saved: OfLabels, de: jax.Array) -> jax.Array:
        label, log_p, powers, total = saved
        dy = powers * (jnp.where(jnp.isnan(log_p), jnp.nan, de) / total)
        return targets.put(dy, label, de * jnp.expm1(log_p))

    return loss(
        info,
        equation,
        forward,
        backward,
        features="sum",
        examples="mean",
        read_target=targets.column(ignore_label),
    )


def softmax_cross_entropy(
    *, weights: targets.Weights = None, label_smoothing: float = 0.0, ignore_label: int | None = None
) -> Loss:
    """The cross entropy of logits; softmax is included.

    Formula: E = Σ_n e_n / N, e = −Σ_c w_c t_c log p_c, log p = z − log Σ_k e^{z_k}, with z = y the logits, whose
    maximum is subtracted first; a term with t = 0 is 0 even where z is −∞. N is the number of examples that count; with
    weights it is the sum of their weights, Σ_n Σ_c w_c t_nc. With smoothing, t becomes (1 − s)t + s/C in e, but not
    in N.

    Derivation: ∂log p_c/∂z_k = δ_ck − p_k, so ∂e/∂z_k = −Σ_c w_c t_c (δ_ck − p_k). With
    de_c = dvalue·w_c/N,

        dy = p·Σ_c de_c t_c − de ⊙ t

    For one-hot targets without weights this is (p − t)/N. It contains no slope of an activation, so a confidently wrong
    answer learns fastest. For integer labels l without weights or smoothing, e = log Σ_k e^{z_k} − z_l, and

        dy = de·p, but de·(p_l − 1) = de·(e^{log p_l} − 1) at l, which is exact even where p_l is nearly 1

    Args:
      weights: w, one number for each class (C,); None means 1 for each.
      label_smoothing: s, in [0, 1].
      ignore_label: examples with this label count in neither value, gradient nor N; for integer labels only.

    Returns:
      A `Loss` of y (…, C) logits and target, integer labels (…) in [0, C) or distributions (…, C)
      that sum to 1; value () is a mean, dy (…, C) has the dtype of y. A label outside [0, C) makes both NaN.

    Raises:
      TypeError: y is not floating point, or labels are not integers.
      ValueError: label_smoothing is outside [0, 1], ignore_label is set but target holds distributions, target has
        neither shape, or weights does not have the shape (C,).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> loss, z = fn.losses.softmax_cross_entropy(), jnp.array([[0.0, 0.0], [1e4, -1e4]])
      >>> value, saved = loss.forward(z, jnp.array([1, 0]))
      >>> round(float(value), 4), loss.backward(saved).tolist()
      (0.3466, [[0.25, -0.25], [0.0, 0.0]])

    References:
      Bridle, Probabilistic interpretation of feedforward classification network outputs (1990).
      Szegedy et al., Rethinking the Inception architecture (2016), section 7, for the smoothing.

    Differences: the same as PyTorch's `CrossEntropyLoss`, with classes last instead of second. PyTorch ignores −100 by
    default, raises on a label outside [0, C) and gives NaN if no example counts. For labels, its weighted mean is the
    same, smoothed or not; for distributions it divides by the number of examples instead. optax returns e for each
    example; one of its two functions takes labels.
    """
    checks.fraction("softmax_cross_entropy", "label_smoothing", label_smoothing)
    info = targets.describe_weighted(
        softmax_cross_entropy, weights=weights, label_smoothing=label_smoothing, ignore_label=ignore_label
    )

    def terms(log_p: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.where(t == 0, 0, -t * log_p)

    def forward(z: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        log_p = jax.nn.log_softmax(z)
        return terms(log_p, t), (jnp.exp(log_p), t)

    def backward(saved: tuple[jax.Array, jax.Array], de: jax.Array) -> jax.Array:
        p, t = saved
        dlog_p = de * t
        return p * dlog_p.sum(-1, keepdims=True) - dlog_p

    of_distributions = loss(
        info,
        lambda z, t: terms(jax.nn.log_softmax(z), t),
        forward,
        backward,
        features="sum",
        examples="mean",
        weights=weights,
        read_target=targets.classes(weights, label_smoothing, ignore_label),
    )
    if weights is not None or label_smoothing:
        return of_distributions

    return of_either(_of_labels(info, ignore_label), of_distributions, OfLabels)


def kl_divergence() -> Loss:
    """The Kullback–Leibler divergence between target probabilities and predicted log-probabilities.

    Formula: E = 1/N Σ_n Σ_c t_c (log t_c − y_c), y = log q; a term with t = 0 is 0. N is the number of
    examples that are not masked.

    Derivation: log t does not depend on y. With de = dvalue/N,

        dy = −de·t

    This is also the gradient of `nll`: the two losses differ by the entropy of t, which is constant.

    Returns:
      A `Loss` of y (…, C) log-probabilities and target (…, C) probabilities; value () is a mean,
      dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> y, target = jnp.log(jnp.array([[0.5, 0.5]])), jnp.array([[1.0, 0.0]])
      >>> round(float(fn.losses.kl_divergence().apply(y, target)), 4)
      0.6931

    References:
      Kullback & Leibler, On information and sufficiency, Annals of Mathematical Statistics 22 (1951).

    Differences: with one batch axis, the same as PyTorch's `KLDivLoss(reduction="batchmean")`; its default also
    divides by C. Keras takes probabilities and clips both distributions at 1e-7. `optax.kl_divergence`, for each
    example, is NaN where t = 0 and y = −∞.
    """

    def equation(y: jax.Array, t: jax.Array) -> jax.Array:
        # Takes log 1 where t is 0, because the branch not taken must not have NaN in its derivative.
        return jnp.where(t == 0, 0, t * (jnp.log(jnp.where(t == 0, 1, t)) - y))

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return equation(y, t), t

    def backward(t: jax.Array, de: jax.Array) -> jax.Array:
        return -de * t

    return loss(describe(kl_divergence), equation, forward, backward, features="sum", examples="mean")
