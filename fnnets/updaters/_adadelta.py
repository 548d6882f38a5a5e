"""Adadelta: steps in the units of the parameters, with no learning rate."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation


class AdadeltaState(NamedTuple):
    """The state of `adadelta`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    g2: PyTree  # the shapes of params: E[g²]
    delta2: PyTree  # the shapes of params: E[Δ²], of Δ before the learning rate


def adadelta(
    learning_rate: transformation.Rate = 1.0, rho: Scalar = 0.9, *, eps: Scalar = 1e-6
) -> optax.GradientTransformationExtraArgs:
    """Adadelta: the gradient over its root mean square, times the root mean square of past steps.

    Formula: E[g²]_t = ρ·E[g²]_{t−1} + (1−ρ)·g²; Δ = −√(E[Δ²]_{t−1} + ε)/√(E[g²]_t + ε)·g;
    E[Δ²]_t = ρ·E[Δ²]_{t−1} + (1−ρ)·Δ². The update is η·Δ; η is 1 in the paper.

    Both means start at 0, so the first steps are small: about √(ε/(1−ρ)).

    Args:
      learning_rate: η, a number or an optax schedule; 1 is the published rule.
      rho: ρ in [0, 1), the decay of both means.
      eps: ε, inside both roots. With 0 the parameters never move.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `AdadeltaState(count, g2, delta2)`.

    Raises:
      ValueError: a negative learning rate or ε, ρ outside [0, 1).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> updater = fn.updaters.adadelta(rho=0.75, eps=1.0)
      >>> update, state = updater.update(jnp.array(2.0), updater.init(jnp.array(0.0)))
      >>> round(float(update), 4), float(state.g2)  # −√1/√(1 + 1)·2
      (-1.4142, 1.0)

    References:
      Zeiler, ADADELTA: an adaptive learning rate method, arXiv:1212.5701 (2012), algorithm 1 (ρ = 0.95, ε = 1e-6).

    Differences: the rule is the same everywhere; the defaults differ.
      optax.adadelta (learning_rate=None is 1 here, but ascends), torch.optim.Adadelta: rho=0.9, eps=1e-6 (the
      defaults here).
      keras.optimizers.Adadelta: learning_rate=0.001, rho=0.95, eps=1e-7.
      The means are kept in at least float32.
    """
    transformation.not_negative("adadelta", learning_rate=learning_rate, eps=eps)
    transformation.fractions("adadelta", rho=rho)

    def init(params: Params) -> AdadeltaState:
        return AdadeltaState(
            transformation.start(), transformation.filled(params), transformation.filled(params)
        )

    def rule(g: PyTree, state: AdadeltaState, params: Params) -> tuple[Any, AdadeltaState]:
        del params
        g2 = transformation.mean(rho, state.g2, transformation.squared(g))
        delta = jax.tree.map(
            lambda g, before, now: -jnp.sqrt(before + eps) * transformation.over_root(g, now, eps, "inside"),
            g,
            state.delta2,
            g2,
        )
        delta2 = transformation.mean(rho, state.delta2, transformation.squared(delta))
        rate = transformation.rate_at(learning_rate, state.count)
        return transformation.scaled(rate, delta), state._replace(g2=g2, delta2=delta2)

    return transformation.updater(init, rule)
