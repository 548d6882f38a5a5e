"""Gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from fnnets.core.layer import Params, PyTree
from fnnets.updaters import transformation


class SGDState(NamedTuple):
    """The state of `sgd`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken


def sgd(learning_rate: transformation.Rate) -> optax.GradientTransformationExtraArgs:
    """(Stochastic) gradient descent.

    Formula: Δ = −η·g.

    Args:
      learning_rate: η, a number or an optax schedule.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `SGDState(count)`.

    Raises:
      ValueError: a negative learning rate.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> updater = fn.updaters.sgd(0.1)
      >>> params = jnp.array([1.0, 2.0])
      >>> grads = jax.grad(lambda params: (params**2).sum())(params)
      >>> updates, state = updater.update(grads, updater.init(params), params)
      >>> optax.apply_updates(params, updates)
      Array([0.8, 1.6], dtype=float32)

    References:
      Robbins & Monro, A stochastic approximation method, Annals of Mathematical Statistics 22 (1951).

    Differences: none. optax.sgd, torch.optim.SGD and keras.optimizers.SGD do the same by default.
    """
    transformation.not_negative("sgd", learning_rate=learning_rate)

    def init(params: Params) -> SGDState:
        del params
        return SGDState(transformation.start())

    def rule(g: PyTree, state: SGDState, params: Params) -> tuple[Any, SGDState]:
        del params
        return transformation.scaled(-transformation.rate_at(learning_rate, state.count), g), state

    return transformation.updater(init, rule)
