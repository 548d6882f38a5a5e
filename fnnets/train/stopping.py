"""Early stopping: a state machine that remembers the best parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks


class Best(NamedTuple):
    """What early stopping remembers."""

    params: Any  # those of the best value so far
    value: jax.Array  # () the best value; ∞ (or −∞) before the first
    epoch: jax.Array  # () int32, the number of values seen up to the best one; 0 before the first
    seen: jax.Array  # () int32, the number of values seen
    stop: jax.Array  # () bool; once True, nothing changes


class EarlyStopping(NamedTuple):
    """Early stopping as pure functions.

    Attributes:
      init: `(params) -> Best`, before the first value; params are copied.
      update: `(best, params, value) -> Best`, after every epoch. Works under jit, vmap and scan.
      watch: the name of the value that `fn.train.fit` passes to update: "loss", or the name of a metric.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> early = fn.train.early_stopping(patience=2)
      >>> best = early.init(jnp.zeros(1))
      >>> for epoch, value in enumerate([3.0, 1.0, 2.0, 1.5, 0.0], 1):
      ...     best = early.update(best, jnp.full(1, epoch), value)
      >>> float(best.value), int(best.epoch), best.params.tolist(), bool(best.stop)
      (1.0, 2, [2.0], True)
    """

    init: Callable[[Any], Best]
    update: Callable[[Best, Any, Any], Best]
    watch: str


def early_stopping(
    patience: int = 10, *, least: float = 0.0, watch: str = "loss", larger_is_better: bool = False
) -> EarlyStopping:
    """Stops when a value has not improved for some epochs, and keeps the params of the best epoch.

    Formula: a value is better if value < best − least (or value > best + least). Training stops after epoch e if
    e − e_best ≥ patience. NaN is never better.

    Args:
      patience: the number of epochs to wait for a better value.
      least: the smallest improvement that counts, at least 0.
      watch: the value to watch: "loss" of the validation, or the name of a metric.
      larger_is_better: whether larger values are better, as for an accuracy.

    Returns:
      An `EarlyStopping(init, update, watch)`.

    Raises:
      ValueError: patience is below 1, or least below 0.

    Example:
      >>> import fnnets as fn
      >>> fn.train.early_stopping(20, watch="accuracy", larger_is_better=True).watch
      'accuracy'

    References:
      Prechelt, Early stopping – but when? (1998).

    Differences: Prechelt's UP_s stops when the value has become worse s times in a row. Here the best value must be
    `patience` epochs old, as in Keras. Keras returns the last params by default; here they are the best ones.
    """
    checks.positive("early_stopping", patience=patience)
    if not isinstance(least, int | float) or not least >= 0:
        raise ValueError(f"early_stopping: least must be a number of at least 0, got {least!r}.")
    sign = -1 if larger_is_better else 1

    def init(params: Any) -> Best:
        dtype = jnp.result_type(float)
        counts = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        value = jnp.full((), sign * jnp.inf, dtype)
        return Best(jax.tree.map(jnp.copy, params), value, *counts, jnp.zeros((), bool))

    def update(best: Best, params: Any, value: Any) -> Best:
        value = jnp.asarray(value, best.value.dtype)
        better = (sign * value < sign * best.value - least) & ~best.stop
        seen = jnp.where(best.stop, best.seen, best.seen + 1)
        epoch = jnp.where(better, seen, best.epoch)
        kept = jax.tree.map(
            lambda new, old: jnp.where(better, new, old).astype(old.dtype), params, best.params
        )
        return Best(
            kept, jnp.where(better, value, best.value), epoch, seen, best.stop | (seen - epoch >= patience)
        )

    return EarlyStopping(init, update, watch)


def check_watched(
    caller: str, early_stopping: EarlyStopping | None, metrics: Sequence[str], validated: bool
) -> None:
    """Refuses early stopping without a validation, or on a value that is neither "loss" nor one of the metrics."""
    if early_stopping is None:
        return
    if not isinstance(early_stopping, EarlyStopping):
        got = type(early_stopping).__name__
        raise TypeError(
            f"{caller}: early_stopping must be made by fn.train.early_stopping(patience), got {got}."
        )
    if not validated:
        raise ValueError(f"{caller}: early stopping watches the validation, got validation=None; pass one.")
    checks.choice(caller, "early_stopping.watch", early_stopping.watch, ("loss", *metrics))
