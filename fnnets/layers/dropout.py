"""Dropout: values left out at random in training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets import checks
from fnnets.contract import Layer, describe, layer, no_params


def dropout(rate: float) -> Layer:
    """Dropout: in training each value is kept with probability 1 − rate, and the kept are scaled up.

    Formula: y = x ⊙ keep / (1 − rate), keep ~ Bernoulli(1 − rate) in training; y = x at inference.

    Derivation: keep is drawn, not computed from x, so ∂y/∂x = keep / (1 − rate) and

        dx = dy ⊙ keep / (1 − rate)     in training (only the kept learn)
        dx = dy                         at inference

    Args:
      rate: the probability of dropping a value, in [0, 1]; at 1 everything is dropped and y = 0.

    Returns:
      A `Layer` without params. `train=True` needs a key; inference never reads it. The same key
      drops the same places whatever the dtype of x.

    Raises:
      ValueError: rate is outside [0, 1], or the key is missing in training.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.dropout(0.5)
      >>> y = net.apply((), jnp.ones(1000), key=jax.random.key(0), train=True)
      >>> sorted(set(y.tolist()))
      [0.0, 2.0]

    References:
      Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, Dropout, JMLR 15 (2014), section 4.

    Differences: the paper scales at test time; scaling in training ("inverted") is what the frameworks do.
    `rate` is of dropping, as in Keras, flax and haiku.
    """
    checks.fraction("dropout", "rate", rate)
    info = describe(dropout, rate=rate)

    def drawn(key: Any, x: jax.Array) -> jax.Array:
        checks.key(info, key)
        return jax.random.bernoulli(key, jnp.float32(1 - rate), x.shape)

    def kept(x: jax.Array, keep: jax.Array) -> jax.Array:
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        return jnp.where(keep, x * jnp.asarray(scale, x.dtype), jnp.zeros((), x.dtype))

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False) -> jax.Array:
        del params
        x = checks.floats(info, x)
        checks.static_bool(info, train)
        return kept(x, drawn(key, x)) if train and rate > 0 else x

    def forward(params: Any, x: Any, *, key: Any = None, train: bool = False) -> tuple[jax.Array, Any]:
        del params
        x = checks.floats(info, x)
        checks.static_bool(info, train)
        if not train or rate == 0:
            return x, None
        keep = drawn(key, x)
        return kept(x, keep), keep

    def backward(params: Any, keep: Any, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        return (), dy if keep is None else kept(dy, keep)

    return layer(no_params, apply, forward, backward, name=info)
