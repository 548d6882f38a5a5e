"""Cross-validation: all folds trained at the same time, in one program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fnnets.core import checks, masks
from fnnets.core.layer import Layer
from fnnets.core.text_table import format_table
from fnnets.data.examples import Examples, number, take
from fnnets.data.scaling import Scaler
from fnnets.data.split import Split
from fnnets.losses.loss import Loss
from fnnets.train.epoch import BatchSource, History, Validation, checked_data, train_epochs
from fnnets.train.evaluation import Metric
from fnnets.train.placement import Placement, placement_on
from fnnets.train.rows import broadcast_rows
from fnnets.train.settings import Settings, checked_settings
from fnnets.train.state import State, start_models
from fnnets.train.step import Gradient


class CrossValidated(NamedTuple):
    """The results of a cross-validation, for each of k splits.

    Attributes:
      scores: for "loss" and each metric, (k,) values of the test parts after the last epoch, in NumPy.
      params: (k, …), the trained params of each split.
      scales: (k, …), the scale fitted on each training part; None without a scaler.
      history: as in `fn.train.fit`, with a first axis of k; its validation is the test part.

    Example:
      >>> import fnnets as fn, jax, numpy as np
      >>> scores = {"loss": np.array([0.5, 0.7]), "accuracy": np.array([0.8, 0.9])}
      >>> print(fn.train.CrossValidated(scores, None, None, None))
      split      loss    accuracy
      ---------  ------  --------
      0          0.5     0.8
      1          0.7     0.9
      mean       0.6     0.85
      deviation  0.1414  0.07071
    """

    scores: dict[str, np.ndarray]
    params: Any
    scales: Any
    history: History

    def __str__(self) -> str:
        """A row for each split, then their mean and sample deviation."""
        columns = list(self.scores.values())
        rows = [(str(i), *(f"{values[i]:.4g}" for values in columns)) for i in range(len(columns[0]))]
        rows.append(("mean", *(f"{values.mean():.4g}" for values in columns)))
        several = len(columns[0]) > 1
        rows.append(("deviation", *(f"{values.std(ddof=1):.4g}" if several else "–" for values in columns)))
        return "\n".join(format_table([("split", *self.scores), *rows]))


def cross_validate(
    net: Layer,
    loss: Loss,
    updater: Any,
    examples: Any,
    splits: Split,
    *,
    epochs: int,
    key: Any,
    batch_size: int = 32,
    remainder: Any = "pad",
    replace: bool = False,
    gradient: Gradient = "hand",
    penalty: Any = None,
    clip: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    scaler: Scaler | None = None,
    mesh: Any = None,
) -> CrossValidated:
    """Trains on every split and evaluates its test part: all splits at the same time, in one program.

    Split i gives the result of `fit(…, key=fold_in(key, i))` on its training part, and of `evaluate` on its test part.
    There is no early stopping, because the test part must not decide when training stops.

    Args:
      net: any network; layers with moving statistics must take a mask if the parts are padded.
      loss: a `Loss`.
      updater: an `optax.GradientTransformation`.
      examples: all examples: `fn.data.Examples`, or a tuple (x, target).
      splits: (k, …) from `fn.data.kfold`; or several holdouts or bootstraps, by `jax.vmap` over keys.
      epochs: the number of epochs.
      key: a random key.
      batch_size: the number of examples in a step.
      remainder: "pad" or "drop", as in `fn.data.batches`.
      replace: whether the rows of a batch are drawn with replacement.
      gradient: "hand" or "autodiff".
      penalty: a `Penalty`, or None.
      clip: the largest norm of the gradient, or None.
      metrics: functions `(y, target) -> (…)` by name; their means are recorded too.
      scaler: from `fn.data.standardise` or `fn.data.min_max`; it is fitted on each training part alone, and scales x.
      mesh: a `jax.sharding.Mesh` with one axis, whose devices share the splits, as in `fn.train.ensemble`.

    Returns:
      A `CrossValidated(scores, params, scales, history)`. It prints as a table.

    Raises:
      TypeError: examples are neither `fn.data.Examples` nor a tuple, or splits are not a `Split`.
      ValueError: splits have no first axis, or rows outside the examples; remainder is "keep"; a batch is larger than
        the training parts.

    Example:
      >>> import fnnets as fn, jax
      >>> x = jax.random.normal(jax.random.key(0), (30, 2))
      >>> target = (x.sum(1) > 0).astype(int)
      >>> result = fn.train.cross_validate(
      ...     fn.dense(2),
      ...     fn.losses.softmax_cross_entropy(),
      ...     fn.updaters.adam(0.1),
      ...     (x, target),
      ...     fn.data.kfold(jax.random.key(1), 30, 5, labels=target),
      ...     epochs=30,
      ...     key=jax.random.key(2),
      ...     batch_size=8,
      ...     metrics={"accuracy": fn.train.accuracy},
      ...     scaler=fn.data.standardise(),
      ... )
      >>> result.scores["accuracy"].shape, bool(result.scores["accuracy"].mean() > 0.8)
      ((5,), True)

    References:
      Stone, Cross-validatory choice and assessment of statistical predictions, J. R. Statist. Soc. B 36 (1974).
    """
    checks.positive("cross_validate", epochs=epochs)
    checks.choice("cross_validate", "remainder", remainder, ("pad", "drop"))
    checks.key("cross_validate", key)
    settings = checked_settings(
        "cross_validate", net, loss, updater,
        batch_size=batch_size, remainder=remainder, replace=replace, gradient=gradient, penalty=penalty, clip=clip,
        metrics=metrics,
    )  # fmt: skip
    placement = placement_on("cross_validate", mesh)
    examples, _ = checked_data("cross_validate", examples, None)
    _check_splits(splits, number(examples))
    if scaler is not None:
        kind = "a scaler, such as fn.data.standardise()"
        checks.made("cross_validate", "scaler", scaler, Scaler._fields, kind)
    states = start_models(net, updater, examples.x, key, len(splits.train))
    params, scales, history = _program(settings, epochs, scaler, placement)(states, splits, examples)
    history = jax.device_get(history)
    scores = {name: history.validation[name][:, -1] for name in ("loss", *dict(settings.metrics))}
    return CrossValidated(scores, params, scales, history)


@functools.lru_cache(maxsize=16)
def _program(
    settings: Settings, epochs: int, scaler: Scaler | None, placement: Placement
) -> Callable[..., Any]:
    """The trainings of all splits, compiled."""

    def one(state: State, split: Split, examples: Examples) -> tuple[Any, Any, History]:
        scale = None if scaler is None else _fitted(scaler, split, examples)

        def scaled(rows: Any) -> Examples:
            batch = take(examples, rows)
            if scaler is None or scale is None:
                return batch
            return batch._replace(x=scaler.apply(scale, batch.x))

        count = None if split.train_mask is None else split.train_mask.sum()
        source = BatchSource(lambda index: scaled(split.train[index]), split.train.shape[0], count)
        held_out = Validation(scaled(split.test), split.test_mask)
        training, history = train_epochs(settings, epochs, state, source, held_out)
        return training.params, scale, history

    return placement.compile_models("cross_validate", one, (0, 0, None))


def _fitted(scaler: Scaler, split: Split, examples: Examples) -> Any:
    """The scale of one training part, without padding and masked places."""
    train = take(examples, split.train)
    mask = None
    if split.train_mask is not None:
        mask = broadcast_rows(split.train_mask, train.x.shape[:-1])
    if train.mask is not None and train.mask.shape == masks.mask_shape(train.x):
        mask = train.mask if mask is None else mask & train.mask
    return scaler.fit(train.x, mask)


def _check_splits(splits: Any, n: int) -> None:
    if not isinstance(splits, Split):
        raise TypeError(
            f"cross_validate: splits must be a Split, such as that of fn.data.kfold, got {type(splits).__name__}."
        )
    if splits.train.ndim != 2:
        raise ValueError(
            f"cross_validate: splits.train must have shape (k, a), got {checks.shape_text(splits.train.shape)}; for "
            "several holdouts or bootstraps, use jax.vmap over keys."
        )
    rows = np.concatenate([np.asarray(part).ravel() for part in (splits.train, splits.test)])
    if (outside := rows[(rows < 0) | (rows >= n)]).size:
        raise ValueError(
            f"cross_validate: splits must be of the {n} examples, got row {outside.max()}; make them with n={n}."
        )
