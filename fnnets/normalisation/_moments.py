"""Mean and variance over chosen places, and the gradient through them: what the normalisations share.

With ⟨·⟩ the mean over the n places that belong together,

    μ = ⟨x⟩,  σ² = ⟨(x − μ)²⟩,  inv = 1/√(σ² + ε),  x̂ = (x − μ)·inv

Each place moves μ by 1/n and, since Σ(x − μ) = 0, σ² by 2(x_j − μ)/n: ∂inv/∂x_j = −inv³(x_j − μ)/n = −inv²·x̂_j/n. So

    ∂x̂_i/∂x_j = inv·(δ_ij − 1/n − x̂_i·x̂_j/n)
    dx = inv·(dx̂ − ⟨dx̂⟩ − x̂·⟨dx̂ ⊙ x̂⟩)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Places(NamedTuple):
    """The places of an array that one mean is taken over."""

    axes: tuple[int, ...]
    valid: Any = None  # bools that broadcast to the array: the places that count; None where all do
    axis_name: Any = None  # of the devices (or of the `vmap`) that share one mean


class Moments(NamedTuple):
    """Mean and variance, with the axes that they were taken over kept at length 1."""

    mean: jax.Array
    rest: jax.Array  # the mean of x − mean, which is 0 but for rounding
    var: jax.Array
    number: jax.Array | None  # of the places that count; None of moments that were not taken from x


def total(values: jax.Array, places: Places) -> jax.Array:
    """The sum over the places that count, on all devices."""
    if places.valid is not None:
        values = jnp.where(places.valid, values, 0)
    values = values.sum(places.axes, keepdims=True)
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


def moments(x: jax.Array, places: Places) -> Moments:
    """Mean and variance in two passes.

    The second passes over x − μ, whose own mean is what rounding has left in μ: with it the variance of a
    constant is 0 exactly, however large the constant.
    """
    n = number(x, places)
    mean = average(x, places, n)
    centred = x - mean
    rest = average(centred, places, n)
    var = jnp.maximum(average(jnp.square(centred), places, n) - jnp.square(rest), 0)
    return Moments(mean, rest, var, n)


def normalised(x: jax.Array, moments: Moments, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """(x̂, inv)."""
    inv = jax.lax.rsqrt(moments.var + epsilon)
    return (x - moments.mean - moments.rest) * inv, inv


def textbook(x: jax.Array, places: Places, epsilon: float) -> jax.Array:
    """x̂ as the equations say it."""
    n = number(x, places)
    mean = average(x, places, n)
    var = average((x - mean) ** 2, places, n)
    return (x - mean) / jnp.sqrt(var + epsilon)


def through(dnormal: Any, normal: Any, inv: Any, mean_dnormal: Any, mean_product: Any) -> jax.Array:
    """dx from dx̂ and its means ⟨dx̂⟩ and ⟨dx̂ ⊙ x̂⟩."""
    return inv * (dnormal - mean_dnormal - normal * mean_product)
