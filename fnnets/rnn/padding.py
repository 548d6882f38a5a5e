"""Sequences of different lengths in one array, and masks that separate the steps from the padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks


def length_mask(lengths: Any, steps: int) -> jax.Array:
    """Returns the mask of sequences that are padded at the end, from their lengths.

    Formula: mask_nt = (t < lengths_n), t = 0 … steps − 1.

    Args:
      lengths: (…) integers; they may be traced. A length above `steps` gives True everywhere.
      steps: the length of the time axis.

    Returns:
      Bools (…, steps), True where a step is valid.

    Raises:
      TypeError: lengths are not integers.
      ValueError: steps is below 1.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.length_mask(jnp.array([2, 0]), 3).tolist()
      [[True, True, False], [False, False, False]]
    """
    checks.positive("length_mask", steps=steps)
    return jnp.arange(steps) < checks.integers("length_mask", lengths, "lengths")[..., None]


def pad_sequences(
    sequences: Sequence[Any],
    length: int | None = None,
    value: Any = 0,
    side: Literal["right", "left"] = "right",
) -> tuple[np.ndarray, np.ndarray]:
    """Returns sequences of different lengths as one array with a mask.

    Args:
      sequences: B arrays (T_n, …) of one dtype, with the same shape after the time axis; T_n may be 0.
      length: the length T of the time axis; that of the longest sequence by default.
      value: the value of the padding.
      side: "right" puts the padding after each sequence, "left" before it.

    Returns:
      (array, mask) in NumPy: array (B, T, …) in the sequences' dtype, and mask (B, T), True where a step
      is valid.

    Raises:
      TypeError: dtypes differ.
      ValueError: there are no sequences; shapes differ after the time axis; a sequence is longer than `length`.

    Example:
      >>> import fnnets as fn, numpy as np
      >>> x, mask = fn.pad_sequences([np.array([1, 2, 3]), np.array([4])])
      >>> x.tolist(), mask.tolist()
      ([[1, 2, 3], [4, 0, 0]], [[True, True, True], [True, False, False]])

    Differences: Keras' `pad_sequences` by default pads on the left and silently cuts long sequences. PyTorch's
    `pad_sequence` pads on the right. Neither returns a mask.
    """
    checks.choice("pad_sequences", "side", side, ("right", "left"))
    arrays = _checked(sequences)
    longest = max(len(array) for array in arrays)
    steps = longest if length is None else length
    if longest > steps:
        which = next(n for n, array in enumerate(arrays) if len(array) > steps)
        raise ValueError(
            f"pad_sequences: sequence {which} has {len(arrays[which])} steps, but length is {steps}; cut it, or "
            "pass a larger length."
        )
    padded = np.full((len(arrays), steps, *arrays[0].shape[1:]), value, arrays[0].dtype)
    mask = np.zeros((len(arrays), steps), bool)
    for n, array in enumerate(arrays):
        at = slice(0, len(array)) if side == "right" else slice(steps - len(array), steps)
        padded[n, at], mask[n, at] = array, True
    return padded, mask


def _checked(sequences: Sequence[Any]) -> list[np.ndarray]:
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("pad_sequences: there must be at least one sequence, got none.")
    for n, array in enumerate(arrays):
        name = f"sequence {n}"
        checks.rank("pad_sequences", array, 1, name)
        remedy = "as in sequence 0; give all sequences the same shape after the time axis."
        checks.same_shape("pad_sequences", f"a step of {name}", array.shape[1:], arrays[0].shape[1:], remedy)
        if array.dtype != arrays[0].dtype:
            raise TypeError(
                f"pad_sequences: {name} must have dtype {arrays[0].dtype}, as sequence 0 has, got {array.dtype}; "
                "convert it."
            )
    return arrays
