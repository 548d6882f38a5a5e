"""An epoch and a whole training as pure functions: `fit` runs epochs; ensembles and sweeps run trainings by vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.data import batches
from fnnets.data.examples import Examples, checked
from fnnets.train.evaluation import scores
from fnnets.train.rows import batch_weight, count_only
from fnnets.train.settings import Settings
from fnnets.train.state import State, order_key
from fnnets.train.step import plain_step


class BatchSource(NamedTuple):
    """Where an epoch's batches come from."""

    take: Callable[[Any], Examples]  # indices (B,) -> a batch
    number: int  # the number of rows, which sets the number of batches
    count: Any = None  # the number of rows that count; None: all


class Validation(NamedTuple):
    """Examples to evaluate after every epoch, not to learn from."""

    examples: Examples
    rows: Any = None  # (N,) bools, or None if all count


class Training(NamedTuple):
    """A training between two epochs: what one epoch passes to the next."""

    state: State
    best: Any  # the `Best` of early stopping; None without
    alive: jax.Array  # () bool; once False, the state no longer changes

    @property
    def stops(self) -> Any:
        """Whether early stopping ends the training, () bool."""
        return False if self.best is None else self.best.stop

    @property
    def params(self) -> Any:
        """The best params with early stopping, the last ones without."""
        return self.state.params if self.best is None else self.best.params


class History(NamedTuple):
    """The record of a training of E epochs with S steps each. Several models have leading axes.

    Attributes:
      steps: (…, E, S) the loss of every step before its update, penalty included; NaN where a step was skipped.
      loss: (…, E) the mean over each epoch's steps, weighted by their rows, or by the places that count in the loss's
        mask. With ignored labels or class weights this is not exactly the mean over the epoch.
      validation: for "loss" and each metric, (…, E) after every epoch; {} without a validation.
    """

    steps: Any
    loss: Any
    validation: dict[str, Any]


def checked_data(
    caller: str, examples: Any, validation: Any, as_array: Callable[[Any], Any] = jnp.asarray
) -> tuple[Examples, Validation | None]:
    """The user's examples and validation as arrays; the validation may be None."""
    examples = checked(caller, examples, array=as_array)
    if validation is None:
        return examples, None
    return examples, Validation(checked(caller, validation, "validation", as_array))


def begin(settings: Settings, state: State) -> Training:
    """The training before its first epoch."""
    best = None if settings.early_stopping is None else settings.early_stopping.init(state.params)
    return Training(state, best, jnp.ones((), bool))


def make_epoch(
    settings: Settings,
) -> Callable[[Training, BatchSource, Validation | None], tuple[Training, History]]:
    """Makes an epoch: a `lax.scan` over its batches, then the validation.

    A step whose loss is not finite changes nothing, and neither do the steps after it. A batch without rows that count
    is skipped. An epoch that ends with params that are not finite is the last one.
    """
    advance = plain_step(
        settings.net, settings.loss, settings.updater,
        gradient=settings.gradient, penalty=settings.penalty, clip=settings.clip,
    )  # fmt: skip

    def epoch(
        training: Training, source: BatchSource, validation: Validation | None
    ) -> tuple[Training, History]:
        start, best, alive = training
        size, remainder, replace = settings.batch_size, settings.remainder, settings.replace
        plan = batches(
            order_key(start), source.number, size, replace=replace, remainder=remainder, count=source.count
        )

        def one(carry: Any, which: Any) -> tuple[Any, Any]:
            (state, alive), (index, rows) = carry, which
            batch = count_only(settings.net, state.params, source.take(index), rows)
            new, value = advance(state, batch)
            counts = jnp.ones((), bool) if rows is None else rows.any()
            finite = jnp.isfinite(value)
            kept = _chosen(alive & counts & finite, new, state)
            recorded = jnp.where(alive & counts, value, jnp.nan)
            return (kept, alive & (finite | ~counts)), (recorded, batch_weight(batch))

        carry, (values, weights) = jax.lax.scan(one, (start, alive), (plan.rows, plan.mask))
        if plan.rest is not None:
            carry, (value, weight) = one(carry, (plan.rest, None))
            values, weights = jnp.append(values, value), jnp.append(weights, weight)
        state, alive = carry
        alive &= _all_finite(state.params)
        loss = jnp.where(weights > 0, values * weights, 0).sum() / weights.sum()
        held_out = {}
        if validation is not None:
            held_out = scores(
                settings.net,
                settings.loss,
                settings.metrics,
                state.params,
                validation.examples,
                validation.rows,
            )
            held_out = {name: jnp.where(alive, value, jnp.nan) for name, value in held_out.items()}
        if settings.early_stopping is not None:
            best = settings.early_stopping.update(best, state.params, held_out[settings.early_stopping.watch])
        state = state._replace(epoch=state.epoch + 1)
        return Training(state, best, alive), History(values, loss, held_out)

    return epoch


def train_epochs(
    settings: Settings, epochs: int, state: State, source: BatchSource, validation: Validation | None = None
) -> tuple[Training, History]:
    """A whole training as one scan over epochs, for a program with many models."""
    epoch = make_epoch(settings)

    def one(training: Training, _: None) -> tuple[Training, History]:
        training, record = epoch(training, source, validation)
        if settings.early_stopping is not None:
            training = training._replace(alive=training.alive & ~training.stops)
        return training, record

    return jax.lax.scan(one, begin(settings, state), length=epochs)


def _chosen(new: jax.Array, if_true: State, if_false: State) -> State:
    """One of two states of a training; both have the same key."""
    parts = [state._replace(key=None) for state in (if_true, if_false)]
    return jax.tree.map(lambda a, b: jnp.where(new, a, b), *parts)._replace(key=if_false.key)


def _all_finite(params: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves] or [jnp.ones((), bool)]).all()
