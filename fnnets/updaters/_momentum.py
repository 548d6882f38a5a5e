"""Gradient descent with momentum: each step keeps part of the previous one."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from fnnets.core import checks
from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation

PLACES = ("inside", "outside")


class MomentumState(NamedTuple):
    """The state of `momentum` and `nesterov`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    memory: PyTree  # the shapes of params: the last Δ (rate_place="inside"), or Σ ρᵏ g (rate_place="outside")


def momentum(
    learning_rate: transformation.Rate, rho: Scalar = 0.9, *, rate_place: str = "inside"
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with momentum.

    Formula: Δ_t = ρ·Δ_{t−1} − η_t·g, Δ_0 = 0, with η inside the memory;
    m_t = ρ·m_{t−1} + g, Δ_t = −η_t·m_t, with η outside.

    Both are the same for a constant η. When a schedule drops η, "inside" keeps a memory of steps at the old rate;
    "outside" scales the memory down at once.

    Args:
      learning_rate: η, a number or an optax schedule.
      rho: ρ in [0, 1), the share of the last step that is kept.
      rate_place: where η stands: "inside" or "outside" the memory.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `MomentumState(count, memory)`.

    Raises:
      ValueError: a negative learning rate, ρ outside [0, 1), an unknown rate_place.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> updater = fn.updaters.momentum(0.1, rho=0.5)
      >>> params = jnp.array([1.0, 2.0])
      >>> state = updater.init(params)
      >>> for _ in range(2):
      ...     grads = jax.grad(lambda params: (params**2).sum())(params)
      ...     updates, state = updater.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> [round(float(p), 4) for p in params]
      [0.54, 1.08]

    References:
      Polyak, Some methods of speeding up the convergence of iteration methods, USSR Computational
      Mathematics and Mathematical Physics 4 (1964), eq. 9; Sutskever et al., On the importance of
      initialization and momentum in deep learning, ICML (2013), eqs. 1-2.

    Differences: Keras's SGD(momentum=ρ) is rate_place="inside"; optax.sgd(momentum=ρ) and PyTorch's SGD are
    "outside". There is no dampening as in PyTorch. The memory is kept in at least float32; optax keeps the
    dtype of params.
    """
    return with_memory("momentum", learning_rate, rho, rate_place, look_ahead=False)


def with_memory(
    who: str, learning_rate: transformation.Rate, rho: Scalar, rate_place: str, *, look_ahead: bool
) -> optax.GradientTransformationExtraArgs:
    """`momentum`, or `nesterov` with look_ahead, which applies the memory once more."""
    transformation.not_negative(who, learning_rate=learning_rate)
    transformation.fractions(who, rho=rho)
    checks.choice(who, "rate_place", rate_place, PLACES)

    def init(params: Params) -> MomentumState:
        return MomentumState(transformation.start(), transformation.filled(params))

    def remember(memory: PyTree, new: Any) -> Any:
        return jax.tree.map(lambda m, x: (rho * m + x).astype(m.dtype), memory, new)

    def rule(g: PyTree, state: MomentumState, params: Params) -> tuple[Any, MomentumState]:
        del params
        minus_rate = -transformation.rate_at(learning_rate, state.count)
        new = transformation.scaled(minus_rate, g) if rate_place == "inside" else g
        memory = remember(state.memory, new)
        delta = remember(memory, new) if look_ahead else memory
        delta = delta if rate_place == "inside" else transformation.scaled(minus_rate, delta)
        return delta, state._replace(memory=memory)

    return transformation.updater(init, rule)
