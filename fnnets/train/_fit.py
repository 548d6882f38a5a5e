"""Training from beginning to end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.layer import Layer
from fnnets.data.batching import Remainder, batches
from fnnets.data.examples import checked
from fnnets.insight.locate import locate_nan
from fnnets.losses.loss import Loss
from fnnets.saving import Checkpoints
from fnnets.train import mesh as m
from fnnets.train import rows as r
from fnnets.train.epoch import Held, History, Progress, Setting, begin, kept_params, make_epoch
from fnnets.train.evaluation import Metric, named_metrics
from fnnets.train.interrupts import waiting
from fnnets.train.non_finite import NonFiniteError
from fnnets.train.progress import bar
from fnnets.train.resume import resumed, stacked
from fnnets.train.shared import Layout, anyone, looked_up, placed, share, source
from fnnets.train.state import State, check_memory, draw_key, order_key, start
from fnnets.train.step import Gradient, check_parts
from fnnets.train.stopping import EarlyStopping, check_watched


class Fitted(NamedTuple):
    """A trained network.

    Attributes:
      params: the best params with early stopping, the last ones without.
      state: where training stands, to go on from: `fit(…, state=fitted.state)`.
      history: what was recorded, in NumPy.
      stopped: why training ended: "epochs" (all were done), "early" (by early stopping) or "interrupted" (by Ctrl-C).
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
    """Trains a network, epoch by epoch; each is one `lax.scan` over its batches, and all are one compiled program.

    Formula: for every batch of every epoch, the step of `fn.train.make_step`. The batches are those of
    `fn.data.batches`, another order every epoch.

    Args:
      net: any network.
      loss: a `Loss`, such as `fn.losses.mse()`.
      updater: an `optax.GradientTransformation`, such as `fn.updaters.adam(1e-3)`; its schedules count steps.
      examples: what is learned from: `fn.data.Examples`, or a tuple (x, target).
      epochs: how many more epochs; with checkpoints, how many in all.
      key: the key of the whole training: params, batches and dropout. Not needed with a state.
      state: where to go on from, of an earlier `fit` or from `fn.train.start`; it is not changed.
      batch_size: the number of examples in a step.
      remainder: what is done with what is left of an epoch: "pad" fills the last batch up under masks (the gradient is
        that of the smaller batch; layers with moving statistics need to take a mask), "keep" makes a smaller
        batch of it, "drop" leaves it out.
      replace: whether the rows of a batch are drawn with replacement.
      gradient: "hand" or "autodiff".
      penalty: a `Penalty`, or None.
      clip: the largest norm of the gradient, or None.
      validation: examples that are looked at after every epoch, at inference; those that choices are made with, not
        the test's.
      metrics: functions `(y, target) -> (…)` by name, whose means over the validation are recorded too.
      early_stopping: from `fn.train.early_stopping`; it watches the validation.
      checkpoints: from `fn.train.checkpoints`: where training stands is saved there while it goes on, and the same call
        made again goes on from the newest one, bit for bit. None saves nothing.
      mesh: a `jax.sharding.Mesh` with one axis, among whose devices every batch is shared. The params are the same, up to
        rounding, as on one device: statistics of a batch are those of the whole batch, and dropout draws the same.
        Each device holds its part of the examples and all of the state. Of several processes
        (`jax.distributed.initialize`), each gives rows of its own, and all get the same result; the rows are
        counted from those of process 0 on.
      progress: whether a bar is shown on a terminal. It is tqdm's; without tqdm, and elsewhere, there is none.

    Returns:
      A `Fitted(params, state, history, stopped)`. Ctrl-C ends training after the epoch that is being computed; a second
      one interrupts at once.

    Raises:
      CheckpointError: a checkpoint is damaged, or of another training (its text names what differs), or cannot be saved.
      ImportError: there are checkpoints, and orbax-checkpoint is not installed.
      NonFiniteError: a loss was NaN or ±∞, or the params of an epoch's end are; it says at which step, and in which
        layer. A `FloatingPointError`.
      TypeError: examples are no such tuple, or mesh is no mesh.
      ValueError: a batch is larger than the data, or the devices do not divide it; processes differ in more than rows;
        neither key nor state is given, or both; early stopping watches what is not there; what the layers and the
        loss raise.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (300, 2))
      >>> target = (x[:, 0] * x[:, 1] > 0).astype(int)
      >>> train, rest, *_ = fn.data.holdout(jax.random.key(1), 300, labels=target)
      >>> found = fn.train.fit(
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
      >>> bool(found.history.validation["accuracy"].max() > 0.9)
      True
    """
    checks.positive("fit", epochs=epochs, batch_size=batch_size)
    check_parts("fit", net, loss, updater, penalty, clip)
    if (key is None) == (state is None):
        raise ValueError("fit: give either a key, to begin with, or a state, to go on from.")
    if not isinstance(state, State | None):
        raise TypeError(
            f"fit: state must be a State, from fn.train.start or a fit's fitted.state, got {type(state).__name__}."
        )
    mesh = None if mesh is None else m.checked_mesh("fit", mesh)
    array = jnp.asarray if mesh is None else m.as_it_is
    examples, held = checked("fit", examples, array=array), None
    if validation is not None:
        held = Held(checked("fit", validation, "validation", array))
    given = named_metrics("fit", metrics)
    check_watched("fit", early_stopping, given, held)
    setting = Setting(
        net, loss, updater, batch_size, remainder, replace, gradient, penalty, clip, given, early_stopping
    )
    if state is not None:
        check_memory("fit", updater, state)
    # A copy: the state's buffers will be used again.
    state = start(net, updater, examples.x, key) if state is None else jax.tree.map(jnp.copy, state)
    now, where, home = begin(setting, state), None, lambda now: now
    data = alone = examples, held
    if mesh is not None:
        where, data, alone = share(mesh, setting, epochs, state, examples, held)
        home = functools.partial(m.home, mesh)
    epoch = compiled(setting, where)
    with (
        waiting() as interrupted,
        resumed(checkpoints, setting, epoch, epochs, now, data, alone, home) as (now, records, save),
    ):
        done = 0 if checkpoints is None else int(now.state.epoch)
        alive, stop = True, now.best is not None and bool(now.best.stop)
        stopped = "early" if stop else "epochs"
        if mesh is not None:
            now = placed(mesh, now)
        with bar(epochs, progress and (mesh is None or m.leads(mesh)), done) as tick:
            while done < epochs and stopped == "epochs":
                with m.active(mesh):
                    now, record = epoch(now, *data)
                record, alive, stop = jax.device_get(
                    (record, now.alive, now.best is not None and now.best.stop)
                )
                records.append(record)
                if not alive:
                    break
                done += 1
                tick({"loss": record.loss, **{f"held-out {k}": v for k, v in record.validation.items()}})
                if anyone(where, interrupted) or stop:
                    stopped = "early" if stop else "interrupted"
                save(now, records, done == epochs or stopped != "epochs")
    history, now = stacked(records), home(now)
    fitted = Fitted(kept_params(now), now.state, history, stopped)
    if not alive:
        raise _non_finite(setting, where, data[0], fitted)
    return fitted


@functools.lru_cache(maxsize=16)
def compiled(setting: Setting, where: Layout | None = None) -> Callable[..., tuple[Progress, History]]:
    """An epoch of `make_epoch`, compiled: found again by the next fit with the same setting."""
    epoch = make_epoch(setting)

    def on_examples(progress: Progress, examples: Any, held: Any) -> tuple[Progress, History]:
        return epoch(progress, source(examples, where), held)

    ends = None if where is None else m.everywhere(where.mesh)
    return jax.jit(on_examples, donate_argnums=0, out_shardings=ends)


def _non_finite(setting: Setting, where: Layout | None, examples: Any, fitted: Fitted) -> NonFiniteError:
    """The error, with the place found by computing the step once more."""
    state = fitted.state
    losses = fitted.history.steps[-1]
    at = int(np.argmin(np.isfinite(losses))) if not np.isfinite(losses).all() else len(losses) - 1
    last = state._replace(epoch=state.epoch - 1)
    n, size = source(examples, where).n, setting.batch_size
    plan = batches(order_key(last), n, size, replace=setting.replace, remainder=setting.remainder)
    index, rows = (
        (plan.rest, None)
        if at == len(plan.rows)
        else (plan.rows[at], None if plan.mask is None else plan.mask[at])
    )
    batch = r.only(setting.net, state.params, looked_up(where, examples, index), rows)
    found = locate_nan(
        setting.net, state.params, batch.x, batch.target, setting.loss,
        key=draw_key(state), train=True, mask=batch.mask, loss_mask=batch.loss_mask,
    )  # fmt: skip
    return NonFiniteError(int(last.epoch) * len(losses) + at, int(last.epoch), found, fitted)
