"""Ten folds trained at the same time, compared with a loop: `python examples/studies/cross_validation.py`.

A small network classifies tumours as malignant or benign in scikit-learn's breast cancer data (569 patients, 30
measurements), on ten stratified folds. Every fold scales its inputs by its own training part. Its tenth of the patients
is used once, to test a network that never saw them.

The folds are trained in three ways, each time with nothing compiled before. **vmap** and **loop** run `ROUNDS` times in
turn, and their medians count:

- **vmap**: `fn.train.cross_validate` trains all folds at the same time in one program.
- **loop**: trains one fold after another and compiles each, like a loop around code that makes its own training step.
  The exit status is 1 if it takes less than `LEAST_SPEEDUP` times as long as vmap.
- **loop, compiled once**: `fn.train.fit` on one fold after another, with the same loss, updater and penalty. It reuses
  its program, so that it compiles only for the two sizes of the training part (512 and 513 patients). Here vmap saves
  less: on a CPU, a step of a small network in `lax.scan` has little overhead.

All give the same networks, up to rounding.

`--quick` trains for a few epochs, by vmap alone and without the picture; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from support.common import BLUE, GREY, ORANGE, options, picture, progress, run, table

import fnnets as fn

NET = fn.serial(fn.dense(16), fn.tanh(), fn.dense(2))
LOSS = fn.losses.softmax_cross_entropy()
UPDATER = fn.updaters.adam(3e-3)
SCALER = fn.data.standardise()
METRICS = {"accuracy": fn.train.accuracy}
PENALTY = fn.l2(1e-3)
FOLDS, BATCH, SEED = 10, 32, 0
ROUNDS = 3
LEAST_SPEEDUP = 4.0  # over the loop


def load() -> tuple[jax.Array, jax.Array]:
    """The raw measurements, and the labels: 1 for a benign tumour."""
    from sklearn.datasets import load_breast_cancer

    x, target = load_breast_cancer(return_X_y=True)
    return jnp.asarray(x, jnp.float32), jnp.asarray(target)


def at_once(examples: Any, splits: fn.data.Split, key: jax.Array, epochs: int) -> fn.train.CrossValidated:
    """All folds in one program."""
    return fn.train.cross_validate(
        NET, LOSS, UPDATER, examples, splits,
        epochs=epochs, key=key, batch_size=BATCH, metrics=METRICS, scaler=SCALER, penalty=PENALTY,
    )  # fmt: skip


def by_loop(
    examples: Any, splits: fn.data.Split, key: jax.Array, epochs: int, compiled_once: bool
) -> np.ndarray:
    """Fits one fold after another; returns the accuracies."""
    x, target = examples
    found, penalty = [], PENALTY
    for i, (train, test) in enumerate(splits.each()):
        if not compiled_once:
            penalty = fn.l2(1e-3)  # a new object, and so a new program
        scale = SCALER.fit(x[train])
        fitted = fn.train.fit(
            NET, LOSS, UPDATER, (SCALER.apply(scale, x[train]), target[train]),
            epochs=epochs, key=jax.random.fold_in(key, i), batch_size=BATCH, penalty=penalty, progress=False,
        )  # fmt: skip
        held = SCALER.apply(scale, x[test]), target[test]
        found.append(fn.train.evaluate(NET, LOSS, fitted.params, held, metrics=METRICS)["accuracy"])
    return np.array(found)


def timed(train: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """The result of `train(*args)` and the seconds it takes, with nothing compiled before."""
    jax.clear_caches()
    start = time.perf_counter()
    return train(*args), time.perf_counter() - start


def draw(figure: Any, found: fn.train.CrossValidated, seconds: dict[str, float]) -> None:
    """The folds' curves, their accuracies, and the times."""
    loss, accuracy, times = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    fn.plots.plot_history(found.history, loss)
    loss.set_title("Loss of each fold, and their mean")
    scores = found.scores["accuracy"]
    accuracy.plot(range(FOLDS), scores, "o", color=BLUE)
    accuracy.axhline(scores.mean(), color=ORANGE)
    deviation = scores.std(ddof=1)
    accuracy.axhspan(
        scores.mean() - deviation, scores.mean() + deviation, color=ORANGE, alpha=0.25, linewidth=0
    )
    accuracy.set(
        xlabel="fold", xticks=range(FOLDS), ylim=(min(0.85, scores.min() - 0.02), 1.0),
        title=f"Held-out accuracy: {scores.mean():.1%} ± {deviation:.1%}",
    )  # fmt: skip
    bars = times.barh(list(seconds), list(seconds.values()), color=[BLUE, GREY, GREY])
    times.bar_label(bars, [f"{value:.1f} s" for value in seconds.values()], padding=3)
    times.invert_yaxis()
    times.margins(x=0.2)
    times.set(xlabel="seconds, compilation included", title="Ten folds")


def main(argv: Sequence[str] | None = None) -> int:
    """Validates, compares, draws."""
    chosen = options(__doc__, argv)
    epochs = 2 if chosen.quick else 300
    examples = load()
    split_key, key = jax.random.split(jax.random.key(SEED))
    splits = fn.data.kfold(split_key, len(examples[1]), FOLDS, labels=examples[1])
    found, first = timed(at_once, examples, splits, key, epochs)
    print(f"{len(examples[1])} patients, {FOLDS} folds, {epochs} epochs\n\n{found}\n")
    if chosen.quick:
        return 0
    taken: dict[str, list[float]] = {"vmap": [first], "loop, compiled once": [], "loop": []}
    for again in progress(range(ROUNDS), "rounds"):
        if again:
            taken["vmap"].append(timed(at_once, examples, splits, key, epochs)[1])
        ways = {"loop": False} if again else {"loop, compiled once": True, "loop": False}
        for name, once in ways.items():
            accuracies, seconds = timed(by_loop, examples, splits, key, epochs, once)
            taken[name].append(seconds)
    median = {name: float(np.median(all_of)) for name, all_of in taken.items()}
    times = {name: value / median["vmap"] for name, value in median.items()}
    rows = [
        (name, f"{median[name]:.2f}", f"{min(each):.2f}–{max(each):.2f}", f"{times[name]:.1f}")
        for name, each in taken.items()
    ]
    print(table(("ten folds", "seconds", "from – to", "ratio to vmap"), rows))
    print(f"\nlargest difference in accuracy: {np.abs(accuracies - found.scores['accuracy']).max():.1g}")
    with picture(chosen.out / "cross_validation.png", 13, 4) as figure:
        draw(figure, found, median)
    return int(times["loop"] < LEAST_SPEEDUP)


if __name__ == "__main__":
    run(main)
