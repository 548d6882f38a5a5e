"""The inputs of a decoder in training: the targets, shifted by one step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks, masks


def shift_right(targets: Any, first: Any) -> jax.Array:
    """Shifts targets one step later, with `first` in front: the inputs of teacher forcing.

    Formula: y_0 = first, y_t = targets_{t−1}.

    Args:
      targets: (…, T) integers, or (…, T, D) floats.
      first: the step before the first target, such as a start id or 0; it broadcasts to (…) or (…, D).

    Returns:
      An array of the shape and dtype of targets. It does not contain the last target.

    Raises:
      ValueError: targets do not have a time axis.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.shift_right(jnp.array([[5, 6, 7]]), 1).tolist()
      [[1, 5, 6]]

    References:
      Williams & Zipser, A learning algorithm for continually running fully recurrent neural networks, Neural
      Computation 1 (1989), "teacher-forced learning".
    """
    targets = checks.array("shift_right", targets, "targets")
    axis = masks.time_axis("shift_right", targets, "targets")
    before = jnp.expand_dims(jnp.asarray(first, targets.dtype), axis) if jnp.ndim(first) else first
    start = jnp.broadcast_to(before, jax.lax.slice_in_dim(targets, 0, 1, axis=axis).shape)
    kept = jax.lax.slice_in_dim(targets, 0, targets.shape[axis] - 1, axis=axis)
    return jnp.concatenate([start.astype(targets.dtype), kept], axis)
