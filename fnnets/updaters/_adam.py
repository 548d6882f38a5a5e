"""Adam: momentum over the root mean square, both corrected for their start at 0."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core import checks
from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation

EPS_PLACES = ("outside", "uncorrected", "inside")


class AdamState(NamedTuple):
    """The state of `adam` and `adamw`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    m: PyTree  # the shapes of params: the running mean of g
    v: PyTree  # the shapes of params: the running mean of g²


def adam(
    learning_rate: transformation.Rate,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    *,
    eps: Scalar = 1e-8,
    eps_place: str = "outside",
) -> optax.GradientTransformationExtraArgs:
    """Adam: momentum over the root mean square of the gradient, both corrected for their start at 0.

    Formula: m_t = β₁·m_{t−1} + (1−β₁)·g, v_t = β₂·v_{t−1} + (1−β₂)·g², m_0 = v_0 = 0,
    m̂ = m_t/(1−β₁ᵗ), v̂ = v_t/(1−β₂ᵗ), Δ = −η·m̂/(√v̂ + ε).

    With eps_place="uncorrected", ε is added to the root before its correction:
    Δ = −η·√(1−β₂ᵗ)/(1−β₁ᵗ)·m_t/(√v_t + ε). This ε is larger by 1/√(1−β₂ᵗ): 32 times at the first step.
    With "inside", Δ = −η·m̂/√(v̂ + ε), which is differentiable even where v is 0.

    Args:
      learning_rate: η, a number or an optax schedule.
      b1: β₁ in [0, 1), the decay of the mean of g.
      b2: β₂ in [0, 1), the decay of the mean of g².
      eps: ε, which keeps the root above 0.
      eps_place: where ε stands: "outside", "uncorrected" or "inside".

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `AdamState(count, m, v)`.

    Raises:
      ValueError: a negative learning rate or ε, β outside [0, 1), an unknown eps_place.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> updater = fn.updaters.adam(0.1)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads = jax.grad(lambda params: (params**2).sum())(params)
      >>> updates, state = updater.update(grads, updater.init(params), params)
      >>> optax.apply_updates(params, updates)
      Array([0.9, 1.9], dtype=float32)

    References:
      Kingma & Ba, Adam: a method for stochastic optimization, ICLR (2015), algorithm 1, and the form just
      before section 2.1 ("uncorrected").

    Differences:
      optax.adam, torch.optim.Adam: eps=1e-8, eps_place="outside" (the defaults here).
      keras.optimizers.Adam: eps=1e-7, eps_place="uncorrected".
      optax.adam(eps=0, eps_root=ε): eps_place="inside".
      The means are kept in at least float32. 1−βᵗ is computed to full precision; in float32 optax's
      first step has a relative error of 2e-5.
    """
    check_adam("adam", learning_rate, b1, b2, eps, eps_place)

    def rule(g: PyTree, state: AdamState, params: Params) -> tuple[Any, AdamState]:
        del params
        ratio, state = adam_ratio(g, state, b1, b2, eps, eps_place)
        return transformation.scaled(-transformation.rate_at(learning_rate, state.count), ratio), state

    return transformation.updater(start_adam, rule)


def start_adam(params: Params) -> AdamState:
    """The state before the first step."""
    return AdamState(transformation.start(), transformation.filled(params), transformation.filled(params))


def adam_ratio(
    g: PyTree, state: AdamState, b1: Scalar, b2: Scalar, eps: Scalar, eps_place: str
) -> tuple[Any, AdamState]:
    """m̂/(√v̂ + ε), with ε where eps_place says, and the state with this step's means."""
    m = transformation.mean(b1, state.m, g)
    v = transformation.mean(b2, state.v, transformation.squared(g))
    count = optax.safe_increment(state.count)

    mass_m, mass_v = transformation.mass(b1, count), transformation.mass(b2, count)
    times_m, times_v, root_v = 1 / mass_m, 1 / mass_v, jnp.sqrt(mass_v)

    def ratio(m: jax.Array, v: jax.Array) -> jax.Array:
        if eps_place == "uncorrected":
            return (root_v * times_m).astype(m.dtype) * transformation.over_root(m, v, eps, "outside")
        return transformation.over_root(
            m * times_m.astype(m.dtype), v * times_v.astype(v.dtype), eps, eps_place
        )

    return jax.tree.map(ratio, m, v), state._replace(m=m, v=v)


def check_adam(
    who: str, learning_rate: transformation.Rate, b1: Scalar, b2: Scalar, eps: Scalar, eps_place: str
) -> None:
    """Raises ValueError for invalid settings of `adam` and `adamw`."""
    transformation.not_negative(who, learning_rate=learning_rate, eps=eps)
    transformation.fractions(who, b1=b1, b2=b2)
    checks.choice(who, "eps_place", eps_place, EPS_PLACES)
