"""The settings of a training, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fnnets.core import checks
from fnnets.core.layer import Layer
from fnnets.core.time_order import examples_first
from fnnets.data.batching import Remainder
from fnnets.losses.loss import Loss
from fnnets.train.evaluation import Metric, named_metrics
from fnnets.train.step import Gradient, check_step
from fnnets.train.stopping import EarlyStopping, check_watched


class Settings(NamedTuple):
    """The settings of a training, made by `checked_settings`. They are hashable: equal ones reuse a compiled program."""

    net: Layer
    loss: Loss
    updater: Any
    batch_size: int
    remainder: Remainder = "pad"
    replace: bool = False
    gradient: Gradient = "hand"
    penalty: Any = None
    clip: Any = None
    metrics: tuple[tuple[str, Metric], ...] = ()
    early_stopping: EarlyStopping | None = None


def checked_settings(
    caller: str,
    net: Layer,
    loss: Loss,
    updater: Any,
    *,
    batch_size: int,
    remainder: Remainder,
    replace: bool,
    gradient: Gradient,
    penalty: Any = None,
    clip: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    early_stopping: EarlyStopping | None = None,
    validated: bool = True,
) -> Settings:
    """The settings; refuses invalid ones in the caller's name. Early stopping needs a validation (`validated`)."""
    check_step(caller, net, loss, updater, gradient=gradient, penalty=penalty, clip=clip)
    examples_first(caller, net)
    checks.positive(caller, batch_size=batch_size)
    checks.choice(caller, "remainder", remainder, ("pad", "keep", "drop"))
    named = named_metrics(caller, metrics)
    check_watched(caller, early_stopping, [name for name, _ in named], validated)
    return Settings(
        net, loss, updater, batch_size, remainder, replace, gradient, penalty, clip, named, early_stopping
    )
