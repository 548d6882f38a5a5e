"""Where training met a value that is not finite."""

from __future__ import annotations

from typing import Any

from fnnets.insight.non_finite import NonFinite


class NonFiniteError(FloatingPointError):
    """Training met a loss, or params, that are not finite.

    Attributes:
      step: the step whose loss it was, counted from 0 over all epochs.
      epoch: its epoch, counted from 0.
      found: what `fn.locate_nan` found in that step: direction, layer, quantity, index (x counts within its batch), time
        step. False where the step's values are finite, and a penalty or the updater gave one that is not.
      fitted: what `fn.train.fit` would have returned: the params are those that the step began with.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> x = jnp.array([[1.0], [1e30]])
      >>> net, settings = fn.serial(fn.dense(1)), {"key": jax.random.key(0), "epochs": 3, "batch_size": 2}
      >>> try:
      ...     fn.train.fit(net, fn.losses.mse(), fn.updaters.sgd(0.1), (x, x), **settings)
      ... except fn.train.NonFiniteError as error:
      ...     error.step, error.found.direction, error.found.quantity
      (0, 'loss', 'per_example')
    """

    def __init__(self, step: int, epoch: int, found: NonFinite, fitted: Any) -> None:
        place = str(found) if found else "a penalty or the updater gave it, the network's values are finite"
        super().__init__(
            f"fit: a value was not finite at step {step} (epoch {epoch}): {place}; a smaller learning rate, or "
            "clip=1.0, often helps. error.fitted holds what the step began with."
        )
        self.step, self.epoch, self.found, self.fitted = step, epoch, found, fitted
