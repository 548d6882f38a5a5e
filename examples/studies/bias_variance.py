"""Error = bias² + variance + noise, measured as a network grows: `python examples/studies/bias_variance.py`.

How much ink does a 3 have at row i, column j? A network with two inputs, the row and the column, and H hidden units
learns it from 100 observations. Each is the ink, 0 to 16, at a random place in a random one of scikit-learn's 183
handwritten 3s. Every picture has a value at every place, so here, unlike in most data, bias and noise can be separated:
the differences between pictures at one place are noise, which no function of the place can predict.

The pictures are split into two halves. From the first half, B bootstrap samples of 100 observations each are drawn with
replacement. B networks, each with its own initial weights, fit one sample each, all in one vmapped program. The n
pictures of the second half are held out and measure the error: for the prediction f_b(x) and the ink y_k(x) at the
place x,

    error(x) = 1/(B·n)·Σ_b Σ_k (f_b(x) − y_k(x))²

With f̄ = Σ_b f_b/B, ȳ = Σ_k y_k/n and the variances v = Σ_b (f_b − f̄)²/(B − 1), s = Σ_k (y_k − ȳ)²/(n − 1) let

    variance = v,  noise = s,  bias² = (f̄ − ȳ)² − v/B − s/n

Their sum is exactly the error, for any numbers: f_b − y_k = (f_b − f̄) + (f̄ − ȳ) + (ȳ − y_k), the cross terms cancel
in the sums, and the mean squares of the outer two are v − v/B and s − s/n. The study checks this in float64 and prints
it. Each part is an unbiased estimate of its value for infinitely many fits and pictures: (f̄ − ȳ)² alone would contain
v/B + s/n even if the mean of infinitely many fits were exact. Bias is relative to the held-out half: the difference
between the mean pictures of the two halves, about s/n, stays in bias², equally in every row of the table. All numbers
are means over the 64 places.

A small network is nearly the same for every sample, and wrong (bias). A large one is right on average, but each
follows the noise of its own sample (variance). The error is lowest in between. (Two results differ from the textbook:
fits with 2 units vary more than with 3, and fits of the widest network less than of the one before.) The error
describes the networks; to choose one by it, a third part of the data would be needed to test the choice.

`--quick` takes fewer networks, fits and steps; `--out DIR` is the folder for the picture.

Geman, Bienenstock & Doursat, Neural networks and the bias/variance dilemma, Neural Computation 4 (1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREEN, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

DIGIT, OBSERVATIONS, ROW = 3, 100, 4  # the picture shows fits along the pixels of ROW
FINE = 4  # predictions are drawn at this many points per pixel
LOSS = fn.losses.mse()


class Size(NamedTuple):
    """The size of the study."""

    units: tuple[int, ...]
    fits: int
    steps: int


FULL = Size((1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128), 50, 2000)
QUICK = Size((1, 4), 8, 100)


class Parts(NamedTuple):
    """The error and its parts, at each place."""

    error: np.ndarray
    bias: np.ndarray  # squared
    variance: np.ndarray
    noise: np.ndarray


class Fits(NamedTuple):
    """The networks of one width."""

    predictions: np.ndarray  # (B, 7·FINE + 1, 7·FINE + 1)
    training: float  # the mean squared error on their own samples
    parts: Parts  # (8, 8) each


def halves() -> tuple[np.ndarray, np.ndarray]:
    """The pictures for training and those held out, (·, 8, 8)."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    pictures = pixels[digits == DIGIT].reshape(-1, 8, 8)
    order = np.random.default_rng(0).permutation(len(pictures))
    return pictures[order[::2]], pictures[order[1::2]]


def places(count: int) -> np.ndarray:
    """A grid from the first pixel to the last in both directions, (count, count, 2), in −1…1."""
    line = np.linspace(-1, 1, count, dtype=np.float32)
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1)


def samples(pictures: np.ndarray, fits: int) -> tuple[jax.Array, jax.Array]:
    """For each fit the observed places, (B, N, 2), and the ink there, (B, N, 1), in −1…1."""
    random = np.random.default_rng(1)
    which, i, j = (random.integers(n, size=(fits, OBSERVATIONS)) for n in pictures.shape)
    return jnp.asarray(places(8)[i, j]), jnp.asarray(pictures[which, i, j, None] / 8 - 1, np.float32)


def fitted(units: int, size: Size, x: jax.Array, y: jax.Array) -> tuple[np.ndarray, float]:
    """Fits B networks, one to each sample; returns their predictions as ink from 0 to 16, and their training error."""
    net = fn.serial(fn.dense(units), fn.tanh(), fn.dense(1))
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)
    updater = optax.adam(optax.cosine_decay_schedule(0.02, size.steps))

    def one(params: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(state: Any, _: None) -> tuple[Any, None]:
            params, memory = state
            _, grads = value_and_grad(params, x, y)
            updates, memory = updater.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory), None

        (params, _), _ = jax.lax.scan(step, (params, updater.init(params)), length=size.steps)
        predictions = net.apply(params, jnp.asarray(places(7 * FINE + 1)))[..., 0]
        return predictions, LOSS.apply(net.apply(params, x), y)

    keys = jax.random.split(jax.random.key(0), size.fits)
    starts = [net.init(key, x[0]) for key in keys]  # outside jit, which compiles faster
    params = jax.tree.map(lambda *each: jnp.stack(each), *starts)
    predictions, losses = jax.jit(jax.vmap(one))(params, x, y)
    return 8 * (np.asarray(predictions, np.float64) + 1), 64 * float(losses.mean())


def decomposed(predictions: np.ndarray, observed: np.ndarray) -> Parts:
    """The error of B predictions, (B, …), for n observations, (n, …), and its three parts."""
    difference = predictions.mean(0) - observed.mean(0)
    variance, noise = predictions.var(0, ddof=1), observed.var(0, ddof=1)
    bias = difference**2 - variance / len(predictions) - noise / len(observed)
    error = ((predictions[:, None] - observed) ** 2).mean((0, 1))
    return Parts(error, bias, variance, noise)


def report(found: dict[int, Fits]) -> str:
    """A row for each width: the parts, their sum, the error, and the largest difference of the two."""
    rows = []
    for units, fits in found.items():
        error, *parts = (float(part.mean()) for part in fits.parts)
        largest = max(abs(sum(each) - whole) for whole, *each in zip(*map(np.ravel, fits.parts), strict=True))
        numbers = (fits.training, *parts, sum(parts), error)
        rows.append((units, 4 * units + 1, *(f"{number:.2f}" for number in numbers), f"{largest:.0e}"))
    head = ("hidden units", "params", "training error", "bias²", "variance", "noise", "their sum", "error")
    return table((*head, "largest difference at a place"), rows)


def draw(figure: Any, found: dict[int, Fits], held_out: np.ndarray) -> None:
    """Left: the parts by width, and the held-out pictures. Right: three networks."""
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    upper, lower = left.subfigures(2, 1, height_ratios=(1.9, 1))
    lowest = min(found, key=lambda units: found[units].parts.error.mean())
    draw_parts(upper.subplots(), found, lowest)
    mean, noise = lower.subplots(1, 2)
    show(mean, held_out.mean(0), "Greys", 16)
    show(noise, held_out.std(0, ddof=1), "Oranges", 8)
    mean.set_title(f"Held out: mean of {len(held_out)} pictures")
    noise.set_title("Their deviation (noise)")
    for axes in (mean, noise):
        axes.axhline(ROW, color=GREEN, linestyle="--", linewidth=1)

    panels = right.subplots(3, 3, height_ratios=(1, 1, 1.15))
    chosen = {"small": min(found), "lowest error": lowest, "large": max(found)}
    for column, (name, units) in zip(panels.T, chosen.items(), strict=True):
        predictions = found[units].predictions
        average, spread, cut = column
        show(average, predictions.mean(0), "Greys", 16)
        show(spread, predictions.std(0, ddof=1), "Oranges", 8)
        average.set_title(f"{name}: {units} hidden unit{'s' * (units > 1)}")
        draw_cut(cut, predictions[:, ROW * FINE], held_out[:, ROW])
    for axes, name in zip(panels[:, 0], ("mean of the fits", "their deviation", "ink"), strict=True):
        axes.set_ylabel(name)
    panels[2, 1].set_xlabel("column, along the dashed row: each fit, their mean, the pictures ± noise")


def draw_parts(axes: Any, found: dict[int, Fits], lowest: int) -> None:
    """The means over all places, by the number of hidden units."""
    parts = {name: [getattr(fits.parts, name).mean() for fits in found.values()] for name in Parts._fields}
    axes.plot(list(found), parts["error"], "o-", color="#222222", label="error, held out", linewidth=2.4)
    axes.plot(list(found), parts["bias"], "o-", color=BLUE, label="bias²")
    axes.plot(list(found), parts["variance"], "o-", color=ORANGE, label="variance")
    axes.plot(list(found), parts["noise"], "--", color=GREY, label="noise")
    training = [fits.training for fits in found.values()]
    axes.plot(list(found), training, ":", color=RED, label="training error")
    axes.axvline(lowest, color=GREEN, linewidth=1, linestyle="--")
    axes.set(xscale="log", xlabel="hidden units", ylabel="ink², of 16²", ylim=(0, None))
    axes.set_xticks(list(found), list(found))
    axes.set_xticks([], minor=True)
    axes.set_title("Error = bias² + variance + noise")
    axes.legend()


def show(axes: Any, values: np.ndarray, colors: str, most: float) -> None:
    """A function of the place as a picture."""
    edge = 3.5 / (len(values) - 1)  # half a step beyond the first and the last place
    axes.imshow(values, cmap=colors, vmin=0, vmax=most, extent=(-edge, 7 + edge, 7 + edge, -edge))
    axes.set(xlim=(-0.5, 7.5), ylim=(7.5, -0.5))
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def draw_cut(axes: Any, fits: np.ndarray, observed: np.ndarray) -> None:
    """Each fit along one row, their mean, and the held-out pictures."""
    columns = np.arange(8)
    line = np.linspace(0, 7, fits.shape[-1])
    axes.plot(line, fits.T, color=ORANGE, linewidth=0.7, alpha=0.45)
    axes.plot(line, fits.mean(0), color=BLUE, linewidth=2.4)
    bars = {"color": "#222222", "markersize": 5, "capsize": 2, "linewidth": 1, "zorder": 5}
    axes.errorbar(columns, observed.mean(0), observed.std(0, ddof=1), fmt="o", **bars)
    axes.set(ylim=(-6, 24), xticks=columns)


def main(argv: Sequence[str] | None = None) -> int:
    """Fits, prints the table, draws."""
    chosen = options(__doc__, argv)
    size = QUICK if chosen.quick else FULL
    train, held_out = halves()
    print(
        f"{len(train)} pictures of a {DIGIT} for training, {len(held_out)} held out, {size.fits} fits each\n"
    )
    x, y = samples(train, size.fits)
    found = {}
    for units in progress(size.units, "networks"):
        predictions, training = fitted(units, size, x, y)
        found[units] = Fits(predictions, training, decomposed(predictions[:, ::FINE, ::FINE], held_out))
    print(report(found))
    of_means = decomposed(np.stack([train.mean(0)] * 2), held_out)
    print(f"\nbias² of the mean training picture: {of_means.bias.mean():.2f}")
    with picture(chosen.out / "bias_variance.png", 15, 8.4) as figure:
        draw(figure, found, held_out)
    return 0


if __name__ == "__main__":
    run(main)
