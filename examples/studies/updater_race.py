"""A race of all updaters on four landscapes, from the same start: `python examples/studies/updater_race.py`.

The landscapes are functions of two parameters: Beale's, with flat plains around its only minimum; a saddle, started
almost on the ridge that leads into it; a long ravine, 200 times steeper across than along; and Rosenbrock's banana. A
first-order updater runs at every rate of a grid, and the rate that arrives first is drawn. All runs of all updaters, on
all functions and at all rates, are one vmapped `lax.scan`.

What to look for:

- sgd, adagrad, adadelta and rmsprop crawl along the ravine; momentum, nesterov and adam overshoot, and arrive
  in about a hundred steps. Newton takes one step: the ravine is a quadratic function.
- Plain Newton, −H⁻¹g, steps straight into the saddle, where the gradient is 0, and stays there; on Beale's
  function it ends in another saddle. With |H| (saddle-free) or with damping it goes around. On Rosenbrock's
  function plain Newton is the fastest: it may climb on the way, which a line search does not allow.
- At the rate that arrives first, rmsprop never settles: its step stays as long as its rate.

`--quick` runs fewer steps and rates; `--out DIR` is the folder for the picture and the animation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import options, picture, progress, run, table

import fnnets as fn
from fnnets import catalogue


class Landscape(NamedTuple):
    """A function of two parameters, with its start, its minima and the window to draw."""

    name: str
    loss: Callable[[jax.Array], jax.Array]  # (2,) -> ()
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    window: tuple[float, float, float, float]  # left, right, bottom, top


def beale(p: jax.Array) -> jax.Array:
    """Beale's function: its minimum, 0, is at (3, ½)."""
    x, y = p
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle(p: jax.Array) -> jax.Array:
    """A saddle of height ¼ at 0; the minima, 0, are at (0, ±1)."""
    x, y = p
    return 0.5 * x**2 + 0.25 * (1 - y**2) ** 2


def ravine(p: jax.Array) -> jax.Array:
    """A ravine, 200 times steeper across than along; its minimum, 0, is at 0."""
    along, across = (p[0] + p[1]) / 2**0.5, (p[0] - p[1]) / 2**0.5
    return 0.05 * along**2 + 10 * across**2


def rosenbrock(p: jax.Array) -> jax.Array:
    """Rosenbrock's function: its minimum, 0, is at (1, 1), at the end of a bent valley."""
    x, y = p
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


LANDSCAPES = (
    Landscape("Beale", beale, (1.0, 1.5), ((3.0, 0.5),), (-0.5, 4.5, -1.5, 2.0)),
    Landscape("saddle", saddle, (1.5, 1e-3), ((0.0, 1.0), (0.0, -1.0)), (-1.9, 1.9, -1.4, 1.8)),
    Landscape("ravine", ravine, (-2.5, -1.5), ((0.0, 0.0),), (-3.2, 1.2, -2.4, 1.2)),
    Landscape("Rosenbrock", rosenbrock, (-1.2, 1.0), ((1.0, 1.0),), (-1.9, 1.7, -0.7, 2.2)),
)
FIRST_ORDER = {
    case.name: lambda rate, case=case: case.make(learning_rate=rate)
    for case in catalogue.updater_cases()
    if case.order == 1 and case.name == case.factory.__name__
} | {"adadelta": lambda rate: fn.updaters.adadelta(10 * rate, eps=1e-4)}
NEWTON = {
    "plain newton": fn.updaters.newton(adapt_damping=False, line_search=False),
    "newton": fn.updaters.newton(),
    "saddle-free": fn.updaters.newton(curvature="saddle_free"),
}
PALETTE = (
    "#8a8f98", "#2f6db3", "#5fb4d9", "#b08d57", "#d6b35a", "#2a9d6f", "#e08214", "#f2b07b", "#7a9e3a", "#4d4d9e",
)  # fmt: skip
COLOURS = dict(zip(FIRST_ORDER, itertools.cycle(PALETTE), strict=False))
COLOURS |= dict(zip(NEWTON, ("#c8373f", "#8458b3", "#d070b8"), strict=True))


class Race(NamedTuple):
    """The fastest runs; N landscapes, T steps."""

    paths: dict[str, np.ndarray]  # updater -> (N, T + 1, 2)
    losses: dict[str, np.ndarray]  # updater -> (N, T + 1), above the minimum
    rates: dict[str, np.ndarray]  # updater -> (N,), the fastest rate; NaN for Newton


def scanned(steps: int) -> Callable[[jax.Array, jax.Array], dict[str, jax.Array]]:
    """A function of (index of the landscape, rate): the paths (T + 1, 2) of all updaters, in one scan."""

    def paths(which: jax.Array, rate: jax.Array) -> dict[str, jax.Array]:
        updaters = {name: make(rate) for name, make in FIRST_ORDER.items()} | NEWTON
        start = jnp.array([landscape.start for landscape in LANDSCAPES])[which]

        def loss(p: jax.Array) -> jax.Array:
            return jnp.stack([landscape.loss(p) for landscape in LANDSCAPES])[which]

        def step(carry: Any, _: None) -> Any:
            moved = {}
            for name, (params, state) in carry.items():
                grads = jax.grad(loss)(params)
                updates, state = updaters[name].update(grads, state, params, value_fn=loss)
                moved[name] = (optax.apply_updates(params, updates), state)
            return moved, {name: params for name, (params, _) in moved.items()}

        first = {name: (start, updater.init(start)) for name, updater in updaters.items()}
        _, rest = jax.lax.scan(step, first, length=steps)
        return {name: jnp.concatenate([start[None], path]) for name, path in rest.items()}

    return paths


def race(steps: int, rates: jax.Array) -> Race:
    """Runs everything in one program; keeps the rate that arrives first (and ends lowest), by updater and landscape."""
    over_rates = jax.vmap(scanned(steps), in_axes=(None, 0))
    everything = jax.jit(jax.vmap(over_rates, in_axes=(0, None)))
    found = jax.device_get(everything(jnp.arange(len(LANDSCAPES)), rates))
    fastest: Race = Race({}, {}, {})
    for name in COLOURS:
        paths = found[name]  # (N, R, T + 1, 2)
        heights = np.stack(
            [jax.vmap(jax.vmap(one.loss))(path) for one, path in zip(LANDSCAPES, paths, strict=True)]
        )
        ends = np.nan_to_num(heights[:, :, -max(1, steps // 10) :], nan=np.inf).max(-1)
        arrivals = np.array(
            [
                [arrival(path, one.minima) for path in each]
                for one, each in zip(LANDSCAPES, paths, strict=True)
            ]
        )
        best = np.lexsort((ends, arrivals))[:, 0]
        rows = np.arange(len(LANDSCAPES))
        fastest.paths[name], fastest.losses[name] = paths[rows, best], heights[rows, best]
        fastest.rates[name] = np.full(len(rows), np.nan) if name in NEWTON else np.asarray(rates)[best]
    return fastest


def arrival(path: np.ndarray, minima: Sequence[tuple[float, float]]) -> int:
    """The first step from which on a path stays within 0.01 of a minimum; the path's length if it never does."""
    far = np.abs(path[:, None] - np.array(minima)).max(-1).min(-1) > 0.01
    away = np.flatnonzero(far | ~np.isfinite(path).all(-1))
    return int(away[-1]) + 1 if len(away) else 0


def report(result: Race) -> str:
    """A table of each updater's arrival and rate."""
    rows = []
    for name, paths in result.paths.items():
        cells = []
        for i, landscape in enumerate(LANDSCAPES):
            rate = result.rates[name][i]
            steps = arrival(paths[i], landscape.minima)
            cells += ["–" if steps == len(paths[i]) else steps, "" if np.isnan(rate) else f"{rate:.2g}"]
        rows.append((name, *cells))
    head = [column for landscape in LANDSCAPES for column in (landscape.name, "rate")]
    return table(("steps until it stays within 0.01 of a minimum", *head), rows)


def contours(axes: Any, landscape: Landscape) -> None:
    """The landscape's contours, in logarithmic steps, its minima and its start."""
    left, right, bottom, top = landscape.window
    x, y = np.meshgrid(np.linspace(left, right, 240), np.linspace(bottom, top, 240))
    height = np.log10(
        np.asarray(jax.vmap(landscape.loss, in_axes=1)(jnp.stack([x.ravel(), y.ravel()]))) + 1e-4
    )
    axes.contourf(
        x,
        y,
        height.reshape(x.shape),
        levels=22,
        cmap="Greys",
        vmax=height.min() + 2.5 * np.ptp(height),
        zorder=0,
    )
    axes.plot(*np.array(landscape.minima).T, "*", color="#222222", markersize=12, zorder=5)
    axes.plot(*landscape.start, "o", color="#222222", markersize=6, zorder=5)
    axes.set(xlim=(left, right), ylim=(bottom, top), title=landscape.name)
    axes.grid(visible=False)
    axes.tick_params(labelsize=8)


def width(name: str) -> float:
    """The width of a line: thicker for Newton."""
    return 2.4 if name in NEWTON else 1.5


def dashes(name: str) -> str:
    """The style of a line: dashed for saddle-free Newton, which often lies on top of Newton."""
    return "--" if name == "saddle-free" else "-"


def draw(figure: Any, result: Race) -> None:
    """Top: the paths on the contours. Bottom: the losses step by step."""
    rows = figure.subplots(2, len(LANDSCAPES), height_ratios=(1.25, 1))
    for i, landscape in enumerate(LANDSCAPES):
        above, below = rows[0, i], rows[1, i]
        contours(above, landscape)
        for name, paths in result.paths.items():
            style = {"color": COLOURS[name], "linewidth": width(name), "linestyle": dashes(name)}
            above.plot(*paths[i].T, **style, alpha=0.9, marker=".", markersize=2.5)
            below.loglog(
                np.arange(len(paths[i])) + 1, np.maximum(result.losses[name][i], 1e-16), **style, label=name
            )
        below.set(xlabel="step + 1", ylim=(3e-17, None))
        below.tick_params(labelsize=8)
    rows[1, 0].set_ylabel("loss")
    handles, names = rows[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9)


def animate(result: Race, path: Any, frames: int) -> None:
    """Writes the race as a GIF, which speeds up with the steps; each updater leaves a trail."""
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 7.4), layout="constrained", dpi=72)
    grid = figure.subplots(2, 2).ravel()
    for axes, landscape in zip(grid, LANDSCAPES, strict=True):
        contours(axes, landscape)
    lines = {
        name: [
            axes.plot(
                [],
                [],
                color=colour,
                linewidth=width(name),
                marker="o",
                markevery=[-1],
                markersize=6,
                label=name,
            )[0]
            for axes in grid
        ]
        for name, colour in COLOURS.items()
    }
    figure.legend(
        handles=[each[0] for each in lines.values()], loc="outside lower center", ncols=6, fontsize=9
    )
    title = figure.suptitle("", fontsize=12)
    last = len(next(iter(result.paths.values()))[0]) - 1
    steps = np.unique(np.round(np.geomspace(1, last + 1, frames)).astype(int) - 1)

    def show(step: int) -> list[Any]:
        title.set_text(f"step {step}")
        for name, each in lines.items():
            for i, line in enumerate(each):
                line.set_data(*result.paths[name][i, : step + 1].T)
        return [title]

    shown = [*steps, *[last] * (frames // 5)]  # holds the last frame for a moment
    FuncAnimation(figure, show, frames=progress(shown, "frames")).save(path, PillowWriter(fps=8))
    print(f"animation: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the race, prints the arrivals, draws."""
    chosen = options(__doc__, argv)
    steps, count, frames = (60, 3, 2) if chosen.quick else (400, 25, 60)
    result = race(steps, jnp.logspace(-3.5, 0.5, count))
    print(report(result))
    with picture(chosen.out / "updater_race.png", 15, 8) as figure:
        draw(figure, result)
    animate(result, chosen.out / "updater_race.gif", frames)
    return 0


if __name__ == "__main__":
    run(main)
