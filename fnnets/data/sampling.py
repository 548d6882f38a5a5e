"""Random orders of rows, and checks of labels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks


def random_bits(key: Any, n: int) -> jax.Array:
    """32 random bits for each row, (n,). The bits of a row do not depend on n."""
    # A folded key is a hash already; drawing from it would hash again.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    return jax.random.key_data(keys)[:, 0]


def shuffled(key: Any, n: int, count: Any = None) -> jax.Array:
    """The rows in random order, (n,); with a count, rows below it come first, in the order they have without the rest."""
    rows, bits = jnp.arange(n, dtype=jnp.int32), random_bits(key, n)
    if count is None:
        return jax.lax.sort((bits, rows), num_keys=1)[-1]
    return jax.lax.sort((rows >= count, bits, rows), num_keys=2)[-1]


def drawn(key: Any, n: int, below: Any) -> jax.Array:
    """n whole numbers, each uniform from 0 to `below` − 1; `below` is a number, or an array (n,)."""
    # The remainder of 32 bits changes a probability by at most below/2³² of its value.
    return (random_bits(key, n) % jnp.asarray(below, jnp.uint32)).astype(jnp.int32)


def by_class(key: Any, labels: Any) -> jax.Array:
    """The rows ordered by class, in random order within each class, (n,)."""
    order = shuffled(key, len(labels))
    return order[jnp.argsort(labels[order], stable=True)]


def checked_labels(who: str, labels: Any, n: int | None = None) -> jax.Array:
    """Labels as an integer array (n,)."""
    labels = checks.integers(who, labels, "labels")
    shape = (labels.size if n is None else n,)
    checks.same_shape(who, "labels", labels.shape, shape, "give one label for each row.")
    return labels


def is_known(labels: Any) -> bool:
    """Whether the labels have values that can be read: not under jit or vmap."""
    return not isinstance(labels, jax.core.Tracer)


def least_members(who: str, labels: Any, least: int, remedy: str) -> None:
    """Refuses labels with too few rows of a class; traced labels are not checked."""
    if is_known(labels):
        classes, counts = np.unique(np.asarray(labels), return_counts=True)
        if counts.min() < least:
            few = counts.argmin()
            raise ValueError(
                f"{who}: every class must have at least {least} rows, got {counts[few]} of class {classes[few]}; {remedy}"
            )
