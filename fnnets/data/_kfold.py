"""k folds: every row is tested once."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.data import sampling
from fnnets.data.split import Split


def kfold(key: Any, n: int, k: int = 10, *, labels: Any = None) -> Split:
    """Splits the rows into k folds; each fold is the test once, and the others train.

    Formula: the rows are shuffled, and row j of that order belongs to fold j mod k. With labels the rows are shuffled
    within their classes and ordered by class. The sizes of the folds then differ by at most one row, both in each
    class and in total.

    Args:
      key: a random key.
      n: the number of rows.
      k: the number of folds, from 2 to n; with k = n each row is a fold (leave one out).
      labels: (n,) integers; every fold then has the same share of each class (stratified).

    Returns:
      A `Split(train (k, a), test (k, b), train_mask, test_mask)`; the masks are None where k divides n. Works under jit
      with n and k static.

    Raises:
      TypeError: labels are not integers.
      ValueError: k is above n, or below 2; there is not one label for each row; a class has fewer than k rows.

    Example:
      >>> import fnnets as fn, jax
      >>> folds = fn.data.kfold(jax.random.key(0), 9, 3)
      >>> folds.train.shape, sorted(folds.test.ravel().tolist())
      ((3, 6), [0, 1, 2, 3, 4, 5, 6, 7, 8])

    Differences: scikit-learn's `StratifiedKFold` warns of a class with fewer than k rows; here it is an error.
    """
    checks.positive("kfold", n=n, k=k)
    if not 2 <= k <= n:
        raise ValueError(f"kfold: k must be at least 2 and at most n = {n}, got {k}; every fold needs a row.")
    if labels is None:
        order = sampling.shuffled(key, n)
    else:
        labels = sampling.checked_labels("kfold", labels, n)
        remedy = f"k={k} folds need one each. Take fewer folds, or pass no labels."
        sampling.least_members("kfold", labels, k, remedy)
        order = sampling.by_class(key, labels)
    fold = np.arange(n) % k
    train, train_mask = _rows([np.flatnonzero(fold != i) for i in range(k)])
    test, test_mask = _rows([np.flatnonzero(fold == i) for i in range(k)])
    return Split(order[train], order[test], train_mask, test_mask)


def _rows(parts: list[np.ndarray]) -> tuple[np.ndarray, Any]:
    """Index lists as the rows of one array; the shorter ones are padded with their first index, under a mask."""
    longest = max(map(len, parts))
    mask = np.arange(longest) < np.array([[len(part)] for part in parts])
    padded = np.stack([np.pad(part, (0, longest - len(part)), constant_values=part[0]) for part in parts])
    return padded, None if mask.all() else jnp.asarray(mask)
