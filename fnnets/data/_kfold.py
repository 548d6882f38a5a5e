"""Every row tested once: k folds."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.data import sampling
from fnnets.data.split import Split


def kfold(key: Any, n: int, k: int = 10, *, labels: Any = None) -> Split:
    """k parts of the rows; each is the test once, while the others are learned from.

    Formula: the rows are shuffled and dealt out like cards: row j of that order belongs to fold j mod k. With labels
    they are shuffled within their classes and laid out class by class before, so that the folds' numbers of rows of a
    class differ by at most one, as those of all rows do.

    Args:
      key: a random key.
      n: the number of rows.
      k: the number of folds, from 2 to n; with k = n each row is a fold (leave one out).
      labels: (n,) integers; every fold then has each class in equal shares (stratified).

    Returns:
      A `Split(train (k, a), test (k, b), train_mask, test_mask)`; the masks are None where k divides n. Works under jit
      with n and k static.

    Raises:
      TypeError: labels are no integers.
      ValueError: k is above n, or below 2; labels are not one for each row, or a class has fewer than k rows.

    Example:
      >>> import fnnets as fn, jax
      >>> folds = fn.data.kfold(jax.random.key(0), 9, 3)
      >>> folds.train.shape, sorted(folds.test.ravel().tolist())
      ((3, 6), [0, 1, 2, 3, 4, 5, 6, 7, 8])

    Differences: scikit-learn's `StratifiedKFold` warns of a class with fewer than k rows, here it is an error.
    """
    checks.positive("kfold", n=n, k=k)
    if not 2 <= k <= n:
        raise ValueError(
            f"kfold: k must be at least 2 and at most n = {n}, got {k}; no fold may be without a row."
        )
    if labels is None:
        order = sampling.shuffled(key, n)
    else:
        labels = sampling.checked_labels("kfold", labels, n)
        why = f"k={k} folds cannot all have one. Take fewer folds, or leave labels out."
        sampling.least_members("kfold", labels, k, why)
        order = sampling.by_class(key, labels)
    fold = np.arange(n) % k
    train, train_mask = _rows([np.flatnonzero(fold != i) for i in range(k)])
    test, test_mask = _rows([np.flatnonzero(fold == i) for i in range(k)])
    return Split(order[train], order[test], train_mask, test_mask)


def _rows(parts: list[np.ndarray]) -> tuple[np.ndarray, Any]:
    """Lists of places as the rows of one array; the shorter ones filled up with their first, and masked there."""
    longest = max(map(len, parts))
    mask = np.arange(longest) < np.array([[len(part)] for part in parts])
    filled = np.stack([np.pad(part, (0, longest - len(part)), constant_values=part[0]) for part in parts])
    return filled, None if mask.all() else jnp.asarray(mask)
