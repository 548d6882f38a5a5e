"""The type `Loss`, and what all losses share: checks, masks, dtypes and reductions."""

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

    An example is a row of y: the last axis holds features or classes, and all axes before it count examples (and
    time steps). A loss reduces each example to one number, and then these numbers to one.

    Where the mask is False, y and target are replaced by 0 before anything is computed, so masked values, even NaN,
    affect neither the value nor the gradient. If no example counts, value and gradient are 0. Values are computed in
    at least float32.

    Attributes:
      apply: `(y, target, mask=None) -> value`, the textbook equation; y (…, C) floats, mask (…) bools,
        value () in float32, or in float64 if y is.
      forward: `(y, target, mask=None) -> (value, saved)`, the same value and what `backward` needs.
      backward: `(saved, dvalue=1.0) -> dy`, the derivation; dy (…, C) in the dtype of y.
      per_example: `(y, target) -> values`, (…): one number for each example, class weights included, and 0
        where the label is ignored; `apply` sums them and divides by the N of the loss's formula.
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
    """Output and target in the form that the equations use: in at least float32, and 0 where examples do not count."""

    y: jax.Array  # (…, C)
    t: jax.Array  # (…, C), or labels (…, 1)
    counts: jax.Array  # (…) bools
    divisor: jax.Array  # () divides the sum of all weighted terms
    dtype: Static  # the dtype of the argument y, and so of dy


class Kept(NamedTuple):
    """What `forward` of every loss keeps for `backward`."""

    saved: Any  # what this loss's own derivation needs
    counts: jax.Array  # (…) bools
    divisor: jax.Array  # ()
    dtype: Static
    mean: Static  # whether the divisor counts examples; a mean over several batches then weights their values by it


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
    """Makes a loss from the term e of one feature of one example.

    Formula: value = Σ_n Σ_c w_c e_nc / (F·N). F is 1 if features are summed. If their mean is taken, F is Σ_c w_c,
    or their number without weights. N is 1 if examples are summed. If their mean is taken, N is the number or the
    total weight of the examples that count.

    Derivation: F and N do not depend on y, so de_nc = dvalue·w_c/(F·N) if example n counts, else 0.
    `backward(saved, de)` then gives dy.

    Args:
      info: the loss's name and settings.
      equation: `(y, t) -> e`, all (…, C).
      forward: `(y, t) -> (e, saved)`.
      backward: `(saved, de) -> dy`; de is (…, C), or (…, 1) if it is the same for every class.
      features: "mean" or "sum", over the terms of one example.
      examples: "mean" or "sum", over the examples.
      weights: one for each feature or class, (C,); None means 1 for each.
      read_target: `(info, y, target) -> Target`; by default, targets have the shape of y.

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
    """Combines a loss of labels and one of distributions into one loss, which chooses by the target's shape.

    `kept_of_labels` is the type that the first saves, so that `backward` knows which one ran.
    """

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
    """Names a loss's functions after it, so that Python's own errors (such as a misspelt keyword) name the loss."""
    for function in ("apply", "forward", "backward", "per_example"):
        getattr(loss, function).__qualname__ = f"{loss.info}.{function}"
    return loss


def ratio(a: jax.Array, b: Any) -> jax.Array:
    """a/b, and 0 with a gradient of 0 where b is 0: the mean over no examples."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
