"""Five hyperparameters of a network, and 64 learning rates at the same time: `python examples/studies/sweep.py`.

A network for scikit-learn's 1797 digits of 8×8 pixels is trained at every point of a grid. **Learning rate** and
**penalty** are numbers, which vmap trains at the same time. **Initialisation**, **layers** and **units** change the
program, and are trained one after another. The points are compared on a validation part; the best one is trained once
more and then tested, once.

Then 64 learning rates are trained in one program, and compared with a loop that compiles a `fit` for each. The loop
trains a few of the rates, and its time is scaled to all; the exit status is 1 if it is less than `LEAST_SPEEDUP` times
that of vmap.

`--quick` tries a few points for one epoch, without the race and the picture; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from support.common import BLUE, GREY, options, picture, progress, run, table

import fnnets as fn

LOSS = fn.losses.softmax_cross_entropy()
METRICS = {"accuracy": fn.train.accuracy}
INITIALISERS = {
    "0.01·normal": jax.nn.initializers.normal(0.01),
    "LeCun": jax.nn.initializers.lecun_normal(),
}
SEED, BATCH = 0, 64
LOOPED, LEAST_SPEEDUP = 3, 4.0  # the number of rates in the loop; how much faster vmap must be


class Parts(NamedTuple):
    """The digits in three parts, 60:20:20, standardised by the first."""

    train: Any
    validation: Any
    test: Any


def load(key: jax.Array) -> Parts:
    """The digits, with equal shares of each class in every part."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    x, target = jnp.asarray(x, jnp.float32), jnp.asarray(target)
    first, second = jax.random.split(key)
    rest, test, *_ = fn.data.holdout(first, len(x), 0.2, labels=target)
    train, validation, *_ = fn.data.holdout(second, len(rest), 0.25, labels=target[rest])
    scaler = fn.data.standardise()
    scale = scaler.fit(x[rest[train]])
    return Parts(*((scaler.apply(scale, x[i]), target[i]) for i in (rest[train], rest[validation], test)))


def make(
    rate: Any, penalty: Any = 0.0, initialiser: Any = INITIALISERS["LeCun"], layers: int = 1, units: int = 32
) -> Any:
    """The recipe of a point."""
    hidden = [layer for _ in range(layers) for layer in (fn.dense(units, kernel_init=initialiser), fn.tanh())]
    net = fn.serial(*hidden, fn.dense(10, kernel_init=initialiser))
    return fn.train.Recipe(net, LOSS, fn.updaters.momentum(rate), fn.l2(penalty))


def fitted(point: dict[str, Any], parts: Parts, epochs: int, key: jax.Array) -> Any:
    """Trains one point alone; returns its network and its params."""
    recipe = make(**point)
    found = fn.train.fit(
        recipe.net, LOSS, recipe.updater, parts.train,
        epochs=epochs, key=key, batch_size=BATCH, penalty=recipe.penalty, progress=False,
    )  # fmt: skip
    return recipe.net, found.params


def race(parts: Parts, epochs: int, rates: np.ndarray, key: jax.Array) -> tuple[Any, dict[str, float]]:
    """Trains all rates in one program and some in a loop; returns the sweep, and each way's seconds for all rates."""
    numbers, seconds = {"rate": tuple(map(float, rates))}, {}
    jax.clear_caches()
    start = time.perf_counter()
    found = fn.train.sweep(
        make, parts.train, parts.validation,
        numbers=numbers, epochs=epochs, key=key, batch_size=BATCH, metrics=METRICS,
    )  # fmt: skip
    seconds["vmap"] = time.perf_counter() - start
    jax.clear_caches()
    start = time.perf_counter()
    for rate in progress(rates[:: len(rates) // LOOPED][:LOOPED], "loop"):
        jax.block_until_ready(fitted({"rate": float(rate)}, parts, epochs, jax.random.fold_in(key, 0)))
    seconds["loop"] = (time.perf_counter() - start) * len(rates) / LOOPED
    return found, seconds


def draw(figure: Any, grid: fn.train.Swept, line: fn.train.Swept, seconds: dict[str, float]) -> None:
    """Top: pairs of hyperparameters. Bottom: the learning rates."""
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1))
    panels = upper.subplots(1, 3)
    score = partial(fn.plots.heat_map, grid, metric="accuracy", larger_is_better=True)
    for panel, (x, y) in zip(
        panels, (("rate", "penalty"), ("rate", "initialiser"), ("units", "layers")), strict=True
    ):
        score(x, y, ax=panel)
        panel.set_title("accuracy, the others at their best")
    curve, times = lower.subplots(1, 2, width_ratios=(2.2, 1))
    curve.semilogx(line.axes["rate"], line.scores["accuracy"][:, 0], ".-", color=BLUE)
    curve.set(
        xlabel="learning rate", ylabel="held-out accuracy", title=f"{len(line.axes['rate'])} learning rates"
    )
    bars = times.barh(list(seconds), list(seconds.values()), color=[BLUE, GREY])
    times.bar_label(bars, [f"{value:.0f} s" for value in seconds.values()], padding=3)
    times.invert_yaxis()
    times.margins(x=0.2)
    times.set(xlabel="seconds for all rates, compilation included", title="One program and a loop")


def main(argv: Sequence[str] | None = None) -> int:
    """Sweeps, tests the best, races."""
    chosen = options(__doc__, argv)
    split_key, key = jax.random.split(jax.random.key(SEED))
    parts = load(split_key)
    epochs = 1 if chosen.quick else 30
    numbers = {"rate": (0.003, 0.03, 0.3), "penalty": (0.0, 1e-3, 1e-2)}
    structures = {"initialiser": INITIALISERS, "layers": (1, 3), "units": (8, 32)}
    if chosen.quick:
        structures = {"initialiser": {"LeCun": INITIALISERS["LeCun"]}, "layers": (1,), "units": (8,)}
    grid = fn.train.sweep(
        make, parts.train, parts.validation,
        numbers=numbers, structures=structures, seeds=1 if chosen.quick else 3,
        epochs=epochs, key=key, batch_size=BATCH, metrics=METRICS,
    )  # fmt: skip
    print(
        f"{grid.scores['loss'][..., 0].size} points, {len(parts.train[1])} digits, {epochs} epochs; the best and the worst:\n"
    )
    lines = grid.table("accuracy", larger_is_better=True).splitlines()
    print("\n".join([*lines[:10], "…", lines[-1]]))
    best = grid.best("accuracy", larger_is_better=True)
    net, params = fitted({**best, "initialiser": INITIALISERS[best["initialiser"]]}, parts, epochs, key)
    test = fn.train.evaluate(net, LOSS, params, parts.test, metrics=METRICS)
    print(f"\nthe best point on the {len(parts.test[1])} test digits: {float(test['accuracy']):.1%}\n")
    if chosen.quick:
        return 0
    line, seconds = race(parts, epochs, np.geomspace(1e-4, 3, 64), key)
    rows = [(name, f"{value:.1f}", f"{value / seconds['vmap']:.1f}") for name, value in seconds.items()]
    print(table(("64 learning rates", "seconds", "ratio to vmap"), rows))
    with picture(chosen.out / "sweep.png", 13, 8) as figure:
        draw(figure, grid, line, seconds)
    return int(seconds["loop"] < LEAST_SPEEDUP * seconds["vmap"])


if __name__ == "__main__":
    run(main)
