"""What the rules share: making an optax updater, wide arithmetic, rates, means and roots."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fnnets.core.arrays import at_least_float32, float32_or_wider

Rate = float | jax.Array | Callable[[Any], Any]  # a number, or an optax schedule: step -> number


def updater(
    init: Callable[[Any], Any], rule: Callable[[Any, Any, Any], tuple[Any, Any]]
) -> optax.GradientTransformationExtraArgs:
    """Makes an optax updater from a rule `(g, state, params) -> (delta, state)`; it ignores extra arguments.

    The rule gets g in at least float32: in bfloat16 a mean with ρ = 0.999 cannot move, in float16 g² underflows at
    2e-4. The updater increases the count and casts Δ to the dtype of the gradients.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        delta, state = rule(jax.tree.map(at_least_float32, grads), state, params)
        delta = jax.tree.map(lambda d, g: d.astype(g.dtype), delta, grads)
        return delta, state._replace(count=optax.safe_increment(state.count))

    return optax.with_extra_args_support(optax.GradientTransformation(init, update))


def filled(params: Any, value: Any = 0.0) -> Any:
    """An accumulator for each leaf of params, in at least float32, on the same devices as params."""
    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=float32_or_wider(p.dtype)), params)


def start() -> jax.Array:
    """The count before the first step."""
    return jnp.zeros((), jnp.int32)


def rate_at(learning_rate: Rate, count: jax.Array) -> Any:
    """η at a step: the schedule's value, or the number itself."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def scaled(factor: Any, tree: Any) -> Any:
    """factor·x for each leaf, in the leaf's dtype."""
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, tree)


def mean(rho: Any, old: Any, new: Any) -> Any:
    """The running mean ρ·old + (1 − ρ)·new, leaf by leaf, in the dtype of old."""
    return jax.tree.map(lambda m, x: (rho * m + (1 - rho) * x).astype(m.dtype), old, new)


def squared(tree: Any) -> Any:
    """The square of each leaf."""
    return jax.tree.map(jnp.square, tree)


def over_root(g: jax.Array, v: jax.Array, eps: Any, eps_place: str) -> jax.Array:
    """g/√(v+ε) for "inside", g/(√v+ε) for "outside"; g itself where the root is 0 (g² is 0 there too)."""
    root = jnp.sqrt(v + eps) if eps_place == "inside" else jnp.sqrt(v) + eps
    never_0 = isinstance(eps, int | float) and eps >= jnp.finfo(v.dtype).tiny
    return (g / (root if never_0 else jnp.where(root > 0, root, 1))).astype(g.dtype)


def mass(rho: Any, count: jax.Array) -> jax.Array:
    """1 − ρᵗ, the total weight in a running mean after t steps from 0.

    Computes −expm1(t·log ρ), which keeps all digits: in float32, 1 − 0.999¹ is wrong by 5e-5.
    """
    log = math.log(rho) if isinstance(rho, int | float) and rho > 0 else jnp.log(rho)
    return -jnp.expm1(count.astype(jnp.result_type(float)) * log)


def fractions(who: str, **values: Any) -> None:
    """Raises ValueError for a decay outside [0, 1). Traced values pass unchecked."""
    for name, value in values.items():
        if isinstance(value, int | float) and not 0 <= value < 1:
            raise ValueError(f"{who}: {name} must be at least 0 and below 1, got {value!r}.")


def not_negative(who: str, **values: Any) -> None:
    """Raises ValueError for a negative number or NaN. Traced values and schedules pass unchecked."""
    for name, value in values.items():
        if isinstance(value, int | float) and not value >= 0:
            raise ValueError(f"{who}: {name} must be at least 0, got {value!r}.")
