"""Adagrad: each parameter's rate falls as its squared gradients add up."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from fnnets.core import checks
from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation


class AdagradState(NamedTuple):
    """The state of `adagrad`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    total: PyTree  # the shapes of params: Σ g²


def adagrad(
    learning_rate: transformation.Rate,
    *,
    eps: Scalar = 1e-7,
    eps_place: str = "inside",
    initial_accumulator: Scalar = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """Adagrad: the gradient over the root of the sum of all its squares so far.

    Formula: s_t = s_{t−1} + g², s_0 = initial_accumulator;
    Δ = −η·g/√(s_t + ε) with ε inside the root, −η·g/(√s_t + ε) outside.

    The sum only grows, so the steps keep shrinking; `rmsprop` and `adadelta` forget old gradients.

    Args:
      learning_rate: η, a number or an optax schedule.
      eps: ε, which keeps the root above 0.
      eps_place: "inside" or "outside" the root.
      initial_accumulator: s_0.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `AdagradState(count, total)`.

    Raises:
      ValueError: a negative learning rate, ε or s_0; an unknown eps_place.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> updater = fn.updaters.adagrad(1.0, eps=0.0, initial_accumulator=0.0)
      >>> state = updater.init(jnp.array(0.0))
      >>> for g in (3.0, 4.0, 12.0):  # roots of the sums: 3, 5, 13
      ...     update, state = updater.update(jnp.array(g), state)
      ...     print(round(float(update), 4))
      -1.0
      -0.8
      -0.9231

    References:
      Duchi, Hazan & Singer, Adaptive subgradient methods for online learning and stochastic optimization,
      JMLR 12 (2011), fig. 1 (diagonal; δ there is ε, outside).

    Differences:
      optax.adagrad, keras.optimizers.Adagrad: eps=1e-7, eps_place="inside", initial_accumulator=0.1 (the
      defaults here).
      torch.optim.Adagrad: eps=1e-10, eps_place="outside", initial_accumulator=0.
      The sum is kept in at least float32.
    """
    transformation.not_negative(
        "adagrad", learning_rate=learning_rate, eps=eps, initial_accumulator=initial_accumulator
    )
    checks.choice("adagrad", "eps_place", eps_place, ("inside", "outside"))

    def init(params: Params) -> AdagradState:
        return AdagradState(transformation.start(), transformation.filled(params, initial_accumulator))

    def rule(g: PyTree, state: AdagradState, params: Params) -> tuple[Any, AdagradState]:
        del params
        total = jax.tree.map(lambda s, g: (s + g**2).astype(s.dtype), state.total, g)
        delta = jax.tree.map(lambda g, s: transformation.over_root(g, s, eps, eps_place), g, total)
        rate = transformation.rate_at(learning_rate, state.count)
        return transformation.scaled(-rate, delta), state._replace(total=total)

    return transformation.updater(init, rule)
