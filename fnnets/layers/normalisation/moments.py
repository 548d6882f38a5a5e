"""Mean and variance over chosen places, and the gradient through them: what the normalisations share.

With ⟨·⟩ the mean over the n places that belong together,

    μ = ⟨x⟩,  σ² = ⟨(x − μ)²⟩,  inv = 1/√(σ² + ε),  x̂ = (x − μ)·inv

Each place moves μ by 1/n and, since Σ(x − μ) = 0, σ² by 2(x_j − μ)/n: ∂inv/∂x_j = −inv³(x_j − μ)/n = −inv²·x̂_j/n. So

    ∂x̂_i/∂x_j = inv·(δ_ij − 1/n − x̂_i·x̂_j/n)
    dx = inv·(dx̂ − ⟨dx̂⟩ − x̂·⟨dx̂ ⊙ x̂⟩)

What is kept of x is x − μ: every later pass goes over it once, with one factor for all places of a mean.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.arrays import zero_where_masked


class Places(NamedTuple):
    """The places of an array that one mean is taken over."""

    axes: tuple[int, ...]
    valid: Any = None  # bools that broadcast to the array: the places that count; None where all do
    axis_name: Any = None  # of the devices (or of the `vmap`) that share one mean


class Moments(NamedTuple):
    """Mean and variance, with the axes that they were taken over kept at length 1."""

    mean: jax.Array
    rest: Any  # the mean of x − mean, which is 0 but for rounding
    var: jax.Array
    number: jax.Array | None  # of the places that count; None of moments that were not taken from x


def total(values: jax.Array, places: Places) -> jax.Array:
    """The sum over the places that count, on all devices."""
    values = zero_where_masked(values, places.valid).sum(places.axes, keepdims=True)
    return values if places.axis_name is None else jax.lax.psum(values, places.axis_name)


def number(x: jax.Array, places: Places) -> jax.Array:
    """How many places count, on all devices."""
    if places.valid is None:
        n = jnp.asarray(math.prod(x.shape[axis] for axis in places.axes), x.dtype)
    else:
        whole = math.prod(x.shape[axis] // places.valid.shape[axis] for axis in places.axes)
        n = whole * places.valid.sum(places.axes, keepdims=True, dtype=jnp.int32).astype(x.dtype)
    return n if places.axis_name is None else jax.lax.psum(n, places.axis_name)


def average(values: jax.Array, places: Places, n: Any) -> jax.Array:
    """⟨values⟩; 0 where no place counts."""
    return total(values, places) / jnp.maximum(n, 1)


def centre(x: jax.Array, places: Places) -> tuple[jax.Array, Moments]:
    """x − μ, and mean and variance in two passes.

    The second passes over x − μ, whose own mean is what rounding has left in μ: with it the variance of a
    constant is 0 exactly, however large the constant.
    """
    n = number(x, places)
    mean = average(x, places, n)
    centred = _written_once(x, mean)
    rest = average(centred, places, n)
    var = jnp.maximum(average(jnp.square(centred), places, n) - jnp.square(rest), 0)
    return centred, Moments(mean, rest, var, n)


def _written_once(x: jax.Array, mean: jax.Array) -> jax.Array:
    """x − μ. Nothing is above ∞: the comparison has XLA keep x − μ in place of x.

    A plain difference it would write for the sums and compute again wherever else it is used, which keeps x in
    memory too. What needs two whole arrays it does not compute twice.
    """
    return x - jnp.where(x > jnp.inf, x, mean)


def inverse(moments: Moments, epsilon: float) -> jax.Array:
    """inv = 1/√(σ² + ε)."""
    return jax.lax.rsqrt(moments.var + epsilon)


def normalised(centred: jax.Array, moments: Moments, inv: jax.Array) -> jax.Array:
    """x̂ of x − μ."""
    return (centred - moments.rest) * inv


def textbook(x: jax.Array, places: Places, epsilon: float) -> jax.Array:
    """x̂ as the equations say it."""
    n = number(x, places)
    mean = average(x, places, n)
    var = average((x - mean) ** 2, places, n)
    return (x - mean) / jnp.sqrt(var + epsilon)


def through(
    d: jax.Array, centred: jax.Array, rest: Any, inv: Any, factor: Any, mean_d: Any, mean_product: Any
) -> jax.Array:
    """dx = factor·(d − ⟨d⟩ − x̂·⟨d ⊙ x̂⟩) from d and its two means, x̂ being (centred − rest)·inv.

    d is dx̂ with the factor inv; or dy with inv·scale, where one scale belongs to all places of a mean. Sorted by
    what differs from place to place: two products and two sums for each.
    """
    of_centred = -factor * inv * mean_product
    return factor * d + (of_centred * centred - (factor * mean_d + of_centred * rest))
