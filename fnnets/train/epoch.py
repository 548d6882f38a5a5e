"""A whole epoch, and a whole training, as pure functions: what `fit` runs, and what others run by vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer
from fnnets.core.time_order import examples_first
from fnnets.data import batches
from fnnets.data.examples import Examples
from fnnets.losses.loss import Loss
from fnnets.train import rows as r
from fnnets.train.evaluation import Metric, scores
from fnnets.train.state import State, order_key
from fnnets.train.step import plain_step
from fnnets.train.stopping import EarlyStopping


class Setting(NamedTuple):
    """How training is done; hashable, so that what was compiled for it is found again."""

    net: Layer
    loss: Loss
    updater: Any
    batch_size: int
    remainder: Any = "pad"
    replace: bool = False
    gradient: Any = "hand"
    penalty: Any = None
    clip: Any = None
    metrics: tuple[tuple[str, Metric], ...] = ()
    early_stopping: EarlyStopping | None = None


class Source(NamedTuple):
    """Where an epoch's batches come from."""

    take: Callable[[Any], Examples]  # indices (B,) -> a batch
    n: int  # the number of rows, which the batches' number follows from
    count: Any = None  # how many of them count; None: all


class Held(NamedTuple):
    """Examples that are not learned from, looked at after every epoch."""

    examples: Examples
    rows: Any = None  # (N,) bools, or None where all count


class Progress(NamedTuple):
    """What one epoch hands to the next."""

    state: State
    best: Any  # of early stopping; None without
    alive: jax.Array  # () bool; once False, the state stays as it is


class History(NamedTuple):
    """What was recorded in training; E epochs of S steps. Several models have their own leading axes.

    Attributes:
      steps: (…, E, S) the loss of every step, penalty included, before its update; NaN where a step was left out.
      loss: (…, E) the mean of each epoch's steps, weighted by the rows of each, or the places that the loss's mask
        leaves: with ignored labels or class weights not quite the mean over the epoch.
      validation: for "loss" and each metric, (…, E) after every epoch; {} without a validation.
    """

    steps: Any
    loss: Any
    validation: dict[str, Any]


def begin(setting: Setting, state: State) -> Progress:
    """Before the first epoch."""
    best = None if setting.early_stopping is None else setting.early_stopping.init(state.params)
    return Progress(state, best, jnp.ones((), bool))


def make_epoch(setting: Setting) -> Callable[[Progress, Source, Held | None], tuple[Progress, History]]:
    """One epoch: a `lax.scan` over its batches, then the validation.

    A step whose loss is not finite changes nothing, and no step after it does: the state is that before it. A batch
    without rows that count is no step. An epoch that ends with params that are not finite is the last, too.
    """
    examples_first("train", setting.net)
    advance = plain_step(
        setting.net, setting.loss, setting.updater,
        gradient=setting.gradient, penalty=setting.penalty, clip=setting.clip,
    )  # fmt: skip

    def epoch(progress: Progress, source: Source, held: Held | None) -> tuple[Progress, History]:
        start, best, alive = progress
        size, remainder, replace = setting.batch_size, setting.remainder, setting.replace
        plan = batches(
            order_key(start), source.n, size, replace=replace, remainder=remainder, count=source.count
        )

        def one(carry: Any, which: Any) -> tuple[Any, Any]:
            (state, alive), (index, rows) = carry, which
            batch = r.only(setting.net, state.params, source.take(index), rows)
            new, value = advance(state, batch)
            there = jnp.ones((), bool) if rows is None else rows.any()
            finite = jnp.isfinite(value)
            kept = _chosen(alive & there & finite, new, state)
            recorded = jnp.where(alive & there, value, jnp.nan)
            return (kept, alive & (finite | ~there)), (recorded, r.weight(batch))

        carry, (values, weights) = jax.lax.scan(one, (start, alive), (plan.rows, plan.mask))
        if plan.rest is not None:
            carry, (value, weight) = one(carry, (plan.rest, None))
            values, weights = jnp.append(values, value), jnp.append(weights, weight)
        state, alive = carry
        alive &= _all_finite(state.params)
        loss = jnp.where(weights > 0, values * weights, 0).sum() / weights.sum()
        found = {}
        if held is not None:
            found = scores(setting.net, setting.loss, setting.metrics, state.params, held.examples, held.rows)
            found = {name: jnp.where(alive, value, jnp.nan) for name, value in found.items()}
        if setting.early_stopping is not None:
            best = setting.early_stopping.update(best, state.params, found[setting.early_stopping.watch])
        state = state._replace(epoch=state.epoch + 1)
        return Progress(state, best, alive), History(values, loss, found)

    return epoch


def run(
    setting: Setting, epochs: int, state: State, source: Source, held: Held | None = None
) -> tuple[Any, Progress, History]:
    """A whole training as one scan over epochs: (params, progress, history). For one program with many models."""
    epoch = make_epoch(setting)

    def one(progress: Progress, _: None) -> tuple[Progress, History]:
        progress, found = epoch(progress, source, held)
        if setting.early_stopping is not None:
            progress = progress._replace(alive=progress.alive & ~progress.best.stop)
        return progress, found

    progress, history = jax.lax.scan(one, begin(setting, state), length=epochs)
    return kept_params(progress), progress, history


def kept_params(progress: Progress) -> Any:
    """The best params with early stopping, the last ones without."""
    return progress.state.params if progress.best is None else progress.best.params


def _chosen(new: jax.Array, if_true: State, if_false: State) -> State:
    """One of two states of the same training; its key is the same in both."""
    parts = [state._replace(key=None) for state in (if_true, if_false)]
    return jax.tree.map(lambda a, b: jnp.where(new, a, b), *parts)._replace(key=if_false.key)


def _all_finite(params: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves] or [jnp.ones((), bool)]).all()
