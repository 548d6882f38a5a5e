"""Scaling of features, fitted on the training part alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, zero_where_masked


class Scale(NamedTuple):
    """A fitted scale, for each feature."""

    shift: jax.Array  # (D,): the mean, or the smallest value
    factor: jax.Array  # (D,): the deviation, or the range; 1 for a constant feature


class Scaler(NamedTuple):
    """Scales features: three pure functions.

    Attributes:
      fit: `(x, mask=None) -> Scale` from x (…, D), over all axes but the last; rows with mask (…) False do not count.
      apply: `(scale, x) -> z`; x (…, D) may have any leading axes.
      invert: `(scale, z) -> x`.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> scaler = fn.data.standardise()
      >>> scale = scaler.fit(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> scaler.apply(scale, jnp.array([[2.0, 5.0], [2.0, 6.0]])).tolist()
      [[0.0, 0.0], [0.0, 1.0]]
    """

    fit: Callable[..., Scale]
    apply: Callable[[Scale, Any], jax.Array]
    invert: Callable[[Scale, Any], jax.Array]


def standardise() -> Scaler:
    """Scales every feature to mean 0 and sample deviation 1 (the z-score).

    Formula: z = (x − x̄)/s, s² = Σ(x − x̄)²/(n − 1) over the n fitted rows. A constant feature has s = 0; it is divided
    by 1 instead, and becomes exactly 0.

    Returns:
      A `Scaler` that computes in at least float32.

    Raises:
      ValueError: `fit` gets an x without a feature axis, or a mask that is not (…).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> scaler, x = fn.data.standardise(), jnp.array([[1.0], [2.0], [3.0]])
      >>> scale = scaler.fit(x)
      >>> scaler.apply(scale, x).tolist(), scaler.invert(scale, scaler.apply(scale, x)).tolist()
      ([[-1.0], [0.0], [1.0]], [[1.0], [2.0], [3.0]])

    Differences: the deviation has n − 1 in its denominator; scikit-learn's `StandardScaler` has n.
    """

    def fit(x: Any, mask: Any = None) -> Scale:
        x, counts = _rows("standardise", x, mask)
        low, high = _ends(x, counts)
        n = counts.sum(0)
        mean = zero_where_masked(x, counts).sum(0) / jnp.maximum(n, 1)
        squares = zero_where_masked(jnp.square(x - mean), counts).sum(0)
        # The rounded mean of equal numbers may differ from them, so that squares is above 0. The range tells.
        constant = low >= high
        deviation = jnp.where(constant, 1, jnp.sqrt(squares / jnp.maximum(n - 1, 1)))
        return Scale(jnp.where(constant & (n > 0), low, mean), deviation)

    def apply(scale: Scale, x: Any) -> jax.Array:
        return (_features("standardise", scale, x) - scale.shift) / scale.factor

    def invert(scale: Scale, z: Any) -> jax.Array:
        return scale.shift + scale.factor * _features("standardise", scale, z)

    return Scaler(fit, apply, invert)


def min_max(low: float = 0.0, high: float = 1.0) -> Scaler:
    """Scales every feature to the range from low to high.

    Formula: z = low + (high − low)·(x − min x)/(max x − min x), over the fitted rows; other rows may lie outside the
    range. A constant feature is divided by 1 instead, and becomes exactly low.

    Args:
      low: the lower end of the range.
      high: the upper end.

    Returns:
      A `Scaler` that computes in at least float32.

    Raises:
      ValueError: low is not below high; `fit` gets an x without a feature axis, or a mask that is not (…).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> scaler, x = fn.data.min_max(-1.0, 1.0), jnp.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
      >>> scaler.apply(scaler.fit(x), x).tolist()
      [[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0]]
    """
    if not low < high:
        raise ValueError(f"min_max: low must be below high, got low={low!r} and high={high!r}.")
    width = high - low

    def fit(x: Any, mask: Any = None) -> Scale:
        x, counts = _rows("min_max", x, mask)
        least, most = _ends(x, counts)
        constant = least >= most
        return Scale(jnp.where(counts.any(0), least, 0), jnp.where(constant, 1, most - least))

    def apply(scale: Scale, x: Any) -> jax.Array:
        return low + width * ((_features("min_max", scale, x) - scale.shift) / scale.factor)

    def invert(scale: Scale, z: Any) -> jax.Array:
        return scale.shift + scale.factor * ((_features("min_max", scale, z) - low) / width)

    return Scaler(fit, apply, invert)


def _rows(who: str, x: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """x as floats (n, D), and which rows count, (n, 1)."""
    x = checks.array(who, x)
    checks.rank(who, x, 1)
    x = at_least_float32(x)
    if mask is None:
        counts = jnp.ones(x.shape[:-1], bool)
    else:
        counts = checks.bools(who, mask)
        checks.same_shape(who, "mask", counts.shape, x.shape[:-1], "give one bool for each row of x.")
    return x.reshape(-1, x.shape[-1]), counts.reshape(-1, 1)


def _ends(x: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The smallest and the largest value of each feature."""
    return x.min(0, initial=jnp.inf, where=counts), x.max(0, initial=-jnp.inf, where=counts)


def _features(who: str, scale: Scale, x: Any) -> jax.Array:
    """x as floats, with as many features as the scale."""
    x = checks.array(who, x)
    checks.width(who, x, scale.shift.shape[-1])
    return at_least_float32(x)
