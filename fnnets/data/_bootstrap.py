"""Rows drawn with replacement, and the rows never drawn."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.data import sampling
from fnnets.data.split import Split


def bootstrap(key: Any, n: int, *, labels: Any = None) -> Split:
    """Draws n rows with replacement to train with; the rows never drawn (out of bag) are the test.

    Formula: train_j ~ uniform{0 … n − 1}, independently. A row stays out of the bag with probability (1 − 1/n)ⁿ,
    which tends to 1/e ≈ 0.368. With labels, each draw is uniform over the rows of one class, and a class is drawn as
    often as it has rows.

    Args:
      key: a random key.
      n: the number of rows.
      labels: (n,) integers; the sample then has as many rows of each class as the data (stratified).

    Returns:
      A `Split(train (n,), test (n,), None, test_mask)`. The rows out of the bag come first in test, and test_mask is
      True for them. Works under jit with n static; `jax.vmap` over keys gives several splits.

    Raises:
      TypeError: labels are not integers.
      ValueError: n is below 1; there is not one label for each row.

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
