"""The rows with updaters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

import fnnets as fn


class UpdaterCase(NamedTuple):
    """A row of the catalogue with an updater.

    Attributes:
      name: unique; the factory's name and the special setting of the row.
      factory: makes the updater, such as `fn.updaters.adam`.
      settings: the factory's arguments by name; with them it minimises Rosenbrock's function in 10 000 steps.
      order: 1 if the rule uses gradients only, 2 if it uses curvature.
    """

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    settings: dict[str, Any]
    order: int = 1

    def make(self, **changed: Any) -> optax.GradientTransformationExtraArgs:
        """Makes the updater, with some settings changed."""
        return self.factory(**self.settings | changed)


def updater_cases() -> list[UpdaterCase]:
    """The rows with updaters."""
    updaters = fn.updaters
    return [
        UpdaterCase("sgd", updaters.sgd, {"learning_rate": 1e-3}),
        UpdaterCase("momentum", updaters.momentum, {"learning_rate": 1e-3}),
        UpdaterCase("nesterov", updaters.nesterov, {"learning_rate": 1e-3}),
        UpdaterCase("adagrad", updaters.adagrad, {"learning_rate": 1.0}),
        UpdaterCase("adadelta", updaters.adadelta, {"learning_rate": 0.1}),
        UpdaterCase("rmsprop", updaters.rmsprop, {"learning_rate": 5e-3}),
        UpdaterCase("rmsprop centered", updaters.rmsprop, {"learning_rate": 5e-3, "centered": True}),
        UpdaterCase("adam", updaters.adam, {"learning_rate": 1e-1}),
        UpdaterCase("adamw", updaters.adamw, {"learning_rate": 1e-1}),
        UpdaterCase("adamax", updaters.adamax, {"learning_rate": 1e-1}),
        UpdaterCase("newton", updaters.newton, {}, order=2),
        UpdaterCase("newton cg", updaters.newton, {"solver": "cg"}, order=2),
        UpdaterCase("newton saddle_free", updaters.newton, {"curvature": "saddle_free"}, order=2),
    ]
