"""The error for a value in training that is not finite, and where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnnets.data.batching import batches
from fnnets.insight.locate import locate_nan
from fnnets.insight.non_finite import NonFinite
from fnnets.train.job import Job
from fnnets.train.rows import count_only
from fnnets.train.state import draw_key, order_key


class NonFiniteError(FloatingPointError):
    """A loss, or the params, are not finite.

    Attributes:
      step: the step, counted from 0 over all epochs.
      epoch: its epoch, counted from 0.
      found: what `fn.locate_nan` finds in that step: direction, layer, quantity, index (within the batch), time step.
        It is false if the network's values are finite; then a penalty or the updater gave the value.
      fitted: what `fn.train.fit` would have returned, with the params before that step.

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
        place = str(found) if found else "the network's values are finite, a penalty or the updater gave it"
        super().__init__(
            f"fit: a value was not finite at step {step} (epoch {epoch}): {place}; a smaller learning rate, or "
            "clip=1.0, often helps. error.fitted holds the params before the step."
        )
        self.step, self.epoch, self.found, self.fitted = step, epoch, found, fitted


def non_finite_error(job: Job, fitted: Any) -> NonFiniteError:
    """The error for a training whose last epoch was not finite; computes the step once more to find the place."""
    state, settings = fitted.state, job.settings
    losses = fitted.history.steps[-1]
    at = int(np.argmin(np.isfinite(losses))) if not np.isfinite(losses).all() else len(losses) - 1
    last = state._replace(epoch=state.epoch - 1)
    rows = job.placement.source(job.data.examples, job.data.layout).number
    plan = batches(
        order_key(last), rows, settings.batch_size, replace=settings.replace, remainder=settings.remainder
    )
    if at == len(plan.rows):
        index, counts = plan.rest, None
    else:
        index, counts = plan.rows[at], None if plan.mask is None else plan.mask[at]
    batch = count_only(settings.net, state.params, job.placement.batch(job.data, index), counts)
    found = locate_nan(
        settings.net, state.params, batch.x, batch.target, settings.loss,
        key=draw_key(state), train=True, mask=batch.mask, loss_mask=batch.loss_mask,
    )  # fmt: skip
    return NonFiniteError(int(last.epoch) * len(losses) + at, int(last.epoch), found, fitted)
