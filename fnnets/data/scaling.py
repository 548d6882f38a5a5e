"""Features on one scale; what is fitted is fitted on the training part only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, zero_where_masked


class Scale(NamedTuple):
    """What was fitted, for each feature."""

    shift: jax.Array  # (D,): the mean, or the least value
    factor: jax.Array  # (D,): the deviation, or the range; 1 for a constant feature


class Scaler(NamedTuple):
    """A way to scale features: pure functions.

    Attributes:
      fit: `(x, mask=None) -> Scale` from x (…, D), over all axes but the last; rows with mask (…) False do not count.
      apply: `(scale, x) -> z`, with x (…, D) of any leading axes.
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
    """Every feature with mean 0 and sample deviation 1 (the z-score).

    Formula: z = (x − x̄)/s, s² = Σ(x − x̄)²/(n − 1) over the n rows that were fitted. A constant feature has s = 0
    and is divided by 1 instead: it becomes 0, exactly.

    Returns:
      A `Scaler`. Computed in at least float32.

    Raises:
      ValueError: x to be fitted has no feature axis, or the mask does not fit it.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> scaler, x = fn.data.standardise(), jnp.array([[1.0], [2.0], [3.0]])
      >>> scale = scaler.fit(x)
      >>> scaler.apply(scale, x).tolist(), scaler.invert(scale, scaler.apply(scale, x)).tolist()
      ([[-1.0], [0.0], [1.0]], [[1.0], [2.0], [3.0]])

    Differences: scikit-learn's `StandardScaler` divides by the deviation of n, here it is that of n − 1.
    """

    def fit(x: Any, mask: Any = None) -> Scale:
        x, counts = _rows("standardise", x, mask)
        low, high = _ends(x, counts)
        n = counts.sum(0)
        mean = zero_where_masked(x, counts).sum(0) / jnp.maximum(n, 1)
        squares = zero_where_masked(jnp.square(x - mean), counts).sum(0)
        # Ends, not squares, tell a constant: the mean of equal numbers need not be that number.
        constant = low >= high
        deviation = jnp.where(constant, 1, jnp.sqrt(squares / jnp.maximum(n - 1, 1)))
        return Scale(jnp.where(constant & (n > 0), low, mean), deviation)

    def apply(scale: Scale, x: Any) -> jax.Array:
        return (_fitting("standardise", scale, x) - scale.shift) / scale.factor

    def invert(scale: Scale, z: Any) -> jax.Array:
        return scale.shift + scale.factor * _fitting("standardise", scale, z)

    return Scaler(fit, apply, invert)


def min_max(low: float = 0.0, high: float = 1.0) -> Scaler:
    """Every feature between two ends.

    Formula: z = low + (high − low)·(x − min x)/(max x − min x), over the rows that were fitted; other rows may
    come to lie outside. A constant feature is divided by 1 instead, and becomes low, exactly.

    Args:
      low: the lower end.
      high: the upper end.

    Returns:
      A `Scaler`. Computed in at least float32.

    Raises:
      ValueError: low is not below high; x to be fitted has no feature axis, or the mask does not fit it.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> scaler, x = fn.data.min_max(-1.0, 1.0), jnp.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]])
      >>> scaler.apply(scaler.fit(x), x).tolist()
      [[-1.0, -1.0], [0.0, -1.0], [1.0, -1.0]]
    """
    if not low < high:
        raise ValueError(f"min_max: low must be below high, got {low!r} and {high!r}.")
    width = high - low

    def fit(x: Any, mask: Any = None) -> Scale:
        x, counts = _rows("min_max", x, mask)
        least, most = _ends(x, counts)
        constant = least >= most
        return Scale(jnp.where(counts.any(0), least, 0), jnp.where(constant, 1, most - least))

    def apply(scale: Scale, x: Any) -> jax.Array:
        return low + width * ((_fitting("min_max", scale, x) - scale.shift) / scale.factor)

    def invert(scale: Scale, z: Any) -> jax.Array:
        return scale.shift + scale.factor * ((_fitting("min_max", scale, z) - low) / width)

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
        checks.same_shape(who, "mask", counts.shape, x.shape[:-1], "one bool for each row of x.")
    return x.reshape(-1, x.shape[-1]), counts.reshape(-1, 1)


def _ends(x: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The least and the largest value of each feature."""
    return x.min(0, initial=jnp.inf, where=counts), x.max(0, initial=-jnp.inf, where=counts)


def _fitting(who: str, scale: Scale, x: Any) -> jax.Array:
    x = checks.array(who, x)
    checks.width(who, x, scale.shift.shape[-1])
    return at_least_float32(x)
