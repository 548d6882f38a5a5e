"""Ensembles: several models of one network, and their joint prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Layer
from fnnets.data import bootstrap as resampled
from fnnets.data.examples import Examples, number, take
from fnnets.losses.loss import Loss
from fnnets.train.epoch import BatchSource, History, Validation, checked_data, train_epochs
from fnnets.train.evaluation import Metric
from fnnets.train.placement import Placement, placement_on
from fnnets.train.settings import Settings, checked_settings
from fnnets.train.state import SAMPLE, State, start_models
from fnnets.train.step import Gradient
from fnnets.train.stopping import EarlyStopping


class Ensemble(NamedTuple):
    """K trained models.

    Attributes:
      params: (K, …), the params of each: `jax.vmap(net.apply, (0, None))(params, x)` are their outputs.
      history: as in `fn.train.fit`, with a first axis of K.
    """

    params: Any
    history: History


class Prediction(NamedTuple):
    """The joint prediction of several models.

    Attributes:
      mean: (…), the mean of their outputs.
      spread: (…), the sample deviation of their outputs: how far the models disagree.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> params = fn.Dense(w=jnp.array([[[1.0]], [[3.0]]]), b=jnp.zeros((2, 1)))
      >>> prediction = fn.train.predict(fn.dense(1), params, jnp.ones((1, 1)))
      >>> prediction.mean.tolist(), prediction.spread.round(3).tolist()
      ([[2.0]], [[1.4140000343322754]])
    """

    mean: jax.Array
    spread: jax.Array


def ensemble(
    net: Layer,
    loss: Loss,
    updater: Any,
    examples: Any,
    *,
    models: int,
    epochs: int,
    key: Any,
    bootstrap: bool = False,
    batch_size: int = 32,
    remainder: Any = "pad",
    replace: bool = False,
    gradient: Gradient = "hand",
    penalty: Any = None,
    clip: Any = None,
    validation: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    early_stopping: EarlyStopping | None = None,
    mesh: Any = None,
) -> Ensemble:
    """Trains a network several times from different params: all models at the same time, in one program.

    Model i is that of `fit(…, key=fold_in(key, i))`. A model whose loss is not finite raises no error: its later losses
    are NaN, and it keeps the params before that step.

    Args:
      net: any network.
      loss: a `Loss`.
      updater: an `optax.GradientTransformation`.
      examples: `fn.data.Examples`, or a tuple (x, target).
      models: K, the number of models.
      epochs: the largest number of epochs.
      key: a random key.
      bootstrap: whether each model learns from its own n rows, drawn with replacement (bagging).
      batch_size, remainder, replace, gradient, penalty, clip, validation, metrics, early_stopping: as in `fn.train.fit`.
      mesh: a `jax.sharding.Mesh` with one axis, whose devices share the models; each device has all examples. With
        several processes, each passes all examples and gets all models.

    Returns:
      An `Ensemble(params, history)`; `fn.train.predict` predicts with it.

    Raises:
      TypeError, ValueError: as `fn.train.fit`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> x = jnp.linspace(-1, 1, 20)[:, None]
      >>> net = fn.serial(fn.dense(8), fn.tanh(), fn.dense(1))
      >>> settings = {"models": 5, "epochs": 100, "key": jax.random.key(0), "batch_size": 10}
      >>> trained = fn.train.ensemble(net, fn.losses.mse(), fn.updaters.adam(0.03), (x, x**2), **settings)
      >>> near, far = fn.train.predict(net, trained.params, jnp.array([[0.5], [3.0]])).spread.ravel()
      >>> bool(near < 0.1 < far)
      True

    References:
      Breiman, Bagging predictors, Machine Learning 24 (1996); Lakshminarayanan, Pritzel & Blundell, Simple and
      scalable predictive uncertainty estimation using deep ensembles (2017).
    """
    checks.positive("ensemble", models=models, epochs=epochs)
    checks.key("ensemble", key)
    settings = checked_settings(
        "ensemble", net, loss, updater,
        batch_size=batch_size, remainder=remainder, replace=replace, gradient=gradient, penalty=penalty, clip=clip,
        metrics=metrics, early_stopping=early_stopping, validated=validation is not None,
    )  # fmt: skip
    placement = placement_on("ensemble", mesh)
    data = checked_data("ensemble", examples, validation)
    states = start_models(net, updater, data[0].x, key, models)
    params, history = _program(settings, epochs, bootstrap, placement)(states, *data)
    return Ensemble(params, jax.device_get(history))


@functools.lru_cache(maxsize=16)
def _program(settings: Settings, epochs: int, bootstrap: bool, placement: Placement) -> Callable[..., Any]:
    """The trainings of all models, compiled."""

    def one(state: State, examples: Examples, validation: Validation | None) -> tuple[Any, History]:
        n = number(examples)
        sample = resampled(jax.random.fold_in(state.key, SAMPLE), n).train if bootstrap else jnp.arange(n)
        source = BatchSource(lambda index: take(examples, sample[index]), n)
        training, history = train_epochs(settings, epochs, state, source, validation)
        return training.params, history

    return placement.compile_models("ensemble", one, (0, None, None))


def predict(net: Layer, params: Any, x: Any, *, transform: Any = None, mask: Any = None) -> Prediction:
    """Predicts with several models, at inference: the mean and the spread of their outputs.

    Formula: with y_i = net(params_i, x), mean = Σ y_i/K and spread² = Σ (y_i − mean)²/(K − 1).

    Args:
      net: the network.
      params: (K, …), such as those of `fn.train.ensemble`; K is at least 2.
      x: the input.
      transform: a function applied to each output first; `jax.nn.softmax` gives mean probabilities for logits.
      mask: the network's mask.

    Returns:
      A `Prediction(mean, spread)`, each in the shape of one model's output.

    Raises:
      ValueError: there is only one model.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.dense(3), jnp.ones((4, 2))
      >>> params = jax.vmap(net.init, (0, None))(jax.random.split(jax.random.key(0), 5), x)
      >>> fn.train.predict(net, params, x, transform=jax.nn.softmax).mean.sum(-1).round(5).tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    models = {leaf.shape[:1] for leaf in jax.tree.leaves(params)}
    if len(models) != 1 or models <= {(), (1,)}:
        raise ValueError(
            "predict: params must be those of at least two models, stacked on a first axis, as fn.train.ensemble "
            "returns them; use net.apply for a single model."
        )
    y = jax.vmap(lambda own: net.apply(own, x, mask=mask))(params)
    y = y if transform is None else transform(y)
    return Prediction(y.mean(0), y.std(0, ddof=1))
