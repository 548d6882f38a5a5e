"""Where a loss that is not finite came from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.contract import Layer
from fnnets.data import Examples
from fnnets.observe import intermediates


class NonFiniteError(FloatingPointError):
    """Training met a loss, or params, that are not finite.

    Attributes:
      step: the step whose loss it was, counted from 0 over all epochs.
      epoch: its epoch, counted from 0.
      place: where the first value that is not finite was found, such as "what 2.dense gave", or "params[0].w, after
        an update".
      fitted: what `fn.train.fit` would have returned: the params are those that the step began with.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> x = jnp.array([[1.0], [1e30]])
      >>> net, settings = fn.serial(fn.dense(1)), {"key": jax.random.key(0), "epochs": 3, "batch_size": 2}
      >>> try:
      ...     fn.train.fit(net, fn.losses.mse(), fn.updaters.sgd(0.1), (x, x), **settings)
      ... except fn.train.NonFiniteError as error:
      ...     error.step, error.place
      (0, 'the loss')
    """

    def __init__(self, step: int, epoch: int, place: str, fitted: Any) -> None:
        super().__init__(
            f"fit: a value was not finite at step {step} (epoch {epoch}), first of all {place}; a smaller learning "
            "rate, or clip=1.0, often helps. error.fitted holds what the step began with."
        )
        self.step, self.epoch, self.place, self.fitted = step, epoch, place, fitted


def place(net: Layer, params: Any, batch: Examples, key: Any) -> str:
    """Where the first value that is not finite stands, in the order of the computation."""
    if batch.mask is None and (bad := _first(batch.x)) is not None:
        return f"x{bad}, the input"
    if (bad := _first(params)) is not None:
        return f"params{bad}, after an update"
    found = intermediates(net, params, batch.x, key=key, train=True, mask=batch.mask)
    return next((f"what {path} gave" for path, y in found.items() if _first(y) is not None), "the loss")


def _first(tree: Any) -> str | None:
    """The path of the first array that holds NaN or ±∞; None where none does."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not jnp.isfinite(leaf).all():
            return jax.tree_util.keystr(path)
    return None
