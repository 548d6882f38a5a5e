"""Random orders of rows, and what is known of labels before they are used."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets import checks


def own_keys(key: Any, n: int) -> jax.Array:
    """A key for each row, (n,). Each row has its own, whatever n is: more rows change nothing of those before."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))


def shuffled(key: Any, n: int, count: Any = None) -> jax.Array:
    """The rows in random order, (n,); with a count, those below it first, in the order that they alone would have."""
    rows = jnp.arange(n, dtype=jnp.int32)
    draws = jax.vmap(jax.random.bits)(own_keys(key, n))
    if count is None:
        return jax.lax.sort((draws, rows), num_keys=1)[-1]
    return jax.lax.sort(((rows >= count).astype(jnp.int32), draws, rows), num_keys=2)[-1]


def by_class(key: Any, labels: Any) -> jax.Array:
    """The rows class by class, in random order within each, (n,)."""
    order = shuffled(key, len(labels))
    return order[jnp.argsort(labels[order], stable=True)]


def checked_labels(who: str, labels: Any, n: int | None = None) -> jax.Array:
    """Labels as an array (n,) of integers."""
    labels = checks.integers(who, labels, "labels")
    shape = (labels.size if n is None else n,)
    checks.same_shape(who, "labels", labels.shape, shape, "one class for each row.")
    return labels


def known(labels: Any) -> bool:
    """Whether the labels' values can be looked at: not under jit or vmap."""
    return not isinstance(labels, jax.core.Tracer)


def least_members(who: str, labels: Any, least: int, why: str) -> None:
    """Refuses labels of which a class has too few rows; traced ones are let through."""
    if known(labels):
        classes, counts = np.unique(np.asarray(labels), return_counts=True)
        if counts.min() < least:
            few = counts.argmin()
            raise ValueError(
                f"{who}: every class must have at least {least} rows, got {counts[few]} of class {classes[few]}; {why}"
            )
