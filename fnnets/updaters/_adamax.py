"""Adamax: Adam with the largest gradient so far instead of the root mean square."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core import checks
from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation


class AdamaxState(NamedTuple):
    """The state of `adamax`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    m: PyTree  # the shapes of params: the running mean of g
    u: PyTree  # the shapes of params: the largest |g|, which decays by β₂ at each step


def adamax(
    learning_rate: transformation.Rate,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    *,
    eps: Scalar = 1e-8,
    eps_place: str = "inside",
) -> optax.GradientTransformationExtraArgs:
    """Adamax: Adam's mean of the gradient over a slowly decaying maximum of |g|.

    Formula: m_t = β₁·m_{t−1} + (1−β₁)·g, u_t = max(β₂·u_{t−1}, |g| + ε), m_0 = u_0 = 0, Δ = −η/(1−β₁ᵗ)·m_t/u_t.

    With eps_place="outside", u_t = max(β₂·u_{t−1}, |g|) and Δ = −η/(1−β₁ᵗ)·m_t/(u_t + ε).

    u is the limit of Adam's (v_t)^½ as the exponent p → ∞ replaces 2. A maximum that starts at 0 needs no
    correction, and |Δ| is at most about η.

    Args:
      learning_rate: η, a number or an optax schedule.
      b1: β₁ in [0, 1), the decay of the mean of g.
      b2: β₂ in [0, 1), the decay of the maximum.
      eps: ε, which keeps u above 0.
      eps_place: where ε stands: "inside" or "outside" the maximum.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `AdamaxState(count, m, u)`.

    Raises:
      ValueError: a negative learning rate or ε, β outside [0, 1), an unknown eps_place.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> updater = fn.updaters.adamax(0.1)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads = jax.grad(lambda params: (params**2).sum())(params)
      >>> updates, state = updater.update(grads, updater.init(params), params)
      >>> optax.apply_updates(params, updates)
      Array([0.9, 1.9], dtype=float32)

    References:
      Kingma & Ba, Adam: a method for stochastic optimization, ICLR (2015), section 7.1 and algorithm 2, which has no ε.

    Differences:
      optax.adamax, torch.optim.Adamax: eps=1e-8, eps_place="inside" (the defaults here).
      keras.optimizers.Adamax: eps=1e-7, eps_place="outside".
      m and u are kept in at least float32.
    """
    transformation.not_negative("adamax", learning_rate=learning_rate, eps=eps)
    transformation.fractions("adamax", b1=b1, b2=b2)
    checks.choice("adamax", "eps_place", eps_place, ("inside", "outside"))
    inside, outside = (eps, 0) if eps_place == "inside" else (0, eps)

    def init(params: Params) -> AdamaxState:
        return AdamaxState(
            transformation.start(), transformation.filled(params), transformation.filled(params)
        )

    def largest(u: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.maximum(b2 * u, jnp.abs(g) + inside).astype(u.dtype)

    def ratio(m: jax.Array, u: jax.Array) -> jax.Array:
        denominator = u + outside
        return (m / jnp.where(denominator > 0, denominator, 1)).astype(m.dtype)  # no step where both are 0

    def rule(g: PyTree, state: AdamaxState, params: Params) -> tuple[Any, AdamaxState]:
        del params
        m, u = transformation.mean(b1, state.m, g), jax.tree.map(largest, state.u, g)
        rate = transformation.rate_at(learning_rate, state.count)
        step = rate / transformation.mass(b1, optax.safe_increment(state.count))
        return transformation.scaled(-step, jax.tree.map(ratio, m, u)), state._replace(m=m, u=u)

    return transformation.updater(init, rule)
