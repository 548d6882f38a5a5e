"""Real-time recurrent learning (RTRL) and backpropagation through time (BPTT): one gradient, two costs.

Both are the chain rule over the same steps. BPTT multiplies from the end to the start: it keeps the values of every
step, and has no gradient before the last step. RTRL multiplies from the start to the end: it carries the influence
M_t = ds_t/dparams of all params on the state, has the gradient after every step, and keeps nothing of the past.

The study first compares both gradients in float64. Then it computes the gradient of an LSTM on a sequence by BPTT, by
BPTT that keeps √T states and recomputes the rest (memory="sqrt"), and by RTRL: for increasing lengths, and for increasing
numbers of units. Time is the fastest of several calls of the compiled program; memory is what the compiler allocates
besides inputs and outputs. With S = 2H numbers in the state and P = 4H(H + D + 1) in the params,

            time          memory
    BPTT    T·P           T·H
    √T      T·P           √T·H
    RTRL    T·S²·P ∝ H⁴   S·P ∝ H³, for any T

Dashed lines have these slopes; BPTT's time by H has none, because so few units take it hardly any time. P does not
include the params of the dense layer after the LSTM.

`--quick` takes fewer and smaller sizes; `--out DIR` is the folder for the picture.

Williams & Zipser, A learning algorithm for continually running fully recurrent neural networks (1989); Menick et al.,
Practical real time recurrent learning with a sparse approximation (2021).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from support.common import BLUE, GREEN, ORANGE, options, picture, progress, run, table

import fnnets as fn

INPUTS, OUTPUTS, BATCH = 8, 4, 4
LOSS = fn.losses.mse()
CELLS = {
    "elman": fn.elman(6),
    "gru": fn.gru(6),
    "lstm": fn.lstm(6),
    "lstm, peephole, coupled": fn.lstm(6, peephole=True, coupled=True),
}


class Way(NamedTuple):
    """A way to compute the gradient."""

    gradient: Callable[[int], Callable[..., Any]]  # (units) -> (params, x, target) -> value and gradient
    color: str
    by_steps: dict[str, int]  # the expected exponents of its cost in T
    by_units: dict[str, int]  # and in H


class Cost(NamedTuple):
    """The cost of one gradient."""

    seconds: float
    bytes: int


def network(cell: fn.Layer) -> fn.Layer:
    """A recurrent layer with a dense output at every step."""
    return fn.serial(cell, fn.dense(OUTPUTS))


def bptt(units: int, **settings: Any) -> Callable[..., Any]:
    """The gradient of an LSTM, backward in time."""
    return fn.value_and_grad_by_hand(network(fn.lstm(units, **settings)), LOSS)


def forward_in_time(units: int) -> Callable[..., Any]:
    """The same, forward in time."""
    return fn.rtrl(network(fn.lstm(units)), LOSS).whole


WAYS = {
    "BPTT": Way(bptt, BLUE, {"seconds": 1, "bytes": 1}, {"bytes": 1}),
    "BPTT, √T states": Way(partial(bptt, memory="sqrt"), GREEN, {}, {}),
    "RTRL": Way(forward_in_time, ORANGE, {"seconds": 1, "bytes": 0}, {"seconds": 4, "bytes": 3}),
}
LENGTHS, WIDTHS = [16, 64, 256, 1024], [3, 6, 12, 24, 48]


def drawn(cell: fn.Layer, steps: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """(params, x, target), in jax's default float type."""
    rng, dtype = np.random.default_rng(0), jnp.result_type(float)
    x, target = (rng.standard_normal((BATCH, steps, n)).astype(dtype) for n in (INPUTS, OUTPUTS))
    shapes = jax.eval_shape(network(cell).init, jax.random.key(0), x)
    params = jax.tree.map(
        lambda leaf: (rng.standard_normal(leaf.shape) / np.sqrt(leaf.shape[0])).astype(dtype), shapes
    )
    return params, x, target


def difference(cell: fn.Layer, steps: int) -> tuple[float, float]:
    """The difference of RTRL from BPTT in float64, of the value and of the gradient, relative to the largest entry."""
    with jax.enable_x64(True):
        args = drawn(cell, steps)
        (value, _), grads = jax.jit(fn.rtrl(network(cell), LOSS).whole)(*args)
        (same, _), expected = jax.jit(fn.value_and_grad_by_hand(network(cell), LOSS))(*args)
    one, other = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (grads, expected)
    )
    return abs(float(value - same)) / float(same), float(np.abs(one - other).max() / np.abs(other).max())


def cost(way: Way, units: int, steps: int, budget: float) -> Cost:
    """The cost of the gradient of one batch; timed for `budget` seconds."""
    gradient = way.gradient(units)

    def value_and_gradient(*args: Any) -> Any:
        (value, _), dparams = gradient(*args)
        return value, dparams

    args = jax.device_put(drawn(fn.lstm(units), steps))
    compiled = jax.jit(value_and_gradient).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    fastest, begun = np.inf, time.perf_counter()
    while time.perf_counter() - begun < budget:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        fastest = min(fastest, time.perf_counter() - start)
    return Cost(fastest, compiled.memory_analysis().temp_size_in_bytes)


Costs = dict[str, dict[tuple[int, int], Cost]]  # by way, and by (units, steps)


def costs(ways: Sequence[str], sizes: set[tuple[int, int]], budget: float) -> Costs:
    """The cost of every way at every size."""
    found: Costs = {name: {} for name in ways}
    for name, at in progress([(name, at) for at in sorted(sizes) for name in ways], "costs"):
        found[name][at] = cost(WAYS[name], *at, budget)
    return found


def print_equality(steps: int, names: Sequence[str]) -> None:
    """Prints the difference of RTRL from BPTT."""
    rows = [(name, *(f"{gap:.0e}" for gap in difference(CELLS[name], steps))) for name in names]
    print(f"RTRL minus BPTT, {steps} steps, float64, relative to the largest entry\n")
    print(table(("", "value", "gradient"), rows))


def print_costs(head: str, numbers: Sequence[int], sizes: Sequence[tuple[int, int]], found: Costs) -> None:
    """Prints time and memory, a row for each number of steps or units."""
    rows = []
    for number, at in zip(numbers, sizes, strict=True):
        milliseconds = [f"{1e3 * each[at].seconds:.2f}" for each in found.values()]
        kibibytes = [f"{each[at].bytes / 2**10:.0f}" for each in found.values()]
        rows.append((number, *milliseconds, "", *kibibytes))
    print(f"\n\n{head}\n")
    print(table(("", *(f"{name}, ms" for name in found), "", *(f"{name}, KiB" for name in found)), rows))


def draw(axes: Any, numbers: Sequence[int], values: dict[str, list[float]], slopes: dict[str, int]) -> None:
    """One panel: time or memory of every way, and a line of the expected slope through its last point."""
    at = np.array(numbers)
    for name, each in values.items():
        axes.loglog(at, each, "o-", base=2, color=WAYS[name].color, label=name)
        if name in slopes:
            expected = each[-1] * (at / at[-1]) ** slopes[name]
            axes.loglog(at, expected, "--", base=2, color=WAYS[name].color, linewidth=1)
    axes.set(xticks=at, xticklabels=at)
    axes.set_yscale("log")
    axes.minorticks_off()


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the gradients, then measures their costs."""
    chosen = options(__doc__, argv)
    lengths, widths, units, steps = ([8, 32], [2, 4], 4, 8) if chosen.quick else (LENGTHS, WIDTHS, 12, 16)
    print_equality(steps, list(CELLS)[-1:] if chosen.quick else list(CELLS))

    by_length, by_width = [(units, length) for length in lengths], [(width, steps) for width in widths]
    ways, budget = (list(WAYS)[::2], 0.02) if chosen.quick else (list(WAYS), 0.3)
    found = costs(ways, {*by_length, *by_width}, budget)
    titles = f"{units} units, {BATCH} sequences", f"{steps} steps, {BATCH} sequences"
    print_costs(f"By the number of steps T; {titles[0]}", lengths, by_length, found)
    print_costs(f"By the number of units H; {titles[1]}", widths, by_width, found)

    with picture(chosen.out / "rtrl.png", 11, 7.5) as figure:
        panels = figure.subplots(2, 2)
        rows = (lengths, by_length, "steps T", "by_steps"), (widths, by_width, "units H", "by_units")
        for row, (numbers, sizes, what, by), title in zip(panels, rows, titles, strict=True):
            for axes, field, unit, factor in zip(
                row, Cost._fields, ("ms", "KiB"), (1e3, 2**-10), strict=True
            ):
                values = {
                    name: [factor * getattr(each[at], field) for at in sizes] for name, each in found.items()
                }
                slopes = {
                    name: exponents[field]
                    for name in found
                    if field in (exponents := getattr(WAYS[name], by))
                }
                draw(axes, numbers, values, slopes)
                axes.set(title=f"{'Time' if unit == 'ms' else 'Memory'}, {unit}; {title}", xlabel=what)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(found))
    return 0


if __name__ == "__main__":
    run(main)
