"""Equal numbers of rows in all classes, by oversampling or undersampling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.data import sampling


def oversample(key: Any, labels: Any, *, classes: int | None = None, size: Any = None) -> jax.Array:
    """Repeats rows of the smaller classes until every class has as many rows as the largest.

    Split the data first, and oversample the training part alone. Otherwise a row may be in both parts.

    Args:
      key: a random key.
      labels: (n,) integers 0 … C − 1.
      classes: C; by default the largest label plus 1.
      size: the number of rows of each class; by default that of the largest class.

    Returns:
      Indices (C·size,), class by class: each row of the class once, then draws from the class with replacement. Under
      jit, pass classes and size; a class with more rows than `size` then gives `size` of them.

    Raises:
      TypeError: labels are not integers.
      ValueError: a class has no row, or more than `size`; under jit, classes or size is missing.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> labels = jnp.array([0, 0, 0, 1])
      >>> labels[fn.data.oversample(jax.random.key(0), labels)].tolist()
      [0, 0, 0, 1, 1, 1]
    """
    labels, classes, counts = _counted("oversample", labels, classes, size)
    if counts is not None:
        size = int(counts.max()) if size is None else size
        if counts.max() > size:
            raise ValueError(
                f"oversample: size must be at least {counts.max()}, as many rows as class {counts.argmax()} has, "
                f"got {size}; use undersample to leave rows out."
            )
    order_key, draw_key = jax.random.split(key)
    order, first, count = _classes(order_key, labels, classes)
    place = jnp.broadcast_to(jnp.arange(size), (classes, size))
    again = sampling.drawn(draw_key, classes * size, jnp.repeat(count, size)).reshape(classes, size)
    return order[(first[:, None] + jnp.where(place < count[:, None], place, again)).ravel()]


def undersample(key: Any, labels: Any, *, classes: int | None = None, size: Any = None) -> jax.Array:
    """Leaves out rows of the larger classes until every class has as few rows as the smallest.

    Args:
      key: a random key.
      labels: (n,) integers 0 … C − 1.
      classes: C; by default the largest label plus 1.
      size: the number of rows of each class; by default that of the smallest class.

    Returns:
      Indices (C·size,), class by class, drawn without replacement. Under jit, pass classes and size. A class must not
      have fewer rows than size; under jit this is not checked.

    Raises:
      TypeError: labels are not integers.
      ValueError: a class has no row, or fewer than `size`; under jit, classes or size is missing.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> labels = jnp.array([0, 0, 0, 1])
      >>> labels[fn.data.undersample(jax.random.key(0), labels)].tolist()
      [0, 1]
    """
    labels, classes, counts = _counted("undersample", labels, classes, size)
    if counts is not None:
        size = int(counts.min()) if size is None else size
        if counts.min() < size:
            raise ValueError(
                f"undersample: size must be at most {counts.min()}, as many rows as class {counts.argmin()} has, "
                f"got {size}; use oversample to repeat rows."
            )
    order, first, _ = _classes(key, labels, classes)
    return order[(first[:, None] + jnp.arange(size)).ravel()]


def _counted(who: str, labels: Any, classes: Any, size: Any) -> tuple[jax.Array, int, np.ndarray | None]:
    """The labels, the number of classes, and the number of rows of each; None instead of these under jit."""
    labels = sampling.checked_labels(who, labels)
    for name, value in (("classes", classes), ("size", size)):
        if value is not None:
            checks.positive(who, **{name: value})
    if not sampling.is_known(labels):
        if classes is None or size is None:
            raise ValueError(
                f"{who}: under jit, classes and size must be given; the result's shape depends on them."
            )
        return labels, classes, None
    values = np.asarray(labels)
    most = classes or int(values.max(initial=0)) + 1
    if values.size == 0 or values.min() < 0 or values.max() >= most:
        raise ValueError(
            f"{who}: labels must be 0 … {most - 1}, got {values.min() if values.size else 'none'} … "
            f"{values.max() if values.size else 'none'}."
        )
    counts = np.bincount(values, minlength=most)
    if not counts.all():
        raise ValueError(
            f"{who}: every class must have a row, got none of class {counts.argmin()}; number the classes without gaps."
        )
    return labels, most, counts


def _classes(key: Any, labels: Any, classes: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The rows ordered by class, (n,), the start of each class, (C,), and its number of rows, (C,)."""
    order = sampling.by_class(key, labels)
    ends = jnp.searchsorted(labels[order], jnp.arange(classes + 1))
    return order, ends[:-1], jnp.diff(ends)
