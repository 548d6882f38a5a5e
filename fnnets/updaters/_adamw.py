"""AdamW: Adam with a decay that the root does not divide."""

from __future__ import annotations

from typing import Any

import jax
import optax

from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.updaters import transformation
from fnnets.updaters._adam import AdamState, adam_ratio, check_adam, start_adam


def adamw(
    learning_rate: transformation.Rate,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    *,
    eps: Scalar = 1e-8,
    eps_place: str = "outside",
    weight_decay: Scalar = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW: Adam with decoupled weight decay.

    Formula: Δ = −η·(m̂/(√v̂ + ε) + λ·θ), m̂ and v̂ as in `adam`, θ the parameters.

    Adam divides an L2 penalty in the gradient by √v̂. Here every decaying parameter shrinks by the same factor
    (1 − η·λ).

    Args:
      learning_rate: η, a number or an optax schedule; it scales the decay as well.
      b1: β₁ in [0, 1), the decay of the mean of g.
      b2: β₂ in [0, 1), the decay of the mean of g².
      eps: ε, which keeps the root above 0.
      eps_place: where ε stands, as in `adam`: "outside", "uncorrected" or "inside".
      weight_decay: λ, the strength of the decay.
      mask: which leaves decay: a tree of bools, a prefix of params' tree, or a function that makes one from params,
        such as `fn.kernels`. By default all leaves decay.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `AdamState(count, m, v)`; its update needs params.

    Raises:
      ValueError: a negative learning rate, ε or λ, β outside [0, 1), an unknown eps_place; update without params.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> updater = fn.updaters.adamw(0.1, weight_decay=0.5, mask=fn.kernels)
      >>> params = fn.Dense(w=jnp.array([[2.0]]), b=jnp.array([2.0]))
      >>> grads = jax.tree.map(jnp.zeros_like, params)  # only the decay is left
      >>> updates, state = updater.update(grads, updater.init(params), params)
      >>> optax.apply_updates(params, updates)
      Dense(w=Array([[1.9]], dtype=float32), b=Array([2.], dtype=float32))

    References:
      Loshchilov & Hutter, Decoupled weight decay regularization, ICLR (2019), algorithm 2.

    Differences: the rule is the same everywhere; the defaults differ.
      optax.adamw: eps=1e-8, weight_decay=1e-4 (the defaults here).
      torch.optim.AdamW: eps=1e-8, weight_decay=1e-2.
      keras.optimizers.AdamW: eps=1e-7, eps_place="uncorrected", weight_decay=4e-3.
      In the paper only the schedule, not the base rate, scales the decay: its λ is η·λ here.
    """
    check_adam("adamw", learning_rate, b1, b2, eps, eps_place)
    transformation.not_negative("adamw", weight_decay=weight_decay)

    def rule(g: PyTree, state: AdamState, params: Params) -> tuple[Any, AdamState]:
        if params is None:
            raise ValueError(
                "adamw: params are needed for the decay, got None; call update(grads, state, params)."
            )
        ratio, state = adam_ratio(g, state, b1, b2, eps, eps_place)
        ratio = jax.tree.map(
            lambda ratio, p, decays: ratio + weight_decay * p.astype(ratio.dtype) if decays else ratio,
            ratio,
            params,
            _every_leaf(mask, params),
        )
        return transformation.scaled(-transformation.rate_at(learning_rate, state.count), ratio), state

    return transformation.updater(start_adam, rule)


def _every_leaf(mask: Any, params: Params) -> Any:
    """The mask with one bool for each leaf of params."""
    if mask is None:
        return jax.tree.map(lambda _: True, params)
    prefix = mask(params) if callable(mask) else mask
    return jax.tree.map(lambda decays, part: jax.tree.map(lambda _: decays, part), prefix, params)
