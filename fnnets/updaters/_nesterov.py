"""Nesterov's accelerated gradient: momentum that looks ahead."""

from __future__ import annotations

import optax

from fnnets.core.layer import Scalar
from fnnets.updaters import transformation
from fnnets.updaters._momentum import with_memory


def nesterov(
    learning_rate: transformation.Rate, rho: Scalar = 0.9, *, rate_place: str = "inside"
) -> optax.GradientTransformationExtraArgs:
    """Nesterov's accelerated gradient: momentum with the gradient at the point ahead.

    Formula: v_t = ρ·v_{t−1} − η_t·g, v_0 = 0, Δ_t = ρ·v_t − η_t·g, with η inside the memory;
    m_t = ρ·m_{t−1} + g, Δ_t = −η_t·(ρ·m_t + g), with η outside.

    Derivation: the method steps by v_t = ρ·v_{t−1} − η·∇E(θ + ρ·v_{t−1}). Let p = θ + ρ·v_{t−1} be the
    point ahead, where g is taken. The next such point is p' = θ + v_t + ρ·v_t, so for constant ρ

        Δ_t = p' − p = v_t + ρ·v_t − ρ·v_{t−1} = ρ·v_t − η·g.

    So params hold the points ahead, and the gradient is taken at params, as for every other updater.

    Args:
      learning_rate: η, a number or an optax schedule.
      rho: ρ in [0, 1), the share of the last step that is kept.
      rate_place: where η stands: "inside" or "outside" the memory. Both are the same for a constant η.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `MomentumState(count, memory)`; memory is v or m.

    Raises:
      ValueError: a negative learning rate, ρ outside [0, 1), an unknown rate_place.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> updater = fn.updaters.nesterov(0.1, rho=0.5)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads = jax.grad(lambda params: (params**2).sum())(params)
      >>> updates, state = updater.update(grads, updater.init(params), params)
      >>> optax.apply_updates(params, updates)
      Array([0.7, 1.4], dtype=float32)

    References:
      Nesterov, A method of solving a convex programming problem with convergence rate O(1/k²), Soviet
      Mathematics Doklady 27 (1983); Sutskever et al., On the importance of initialization and momentum in
      deep learning, ICML (2013), eqs. 3-4.

    Differences: Keras's SGD(momentum=ρ, nesterov=True) is rate_place="inside"; optax.sgd(momentum=ρ,
    nesterov=True) and PyTorch's SGD are "outside". The memory is kept in at least float32.
    """
    return with_memory("nesterov", learning_rate, rho, rate_place, look_ahead=True)
