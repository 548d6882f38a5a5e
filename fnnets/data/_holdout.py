"""One split: a share of the rows is held out."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnnets.core import checks
from fnnets.data import sampling
from fnnets.data.split import Split


def holdout(key: Any, n: int, share: float = 0.3, *, labels: Any = None) -> Split:
    """Holds out a share of the rows for a test, 0.3 by default.

    Formula: b = round(share·n) rows are drawn without replacement, at least 1 and at most n − 1. With labels the
    rows are shuffled within their classes and ordered by class; row j of that order is held out where
    ⌊(j + 1)·b/n⌋ > ⌊j·b/n⌋. So ⌊c·b/n⌋ rows of a class of c rows are held out, or one more.

    Args:
      key: a random key.
      n: the number of rows.
      share: the share to hold out, in (0, 1).
      labels: (n,) integers; the same share of every class is then held out (stratified).

    Returns:
      A `Split(train (n − b,), test (b,))`. Works under jit with n and share static.

    Raises:
      TypeError: labels are not integers.
      ValueError: n is below 2; share is not between 0 and 1; there is not one label for each row; a class has only
        one row.

    Example:
      >>> import fnnets as fn, jax
      >>> train, test, *_ = fn.data.holdout(jax.random.key(0), 10)
      >>> train.shape, test.shape
      ((7,), (3,))
    """
    checks.positive("holdout", n=n)
    if n < 2:
        raise ValueError(f"holdout: n must be at least 2, got {n}; both parts need a row.")
    if not isinstance(share, float | int) or not 0 < share < 1:
        raise ValueError(
            f"holdout: share must lie between 0 and 1, got {share!r}; neither part may be empty."
        )
    held = min(max(round(share * n), 1), n - 1)
    places = np.arange(n)
    if labels is None:
        order, chosen = sampling.shuffled(key, n), places < held
    else:
        labels = sampling.checked_labels("holdout", labels, n)
        sampling.least_members("holdout", labels, 2, "remove that class, or pass no labels.")
        order, chosen = sampling.by_class(key, labels), (places + 1) * held // n > places * held // n
    return Split(order[places[~chosen]], order[places[chosen]])
