"""The embedding: a learned vector for each of a finite number of ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Layer, describe, layer


class Embedding(NamedTuple):
    """The parameters of `embedding`."""

    w: jax.Array  # (num_embeddings, features)


def embedding(
    num_embeddings: int,
    features: int,
    *,
    embedding_init: Callable[..., jax.Array] = jax.nn.initializers.normal(1.0),
) -> Layer:
    """An embedding: looks up row x of a table.

    Formula: y_n = w[x_n], x (…) integers in [0, num_embeddings), w (num_embeddings, features).

    Derivation: with one-hot x̂ it is the dense layer y = x̂·w, so dw = x̂ᵀ·dy. Row i collects dy from
    every place where x is i,

        dw_i = Σ_{n: x_n = i} dy_n

    computed as a scatter-add. Integers have no gradient, so dx is None.

    Args:
      num_embeddings: the number of rows.
      features: the length of each row.
      embedding_init: `(key, shape, dtype) -> w`, one of `jax.nn.initializers`.

    Returns:
      A `Layer` with params `Embedding(w)`, x (…) integers, y (…, features) in the dtype of w. An id
      outside the table gives a row of NaN and no gradient: no error can be raised under jit, and with a clamped id
      the layer would silently learn a wrong row.

    Raises:
      TypeError: x does not hold integers.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.embedding(10, 3), jnp.array([[1, 2], [2, 9]])
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (2, 2, 3)

    References:
      Bengio, Ducharme, Vincent & Janvin, A neural probabilistic language model, JMLR 3 (2003), section 2.

    Differences: w is initialised with N(0, 1), as in PyTorch; flax uses N(0, 1/features), Keras U(±0.05). For an id
    outside the table, PyTorch raises, flax gives NaN and jax's own indexing clamps. Negative ids count from the end in
    jax; here they are outside the table.
    """
    checks.positive("embedding", num_embeddings=num_embeddings, features=features)
    info = describe(embedding, num_embeddings=num_embeddings, features=features)

    def rows(x: Any) -> Any:
        # Negative ids would count from the end, so this moves them outside the table.
        return jnp.where(x < 0, num_embeddings, x)

    def init(key: Any, x: Any) -> Embedding:
        checks.integers(info, x)
        return Embedding(embedding_init(key, (num_embeddings, features), jnp.result_type(float)))

    def apply(params: Embedding, x: Any) -> jax.Array:
        checks.node(info, params, Embedding)
        x = checks.integers(info, x)
        return jnp.asarray(params.w).at[rows(x)].get(mode="fill", fill_value=jnp.nan)

    def forward(params: Embedding, x: Any) -> tuple[jax.Array, jax.Array]:
        return apply(params, x), jnp.asarray(x)

    def backward(params: Embedding, x: jax.Array, dy: jax.Array) -> tuple[Embedding, None]:
        dw = jnp.zeros_like(params.w).at[rows(x)].add(dy, mode="drop")
        return Embedding(dw), None

    return layer(init, apply, forward, backward, name=info)
