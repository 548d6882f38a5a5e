"""Sweeps over hyperparameters: numbers in one program by vmap, structures one after another."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.layer import Layer
from fnnets.core.text_table import format_table
from fnnets.data.examples import Examples, checked, number, take
from fnnets.losses.loss import Loss
from fnnets.train.epoch import BatchSource, History, Validation, train_epochs
from fnnets.train.evaluation import Metric, scores
from fnnets.train.placement import placement_on
from fnnets.train.settings import checked_settings
from fnnets.train.state import start
from fnnets.train.step import Gradient
from fnnets.train.stopping import EarlyStopping

NO_NUMBER = ""  # a placeholder for a grid without numbers: vmap needs an array


class Recipe(NamedTuple):
    """The training at one point of a sweep.

    Attributes:
      net: a network.
      loss: a `Loss`.
      updater: an `optax.GradientTransformation`.
      penalty: a `Penalty`, or None.
      clip: the largest norm of the gradient, or None.

    Example:
      >>> import fnnets as fn
      >>> fn.train.Recipe(fn.dense(2), fn.losses.mse(), fn.updaters.sgd(0.1)).penalty is None
      True
    """

    net: Layer
    loss: Loss
    updater: Any
    penalty: Any = None
    clip: Any = None


class Swept(NamedTuple):
    """The results of a sweep.

    Attributes:
      axes: the values of each hyperparameter by name, in the order of the arrays' axes; "seed" is the last.
      scores: for "loss" and each metric, the values of the validation with the final params (the best ones with early
        stopping): an array in NumPy with an axis for each hyperparameter. NaN where training diverged.
      history: as in `fn.train.fit`, with these axes first.

    Example:
      >>> import fnnets as fn, numpy as np
      >>> scores = {"loss": np.array([[0.5, 0.7], [0.2, np.nan]])}
      >>> swept = fn.train.Swept({"rate": (0.1, 1.0), "seed": (0, 1)}, scores, None)
      >>> swept.best()
      {'rate': 0.1}
      >>> print(swept.table())
      rate  loss  deviation
      ----  ----  ---------
      0.1   0.6   0.1414
      1     nan   nan
    """

    axes: dict[str, tuple[Any, ...]]
    scores: dict[str, np.ndarray]
    history: History

    def best(self, metric: str = "loss", *, larger_is_better: bool = False) -> dict[str, Any]:
        """The hyperparameters with the best mean over the seeds."""
        return self._point(self._order(metric, larger_is_better)[0])

    def table(self, metric: str = "loss", *, larger_is_better: bool = False, rows: int | None = None) -> str:
        """A table of the points, the best first, with the mean and the sample deviation over the seeds."""
        names = [name for name in self.axes if name != "seed"]
        lines = []
        for index in self._order(metric, larger_is_better)[:rows]:
            seeds = self.scores[metric][index]
            deviation = f"{seeds.std(ddof=1):.4g}" if len(seeds) > 1 else "–"
            point = self._point(index)
            lines.append((*(_text(point[name]) for name in names), f"{seeds.mean():.4g}", deviation))
        return "\n".join(format_table([(*names, metric, "deviation"), *lines]))

    def _order(self, metric: str, larger_is_better: bool) -> list[tuple[int, ...]]:
        means = self.scores[metric].mean(-1)
        order = np.argsort((-1 if larger_is_better else 1) * means, axis=None)  # NaN last
        return [tuple(map(int, np.unravel_index(i, means.shape))) for i in order]

    def _point(self, index: tuple[int, ...]) -> dict[str, Any]:
        return {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=False)}


def sweep(
    make: Callable[..., Recipe],
    examples: Any,
    validation: Any,
    *,
    epochs: int,
    key: Any,
    numbers: Mapping[str, Sequence[float]] | None = None,
    structures: Mapping[str, Any] | None = None,
    seeds: int = 1,
    batch_size: int = 32,
    remainder: Any = "pad",
    replace: bool = False,
    gradient: Gradient = "hand",
    metrics: Mapping[str, Metric] | None = None,
    early_stopping: EarlyStopping | None = None,
    mesh: Any = None,
) -> Swept:
    """Trains at every point of a grid of hyperparameters.

    The grid is the product of all values. Numbers (learning rates, penalties) and seeds train at the same time, in one
    program. Structures (layers, units, initialisers) change shapes or code; each trains in its own program. Seed s has
    the key fold_in(key, s) at every point.

    Args:
      make: `(**point) -> Recipe`, the training at a point. Numbers arrive as traced arrays ().
      examples: the examples to learn from: `fn.data.Examples`, or a tuple (x, target).
      validation: the examples that compare the points; keep test examples apart for the chosen point.
      epochs: the largest number of epochs.
      key: a random key.
      numbers: sequences of values by name; `make` must work with traced numbers.
      structures: sequences of values by name, or dicts of values by the labels that a table shows.
      seeds: the number of trainings with different keys at each point.
      batch_size, remainder, replace, gradient, metrics, early_stopping: as in `fn.train.fit`.
      mesh: a `jax.sharding.Mesh` with one axis, whose devices share points and seeds, as in `fn.train.ensemble`.

    Returns:
      A `Swept(axes, scores, history)`; its axes are structures, numbers, "seed". `fn.plots.heat_map` draws it.

    Raises:
      TypeError: examples are neither `fn.data.Examples` nor a tuple, or `make` does not return a `Recipe`.
      ValueError: there is nothing to sweep, a name is used twice or has no value; as `fn.train.fit`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> x = jnp.linspace(-1, 1, 24)[:, None]
      >>> def make(rate, units):
      ...     net = fn.serial(fn.dense(units), fn.tanh(), fn.dense(1))
      ...     return fn.train.Recipe(net, fn.losses.mse(), fn.updaters.adam(rate))
      >>> swept = fn.train.sweep(
      ...     make,
      ...     (x[::2], x[::2] ** 2),
      ...     (x[1::2], x[1::2] ** 2),
      ...     epochs=60,
      ...     key=jax.random.key(0),
      ...     numbers={"rate": (1e-4, 0.03)},
      ...     structures={"units": (1, 8)},
      ...     batch_size=6,
      ... )
      >>> swept.scores["loss"].shape, swept.best()
      ((2, 2, 1), {'units': 8, 'rate': 0.03})
    """
    checks.positive("sweep", epochs=epochs, seeds=seeds)
    checks.key("sweep", key)
    placement = placement_on("sweep", mesh)
    numbers, labelled = _axes(numbers or {}, structures or {})
    data = checked("sweep", examples), Validation(checked("sweep", validation, "validation"))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(seeds))
    options = {
        "batch_size": batch_size, "remainder": remainder, "replace": replace, "gradient": gradient,
        "metrics": metrics, "early_stopping": early_stopping,
    }  # fmt: skip
    results = []
    for labels in itertools.product(*labelled.values()):
        structure = {
            name: values[label] for (name, values), label in zip(labelled.items(), labels, strict=True)
        }
        train = functools.partial(_train_point, functools.partial(make, **structure), epochs, options)
        program = placement.compile_grid("sweep", train)
        results.append(jax.device_get(program(_points(numbers), keys, *data)))
    axes = {name: tuple(values) for name, values in labelled.items()}
    axes |= {name: tuple(map(float, values)) for name, values in numbers.items()}
    axes["seed"] = tuple(range(seeds))
    return Swept(axes, *jax.tree.map(functools.partial(_on_axes, axes), *results))


def _train_point(
    make: Callable[..., Recipe],
    epochs: int,
    options: Mapping[str, Any],
    point: Mapping[str, jax.Array],
    key: jax.Array,
    examples: Examples,
    validation: Validation,
) -> tuple[dict[str, jax.Array], History]:
    """Trains once: the scores and the history as a pure function of a point's numbers and a seed's key."""
    recipe = make(**{name: value for name, value in point.items() if name != NO_NUMBER})
    if not isinstance(recipe, Recipe):
        raise TypeError(f"sweep: make must return a fn.train.Recipe, got {type(recipe).__name__}.")
    settings = checked_settings("sweep", **recipe._asdict(), **options)
    source = BatchSource(lambda index: take(examples, index), number(examples))
    state = start(recipe.net, recipe.updater, examples.x, key)
    training, history = train_epochs(settings, epochs, state, source, validation)
    final = scores(recipe.net, recipe.loss, settings.metrics, training.params, validation.examples, None)
    failed = ~training.alive if training.best is None else ~jnp.isfinite(training.best.value)
    return {name: jnp.where(failed, jnp.nan, value) for name, value in final.items()}, history


def _points(numbers: Mapping[str, Sequence[float]]) -> dict[str, jax.Array]:
    """The value of each number at every point of the grid, (points,). Without numbers there is one point."""
    grid = jnp.meshgrid(*(jnp.asarray(values, float) for values in numbers.values()), indexing="ij")
    points = {name: values.ravel() for name, values in zip(numbers, grid, strict=True)}
    return points or {NO_NUMBER: jnp.zeros(1)}


def _on_axes(axes: Mapping[str, Sequence[Any]], *leaves: np.ndarray) -> np.ndarray:
    """The results of all structures, each (points, seeds, …), as one array with an axis for each hyperparameter."""
    stacked = np.stack(leaves)  # (structures, points, seeds, …)
    return stacked.reshape(*map(len, axes.values()), *stacked.shape[3:])


def _axes(numbers: Any, structures: Any) -> tuple[dict[str, Any], dict[str, dict[Any, Any]]]:
    """Numbers and structures as dicts, structures by their labels; refuses values that do not make a grid."""
    if not {*numbers, *structures}:
        raise ValueError("sweep: there is nothing to sweep; give numbers or structures.")
    if both := {*numbers} & {*structures} or {"seed"} & {*numbers, *structures}:
        raise ValueError(f"sweep: the name {both.pop()!r} is used twice; each axis needs its own name.")
    for name, values in {**numbers, **structures}.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise TypeError(
                f"sweep: {name} must have a sequence of values, got {values!r}; give ({values!r},)."
            )
    labelled = {
        name: dict(values) if isinstance(values, Mapping) else {value: value for value in values}
        for name, values in structures.items()
    }
    for name, values in {**numbers, **labelled}.items():
        if not len(values):
            raise ValueError(f"sweep: {name} must have at least one value, got none.")
    return dict(numbers), labelled


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
