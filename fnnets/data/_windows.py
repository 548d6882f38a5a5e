"""Windows of a series or a text."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks


def windows(series: Any, length: int, *, stride: int = 1) -> Any:
    """Cuts a series into windows that begin every `stride` steps.

    Formula: window_i = series[i·stride … i·stride + length − 1], i = 0 … ⌊(T − length)/stride⌋. To predict one step
    ahead, make windows one step longer: `part[:, :-1]` is the input and `part[:, 1:]` its target.

    Args:
      series: (T, …), the numbers of a series or the ids of a text.
      length: the length of a window, at most T.
      stride: the distance between the starts of two windows. With `length`, windows do not overlap.

    Returns:
      (N, length, …), N = ⌊(T − length)/stride⌋ + 1, in the dtype of series. A NumPy array gives a read-only view, a
      jax array (also under jit) a new array.

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
