"""RMSprop: the gradient over the root of its mean square."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core import checks
from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation


class RMSpropState(NamedTuple):
    """The state of `rmsprop`."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    g2: PyTree  # the shapes of params: E[g²]
    g1: PyTree  # the shapes of params: E[g]; () unless centered


def rmsprop(
    learning_rate: transformation.Rate,
    rho: Scalar = 0.9,
    *,
    eps: Scalar = 1e-8,
    eps_place: str = "inside",
    centered: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop: the gradient over the root of the running mean of its squares.

    Formula: E[g²]_t = ρ·E[g²]_{t−1} + (1−ρ)·g², v = E[g²]_t;
    centred: E[g]_t = ρ·E[g]_{t−1} + (1−ρ)·g, v = E[g²]_t − E[g]_t²;
    Δ = −η·g/√(v + ε) with ε inside the root, −η·g/(√v + ε) outside.

    Args:
      learning_rate: η, a number or an optax schedule.
      rho: ρ in [0, 1), the decay of the means.
      eps: ε, which keeps the root above 0.
      eps_place: "inside" or "outside" the root.
      centered: whether to divide by the standard deviation of the gradient instead of its root mean square.
        A variance that rounding makes negative becomes 0.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `RMSpropState(count, g2, g1)`.

    Raises:
      ValueError: a negative learning rate or ε, ρ outside [0, 1), an unknown eps_place.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> updater = fn.updaters.rmsprop(0.1, rho=0.75, eps=0.0)
      >>> update, state = updater.update(jnp.array(2.0), updater.init(jnp.array(0.0)))
      >>> float(update), float(state.g2)  # −0.1·2/√1
      (-0.2..., 1.0)

    References:
      Hinton, Neural networks for machine learning, lecture 6e (2012); centred: Graves, Generating sequences
      with recurrent neural networks, arXiv:1308.0850 (2013), eqs. 38-41.

    Differences:
      optax.rmsprop: rho=0.9, eps=1e-8, eps_place="inside" (the defaults here).
      keras.optimizers.RMSprop: rho=0.9, eps=1e-7, eps_place="inside".
      torch.optim.RMSprop: rho=0.99 (its alpha), eps=1e-8, eps_place="outside".
      Their momentum=μ is `optax.chain(rmsprop(η), optax.trace(μ))` here, with η inside the memory as in optax
      and Keras.
      The means are kept in at least float32.
    """
    transformation.not_negative("rmsprop", learning_rate=learning_rate, eps=eps)
    transformation.fractions("rmsprop", rho=rho)
    checks.choice("rmsprop", "eps_place", eps_place, ("inside", "outside"))

    def init(params: Params) -> RMSpropState:
        g1 = transformation.filled(params) if centered else ()
        return RMSpropState(transformation.start(), transformation.filled(params), g1)

    def rule(g: PyTree, state: RMSpropState, params: Params) -> tuple[Any, RMSpropState]:
        del params
        g2 = transformation.mean(rho, state.g2, transformation.squared(g))
        g1 = transformation.mean(rho, state.g1, g) if centered else ()
        v = jax.tree.map(lambda v, m: jnp.maximum(v - m**2, 0), g2, g1) if centered else g2
        delta = jax.tree.map(lambda g, v: transformation.over_root(g, v, eps, eps_place), g, v)
        rate = transformation.rate_at(learning_rate, state.count)
        return transformation.scaled(-rate, delta), state._replace(g2=g2, g1=g1)

    return transformation.updater(init, rule)
