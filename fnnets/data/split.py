"""A split of data: indices of the rows to train with, and of the rows to test with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np


class Split(NamedTuple):
    """Rows to train with and rows to test with, of one split or several.

    Arrays have static shapes. Where parts differ in size, the shorter ones are padded at their end with rows whose
    mask is False.

    Attributes:
      train: (…, a) integers, rows to train with; the leading axes number the splits.
      test: (…, b) integers, rows to test with.
      train_mask: (…, a) bools, or None if all rows count.
      test_mask: (…, b) bools, or None if all rows count.

    Example:
      >>> import fnnets as fn, jax
      >>> folds = fn.data.kfold(jax.random.key(0), 10, 3)
      >>> [(len(train), len(test)) for train, test in folds.each()]
      [(6, 4), (7, 3), (7, 3)]
    """

    train: jax.Array
    test: jax.Array
    train_mask: jax.Array | None = None
    test_mask: jax.Array | None = None

    def each(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The (train, test) of each split in NumPy, without padding; not under jit."""

        def parts(index: Any, mask: Any) -> Iterator[np.ndarray]:
            index = np.asarray(index)
            mask = np.ones(index.shape, bool) if mask is None else np.asarray(mask)
            rows = zip(index.reshape(-1, index.shape[-1]), mask.reshape(-1, index.shape[-1]), strict=True)
            return (row[counts] for row, counts in rows)

        return zip(parts(self.train, self.train_mask), parts(self.test, self.test_mask), strict=True)
