"""Dropout: drops values at random in training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Layer, describe, layer, no_params


def dropout(rate: float, *, shared_axes: tuple[int, ...] = ()) -> Layer:
    """Dropout: in training, keeps each value with probability 1 − rate and scales it up.

    Formula: y = x ⊙ keep / (1 − rate), keep ~ Bernoulli(1 − rate) in training; y = x at inference. All places along
    the shared axes share one draw. `shared_axes=(-2,)` on (…, T, D) drops a feature in all time steps of a sequence or
    in none (variational dropout); `shared_axes=(-3, -2)` on (…, H, W, C) drops whole feature maps of a picture (spatial
    dropout).

    Derivation: keep is drawn at random and does not depend on x, so ∂y/∂x = keep / (1 − rate) and

        dx = dy ⊙ keep / (1 − rate)     in training (only kept values learn)
        dx = dy                         at inference

    A shared draw multiplies many places of x by one number, but each place has its own dy. Nothing is summed, because
    keep does not depend on x.

    Args:
      rate: the probability of dropping a value, in [0, 1]; at 1 all values are dropped and y = 0.
      shared_axes: the axes along which all places share one draw, counted from the end (−1 is the
        features). There may be any number of batch axes before them.

    Returns:
      A `Layer` without params. `train=True` needs a key; inference never reads it. The same key
      drops the same places for every dtype of x.

    Raises:
      ValueError: rate is outside [0, 1], shared_axes is not a tuple of negative numbers, x does not have one of these
        axes, or the key is missing in training.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.dropout(0.5)
      >>> y = net.apply((), jnp.ones(1000), key=jax.random.key(0), train=True)
      >>> sorted(set(y.tolist()))
      [0.0, 2.0]
      >>> fn.dropout(0.5, shared_axes=(-2,)).apply((), jnp.ones((3, 4)), key=jax.random.key(1), train=True)
      Array([[2., 0., 2., 2.],
             [2., 0., 2., 2.],
             [2., 0., 2., 2.]], dtype=float32)

    References:
      Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, Dropout, JMLR 15 (2014), section 4;
      Gal & Ghahramani, A theoretically grounded application of dropout in recurrent neural networks
      (2016), section 4.2, for shared_axes=(-2,); Tompson, Goroshin, Jain, LeCun & Bregler, Efficient object
      localization using convolutional networks (2015), section 3.2, for shared_axes=(-3, -2).

    Differences: the paper scales at test time; the frameworks scale in training ("inverted dropout"). `rate` is the
    probability of dropping, as in Keras, flax and haiku. `shared_axes` corresponds to flax's `broadcast_dims`. Keras'
    `noise_shape` has a 1 in these axes, and so fixes the number of batch axes.
    """
    checks.fraction("dropout", "rate", rate)
    if not isinstance(shared_axes, tuple) or any(not isinstance(k, int) or k >= 0 for k in shared_axes):
        raise ValueError(
            f"dropout: shared_axes must be a tuple of numbers below 0, got {shared_axes!r}; count axes from "
            "the end: time in (…, T, D) is (-2,)."
        )
    info = describe(dropout, rate=rate, shared_axes=shared_axes)

    def drawn(key: Any, x: jax.Array) -> jax.Array:
        checks.key(info, key)
        checks.rank(info, x, max((-axis for axis in shared_axes), default=0))
        shape = tuple(1 if k - x.ndim in shared_axes else size for k, size in enumerate(x.shape))
        return jax.random.bernoulli(key, jnp.float32(1 - rate), shape)

    def masked(x: jax.Array, keep: jax.Array) -> jax.Array:
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        return jnp.where(keep, x * jnp.asarray(scale, x.dtype), jnp.zeros((), x.dtype))

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False) -> jax.Array:
        del params
        x = checks.floats(info, x)
        checks.static_bool(info, train)
        return masked(x, drawn(key, x)) if train and rate > 0 else x

    def forward(params: Any, x: Any, *, key: Any = None, train: bool = False) -> tuple[jax.Array, Any]:
        del params
        x = checks.floats(info, x)
        checks.static_bool(info, train)
        if not train or rate == 0:
            return x, None
        keep = drawn(key, x)
        return masked(x, keep), keep

    def backward(params: Any, keep: Any, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        return (), dy if keep is None else masked(dy, keep)

    return layer(no_params, apply, forward, backward, name=info)
