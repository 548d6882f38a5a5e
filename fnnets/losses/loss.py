"""What a loss is, and what all losses share: their checks, masks, dtypes and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, zero_where_masked
from fnnets.core.layer import Array, Info, Saved, Scalar, Static
from fnnets.losses import targets

Reduction = Literal["mean", "sum"]


class Loss(NamedTuple):
    """A loss: pure functions of an output y and its target, with the gradient derived by hand.

    An example is a row of y: its last axis holds features or classes, all axes before it count
    examples (and time steps). A loss reduces each example to one number, then the examples to one.

    Where the mask is False, y and target are replaced by 0 before anything is computed: what stands
    there, NaN too, reaches neither the value nor the gradient. Where no example counts, the value
    and the gradient are 0. Values are computed in at least float32.

    Attributes:
      apply: `(y, target, mask=None) -> value`, the textbook equation; y (…, C) floats, mask (…) bools,
        value () in float32, or float64 where y is.
      forward: `(y, target, mask=None) -> (value, saved)`, the same value and what `backward` needs.
      backward: `(saved, dvalue=1.0) -> dy`, the derivation; dy (…, C) in the dtype of y.
      per_example: `(y, target) -> values`, (…): the number of each example, class weights included, and 0
        where an ignored label stands; `apply` sums them and divides by the N of the loss's formula.
      info: the loss's name and settings.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> loss = fn.losses.mse()
      >>> y, target = jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([[1.0, 0.0], [3.0, 1.0]])
      >>> value, saved = loss.forward(y, target)
      >>> float(value), loss.backward(saved).tolist(), loss.per_example(y, target).tolist()
      (5.0, [[0.0, 1.0], [0.0, 2.0]], [2.0, 8.0])
    """

    apply: Callable[..., jax.Array]
    forward: Callable[..., tuple[jax.Array, Saved]]
    backward: Callable[..., jax.Array]
    per_example: Callable[..., jax.Array]
    info: Info

    def __repr__(self) -> str:
        return self.info.label or self.info.name


checks.not_a_function(Loss, "loss.apply(y, target)")


class Batch(NamedTuple):
    """Output and target as the equations take them: in at least float32, and 0 where nothing counts."""

    y: jax.Array  # (…, C)
    t: jax.Array  # (…, C), or labels (…, 1)
    counts: jax.Array  # (…) bools
    divisor: jax.Array  # () what the sum of all weighted terms is divided by
    dtype: Static  # of y as it was given, and so of dy


class Kept(NamedTuple):
    """What the backward of every loss needs."""

    saved: Any  # what the loss's own derivation needs
    counts: jax.Array  # (…) bools
    divisor: jax.Array  # ()
    dtype: Static
    mean: Static  # whether the divisor counts examples: the mean over parts is then that of their values, weighed by it


def loss(
    info: Info,
    equation: Callable[[jax.Array, jax.Array], jax.Array],
    forward: Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]],
    backward: Callable[[Any, jax.Array], jax.Array],
    *,
    features: Reduction,
    examples: Reduction,
    weights: targets.Weights = None,
    read_target: targets.ReadTarget = targets.same_shape,
) -> Loss:
    """The loss of which one feature of one example has the term e.

    Formula: value = Σ_n Σ_c w_c e_nc / (F·N). F is 1 where features are summed, and Σ_c w_c where
    their mean is taken (their number without weights); N is 1 where examples are summed, and the
    number or the weight of those that count where their mean is taken.

    Derivation: F and N do not depend on y, so de_nc = dvalue·w_c/(F·N) where example n counts, else 0;
    `backward(saved, de) -> dy` goes on from there.

    Args:
      info: the loss's name and settings.
      equation: `(y, t) -> e`, all (…, C).
      forward: `(y, t) -> (e, saved)`.
      backward: `(saved, de) -> dy`; de is (…, C), or (…, 1) where it is the same for every class.
      features: what is done with the terms of one example.
      examples: what is done with the examples.
      weights: one for each feature or class, (C,); None is 1 each.
      read_target: `(info, y, target) -> Target`; targets have the shape of y by default.

    Returns:
      The `Loss`.
    """

    def read(y: Any, target: Any, mask: Any) -> Batch:
        y = checks.floats(info, y, "y")
        checks.rank(info, y, 1, "y")
        targets.class_weights(info, y, weights)
        dtype, y = Static(y.dtype), at_least_float32(y)
        t, counts, weight = read_target(info, y, target)
        counts = counts if mask is None else counts & targets.mask_of_examples(info, y, mask)
        y, t = (zero_where_masked(array, counts) for array in (y, t))
        divisor = jnp.asarray(share_of_features(y), y.dtype)
        if examples == "mean":
            divisor *= (counts if weight is None else jnp.where(counts, weight, 0)).sum()
        return Batch(y, t, counts, divisor, dtype)

    def share_of_features(y: jax.Array) -> Any:
        if features == "sum":
            return 1
        return y.shape[-1] if weights is None else jnp.asarray(weights, y.dtype).sum()

    def summed(e: jax.Array) -> jax.Array:
        return (e if weights is None else e * jnp.asarray(weights, e.dtype)).sum(-1)

    def reduced(e: jax.Array, batch: Batch) -> jax.Array:
        return ratio(zero_where_masked(summed(e), batch.counts).sum(), batch.divisor)

    def apply(y: Array, target: Array, mask: Array | None = None) -> jax.Array:
        batch = read(y, target, mask)
        return reduced(equation(batch.y, batch.t), batch)

    def lifted_forward(y: Array, target: Array, mask: Array | None = None) -> tuple[jax.Array, Kept]:
        batch = read(y, target, mask)
        e, saved = forward(batch.y, batch.t)
        return reduced(e, batch), Kept(
            saved, batch.counts, batch.divisor, batch.dtype, Static(examples == "mean")
        )

    def lifted_backward(kept: Kept, dvalue: Scalar = 1.0) -> jax.Array:
        dsum = ratio(jnp.asarray(dvalue, kept.divisor.dtype), kept.divisor)
        de = jnp.where(kept.counts, dsum, 0)[..., None]
        de = de if weights is None else de * jnp.asarray(weights, de.dtype)
        return backward(kept.saved, de).astype(kept.dtype.value)

    def per_example(y: Array, target: Array) -> jax.Array:
        batch = read(y, target, None)
        terms = summed(equation(batch.y, batch.t))
        return zero_where_masked(ratio(terms, share_of_features(batch.y)), batch.counts)

    return named(Loss(apply, lifted_forward, lifted_backward, per_example, info))


def of_either(of_labels: Loss, of_distributions: Loss, kept_of_labels: type) -> Loss:
    """One loss of both kinds of targets, which their shapes tell apart; `kept_of_labels` is what the first saves."""

    def chosen(y: Array, target: Array) -> Loss:
        y = checks.floats(of_labels.info, y, "y")
        target = checks.array(of_labels.info, target, "target")
        return of_distributions if y.shape == target.shape else of_labels

    def apply(y: Array, target: Array, mask: Array | None = None) -> jax.Array:
        return chosen(y, target).apply(y, target, mask)

    def forward(y: Array, target: Array, mask: Array | None = None) -> tuple[jax.Array, Kept]:
        return chosen(y, target).forward(y, target, mask)

    def backward(kept: Kept, dvalue: Scalar = 1.0) -> jax.Array:
        loss = of_labels if isinstance(kept.saved, kept_of_labels) else of_distributions
        return loss.backward(kept, dvalue)

    def per_example(y: Array, target: Array) -> jax.Array:
        return chosen(y, target).per_example(y, target)

    return named(Loss(apply, forward, backward, per_example, of_labels.info))


def named(loss: Loss) -> Loss:
    """Names a loss's functions after it, so that Python's own errors (a misspelt keyword) say whose they are."""
    for function in ("apply", "forward", "backward", "per_example"):
        getattr(loss, function).__qualname__ = f"{loss.info}.{function}"
    return loss


def ratio(a: jax.Array, b: Any) -> jax.Array:
    """a/b, and 0 where b is 0: the mean of nothing, which no gradient reaches."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
