"""Rows drawn with replacement, and those that were never drawn."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.data import sampling
from fnnets.data.split import Split


def bootstrap(key: Any, n: int, *, labels: Any = None) -> Split:
    """n rows drawn with replacement to learn from; those never drawn (out of bag) to test with.

    Formula: train_j ~ uniform{0 … n − 1}, independently. A row stays out of the bag with probability (1 − 1/n)ⁿ,
    which goes to 1/e ≈ 0.368. With labels, each draw is uniform over the rows of one class, and there are as many
    draws from a class as it has rows.

    Args:
      key: a random key.
      n: the number of rows.
      labels: (n,) integers; the sample then has as many rows of each class as there were (stratified).

    Returns:
      A `Split(train (n,), test (n,), None, test_mask)`: test has the rows out of the bag first, and test_mask is True
      on these. Works under jit with n static; `jax.vmap` over keys gives several.

    Raises:
      TypeError: labels are no integers.
      ValueError: n is below 1; labels are not one for each row.

    Example:
      >>> import fnnets as fn, jax
      >>> ((train, test),) = fn.data.bootstrap(jax.random.key(0), 1000).each()
      >>> len(train), 340 < len(test) < 400, bool(set(train.tolist()) & set(test.tolist()))
      (1000, True, False)

    References:
      Efron & Tibshirani, An introduction to the bootstrap (1993), chapters 6 and 17.
    """
    checks.positive("bootstrap", n=n)
    order_key, draw_key = jax.random.split(key)
    if labels is None:
        train = sampling.drawn(draw_key, n, n)
    else:
        labels = sampling.checked_labels("bootstrap", labels, n)
        order = sampling.by_class(order_key, labels)
        ordered = labels[order]
        first = jnp.searchsorted(ordered, ordered, side="left")
        last = jnp.searchsorted(ordered, ordered, side="right")
        train = order[sampling.drawn(draw_key, n, last - first) + first]
    seen = jnp.zeros(n, bool).at[train].set(True)
    test = jnp.argsort(seen, stable=True).astype(jnp.int32)
    return Split(train, test, None, jnp.arange(n) < (~seen).sum())
