"""Stretches of a series or a text."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks


def windows(series: Any, length: int, *, stride: int = 1) -> Any:
    """Every stretch of a series, or every `stride`-th of them.

    Formula: window_i = series[i·stride … i·stride + length − 1], i = 0 … ⌊(T − length)/stride⌋. For prediction take
    windows one longer: `part[:, :-1]` is the input, and `part[:, 1:]`, one step ahead, its target.

    Args:
      series: (T, …), numbers of a series or ids of a text.
      length: the length of a window, at most T.
      stride: how far apart windows begin. With `length`, they lie side by side.

    Returns:
      (N, length, …), N = ⌊(T − length)/stride⌋ + 1, in the dtype of series. Of a NumPy array it is a view, without a
      copy, that cannot be written to; of a jax array (also under jit) a new array.

    Raises:
      ValueError: length is above T, or below 1; stride is below 1.

    Example:
      >>> import fnnets as fn, numpy as np
      >>> fn.data.windows(np.arange(7), 3, stride=2).tolist()
      [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    """
    checks.positive("windows", length=length, stride=stride)
    if not isinstance(series, np.ndarray | jax.Array):
        series = checks.array("windows", series, "series")
    checks.rank("windows", series, 1, "series")
    if length > len(series):
        raise ValueError(
            f"windows: length must be at most that of the series, {len(series)}, got {length}; take shorter windows."
        )
    if isinstance(series, np.ndarray):
        view = np.lib.stride_tricks.sliding_window_view(series, length, axis=0)
        return np.moveaxis(view, -1, 1)[::stride]
    starts = jnp.arange(0, len(series) - length + 1, stride)
    return series[starts[:, None] + jnp.arange(length)]
