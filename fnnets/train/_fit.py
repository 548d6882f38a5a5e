"""Trains a network from beginning to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from fnnets.core import checks
from fnnets.core.layer import Layer
from fnnets.data.batching import Remainder
from fnnets.losses.loss import Loss
from fnnets.saving import Checkpoints
from fnnets.train._progress_bar import progress_bar
from fnnets.train.epoch import History, begin, checked_data
from fnnets.train.evaluation import Metric
from fnnets.train.interrupts import delayed_interrupt
from fnnets.train.job import Job
from fnnets.train.non_finite import non_finite_error
from fnnets.train.placement import compiled_epoch, placement_on
from fnnets.train.resume import resumed, stack_records
from fnnets.train.settings import checked_settings
from fnnets.train.state import State, start_or_continue
from fnnets.train.step import Gradient
from fnnets.train.stopping import EarlyStopping


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
      params: the best params with early stopping, the last ones without.
      state: the state after the last epoch; continue with `fit(…, state=fitted.state)`.
      history: the losses and metrics, in NumPy.
      stopped: why training ended: "epochs" (all done), "early" (early stopping), "interrupted" (Ctrl-C), or, in a
        `NonFiniteError`, "not finite".
    """

    params: Any
    state: State
    history: History
    stopped: str


def fit(
    net: Layer,
    loss: Loss,
    updater: Any,
    examples: Any,
    *,
    epochs: int,
    key: Any = None,
    state: State | None = None,
    batch_size: int = 32,
    remainder: Remainder = "pad",
    replace: bool = False,
    gradient: Gradient = "hand",
    penalty: Any = None,
    clip: Any = None,
    validation: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    early_stopping: EarlyStopping | None = None,
    checkpoints: Checkpoints | None = None,
    mesh: Any = None,
    progress: bool = True,
) -> Fitted:
    """Trains a network: the step of `fn.train.make_step` for every batch of every epoch.

    An epoch is one compiled program, and every epoch shuffles the batches again. Ctrl-C ends training after the current
    epoch, a second Ctrl-C at once.

    Args:
      net: any network.
      loss: a `Loss`, such as `fn.losses.mse()`.
      updater: an `optax.GradientTransformation`, such as `fn.updaters.adam(1e-3)`; its schedules count steps.
      examples: the examples to learn from: `fn.data.Examples`, or a tuple (x, target).
      epochs: the number of further epochs; with checkpoints, the number of all epochs.
      key: the key for params, batches and dropout. Pass either a key or a state.
      state: the state to continue from, of an earlier `fit` or from `fn.train.start`; it is not changed.
      batch_size: the number of examples in a step.
      remainder: what happens to the examples left over in an epoch: "pad" fills the last batch and masks the padding
        (layers with moving statistics must then take a mask), "keep" makes them a smaller batch, "drop" leaves them
        out.
      replace: whether the rows of a batch are drawn with replacement.
      gradient: "hand" or "autodiff".
      penalty: a `Penalty`, or None.
      clip: the largest norm of the gradient, or None.
      validation: examples to evaluate after every epoch, at inference. They guide choices; keep test examples apart.
      metrics: functions `(y, target) -> (…)` by name; their means over the validation are recorded too.
      early_stopping: from `fn.train.early_stopping`; it watches the validation.
      checkpoints: from `fn.train.checkpoints`; the same call made again continues from the newest one, bit for bit.
        None saves nothing.
      mesh: a `jax.sharding.Mesh` with one axis, whose devices share every batch. Up to rounding, the params are those
        of one device. With several processes (`jax.distributed.initialize`), each passes its own rows, and all get
        the same result; rows are numbered from those of process 0 on.
      progress: whether to show a progress bar on a terminal, if tqdm is installed.

    Returns:
      A `Fitted(params, state, history, stopped)`.

    Raises:
      CheckpointError: a checkpoint is damaged, belongs to another training, or cannot be saved.
      ImportError: checkpoints need orbax-checkpoint, and it is not installed.
      NonFiniteError: a loss, or the params after an epoch, are not finite; it names the step and the layer.
      TypeError: an argument has the wrong type.
      ValueError: an argument has a wrong value; processes disagree; what the layers and the loss raise.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (300, 2))
      >>> target = (x[:, 0] * x[:, 1] > 0).astype(int)
      >>> train, rest, *_ = fn.data.holdout(jax.random.key(1), 300, labels=target)
      >>> fitted = fn.train.fit(
      ...     fn.serial(fn.dense(16), fn.tanh(), fn.dense(2)),
      ...     fn.losses.softmax_cross_entropy(),
      ...     fn.updaters.adam(0.02),
      ...     fn.data.take((x, target), train),
      ...     epochs=60,
      ...     key=jax.random.key(2),
      ...     validation=fn.data.take((x, target), rest),
      ...     metrics={"accuracy": fn.train.accuracy},
      ...     early_stopping=fn.train.early_stopping(20),
      ... )
      >>> bool(fitted.history.validation["accuracy"].max() > 0.9)
      True
    """
    checks.positive("fit", epochs=epochs)
    settings = checked_settings(
        "fit", net, loss, updater,
        batch_size=batch_size, remainder=remainder, replace=replace, gradient=gradient, penalty=penalty, clip=clip,
        metrics=metrics, early_stopping=early_stopping, validated=validation is not None,
    )  # fmt: skip
    placement = placement_on("fit", mesh)
    examples, held_out = checked_data("fit", examples, validation, placement.as_array)
    state = start_or_continue("fit", net, updater, examples.x, key, state)
    data = placement.place(settings, epochs, state, examples, held_out)
    job = Job(settings, placement, data, compiled_epoch(settings, placement, data.layout))
    with (
        delayed_interrupt() as interrupted,
        resumed(checkpoints, job, epochs, begin(settings, state)) as (training, records, save),
    ):
        left = epochs - len(records) - (0 if checkpoints is None else int(state.epoch))
        ended = _ended(True, training.stops, False, left)
        training = placement.replicate(training)
        with progress_bar(epochs, left, progress and placement.leads) as show:
            while not ended:
                training, record = job.run_epoch(training)
                record, alive, stops = jax.device_get((record, training.alive, training.stops))
                records.append(record)
                left -= 1
                ended = _ended(alive, stops, placement.in_any_process(interrupted()), left)
                if alive:
                    show(record)
                    save(training, records, bool(ended))
    training = placement.gather(training)
    fitted = Fitted(training.params, training.state, stack_records(records), ended)
    if ended == "not finite":
        raise non_finite_error(job, fitted)
    return fitted


def _ended(alive: Any, stops: Any, interrupted: bool, left: int) -> str:
    """Why training ends here; empty if it continues."""
    if not alive:
        return "not finite"
    if stops:
        return "early"
    if interrupted:
        return "interrupted"
    return "" if left else "epochs"
