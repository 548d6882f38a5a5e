"""Shared by the normalisations: mean and variance over given places, and the gradient through them.

With ⟨·⟩ the mean over the n places of a group,

    μ = ⟨x⟩,  σ² = ⟨(x − μ)²⟩,  inv = 1/√(σ² + ε),  x̂ = (x − μ)·inv

Then ∂μ/∂x_j = 1/n and, since Σ(x − μ) = 0, ∂σ²/∂x_j = 2(x_j − μ)/n. So ∂inv/∂x_j = −inv³(x_j − μ)/n = −inv²·x̂_j/n and

    ∂x̂_i/∂x_j = inv·(δ_ij − 1/n − x̂_i·x̂_j/n)
    dx = inv·(dx̂ − ⟨dx̂⟩ − x̂·⟨dx̂ ⊙ x̂⟩)

Forward keeps x − μ instead of x: every later pass reads it once, with one factor for all places of a group.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.arrays import zero_where_masked


class Places(NamedTuple):
    """The places of an array over which one mean is taken."""

    axes: tuple[int, ...]
    valid: Any = None  # bools that broadcast to the array: which places count; None means all
    axis_name: Any = None  # the mapped axis of the devices (or the `vmap`) that share one mean


class Moments(NamedTuple):
    """Mean and variance; the axes of their places have length 1."""

    mean: jax.Array
    rest: Any  # the mean of x − mean, which is 0 except for rounding
    var: jax.Array
    number: jax.Array | None  # of places that count; None if the moments were not computed from x


def total(values: jax.Array, places: Places) -> jax.Array:
    """The sum over the places that count, on all devices."""
    values = zero_where_masked(values, places.valid).sum(places.axes, keepdims=True)
    return values if places.axis_name is None else jax.lax.psum(values, places.axis_name)


def number(x: jax.Array, places: Places) -> jax.Array:
    """The number of places that count, on all devices."""
    if places.valid is None:
        n = jnp.asarray(math.prod(x.shape[axis] for axis in places.axes), x.dtype)
    else:
        whole = math.prod(x.shape[axis] // places.valid.shape[axis] for axis in places.axes)
        n = whole * places.valid.sum(places.axes, keepdims=True, dtype=jnp.int32).astype(x.dtype)
    return n if places.axis_name is None else jax.lax.psum(n, places.axis_name)


def average(values: jax.Array, places: Places, n: Any) -> jax.Array:
    """⟨values⟩; 0 if no place counts."""
    return total(values, places) / jnp.maximum(n, 1)


def centre(x: jax.Array, places: Places) -> tuple[jax.Array, Moments]:
    """x − μ, and mean and variance in two passes.

    The second pass reads x − μ. Its mean is the rounding error of μ. Correcting for it makes the variance of a constant
    exactly 0, however large the constant.
    """
    n = number(x, places)
    mean = average(x, places, n)
    centred = _written_once(x, mean)
    rest = average(centred, places, n)
    var = jnp.maximum(average(jnp.square(centred), places, n) - jnp.square(rest), 0)
    return centred, Moments(mean, rest, var, n)


def _written_once(x: jax.Array, mean: jax.Array) -> jax.Array:
    """x − μ, written so that XLA keeps it in memory instead of x.

    XLA would compute a plain difference again at every use, and so keep x in memory too. It does not recompute
    operations on two whole arrays. The comparison makes this one; it is always False, because nothing is above ∞.
    """
    return x - jnp.where(x > jnp.inf, x, mean)


def inverse(moments: Moments, epsilon: float) -> jax.Array:
    """inv = 1/√(σ² + ε)."""
    return jax.lax.rsqrt(moments.var + epsilon)


def normalised(centred: jax.Array, moments: Moments, inv: jax.Array) -> jax.Array:
    """x̂, computed from x − μ."""
    return (centred - moments.rest) * inv


def textbook(x: jax.Array, places: Places, epsilon: float) -> jax.Array:
    """x̂, computed directly from the equations."""
    n = number(x, places)
    mean = average(x, places, n)
    var = average((x - mean) ** 2, places, n)
    return (x - mean) / jnp.sqrt(var + epsilon)


def through(
    d: jax.Array, centred: jax.Array, rest: Any, inv: Any, factor: Any, mean_d: Any, mean_product: Any
) -> jax.Array:
    """dx = factor·(d − ⟨d⟩ − x̂·⟨d ⊙ x̂⟩) from d and its two means, with x̂ = (centred − rest)·inv.

    d is dx̂ with the factor inv, or, if all places of a group share one scale, dy with the factor inv·scale. The terms
    are arranged so that each place needs only two products and two sums.
    """
    of_centred = -factor * inv * mean_product
    return factor * d + (of_centred * centred - (factor * mean_d + of_centred * rest))
