"""Dropout: values left out at random in training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Layer, describe, layer, no_params


def dropout(rate: float, *, shared_axes: tuple[int, ...] = ()) -> Layer:
    """Dropout: in training each value is kept with probability 1 − rate, and the kept are scaled up.

    Formula: y = x ⊙ keep / (1 − rate), keep ~ Bernoulli(1 − rate) in training; y = x at inference. With
    shared axes there is one draw for all places along them: `shared_axes=(-2,)` on (…, T, D) drops a
    feature in all time steps of a sequence or in none (variational dropout), `shared_axes=(-3, -2)` on
    (…, H, W, C) whole feature maps of a picture (spatial dropout).

    Derivation: keep is drawn, not computed from x, so ∂y/∂x = keep / (1 − rate) and

        dx = dy ⊙ keep / (1 − rate)     in training (only the kept learn)
        dx = dy                         at inference

    A shared draw multiplies many places of x by one number, each of which keeps its own dy: nothing is
    summed, since keep is no function of x.

    Args:
      rate: the probability of dropping a value, in [0, 1]; at 1 everything is dropped and y = 0.
      shared_axes: the axes along which all places share one draw, counted from the end (−1 is the
        features): the axes before them are batch axes, of which there may be any number.

    Returns:
      A `Layer` without params. `train=True` needs a key; inference never reads it. The same key
      drops the same places whatever the dtype of x.

    Raises:
      ValueError: rate is outside [0, 1]; shared_axes holds something else than numbers below 0, or an axis
        that x has not; the key is missing in training.

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

    Differences: the paper scales at test time; scaling in training ("inverted") is what the frameworks do.
    `rate` is of dropping, as in Keras, flax and haiku. Shared axes are flax's `broadcast_dims`; Keras'
    `noise_shape` writes a 1 there, and so fixes how many batch axes there are.
    """
    checks.fraction("dropout", "rate", rate)
    if not isinstance(shared_axes, tuple) or any(not isinstance(k, int) or k >= 0 for k in shared_axes):
        raise ValueError(
            f"dropout: shared_axes must be a tuple of numbers below 0, got {shared_axes!r}; axes count from "
            "the end: time in (…, T, D) is (-2,)."
        )
    info = describe(dropout, rate=rate, shared_axes=shared_axes)

    def drawn(key: Any, x: jax.Array) -> jax.Array:
        checks.key(info, key)
        checks.rank(info, x, max((-axis for axis in shared_axes), default=0))
        shape = tuple(1 if k - x.ndim in shared_axes else size for k, size in enumerate(x.shape))
        return jax.random.bernoulli(key, jnp.float32(1 - rate), shape)

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
