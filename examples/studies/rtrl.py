"""Real-time recurrent learning (RTRL) beside backpropagation through time (BPTT): one gradient, two prices.

Both are the chain rule over the same steps. BPTT multiplies from the end to the start: it keeps what every step
computed, and gives no gradient before the last step is there. RTRL multiplies from the start on: it carries the influence
M_t = ds_t/dparams of all params on the state, has the gradient after every step, and keeps nothing of the past.

First both gradients are held against each other, in float64. Then an LSTM is asked for its gradient on a sequence, by
BPTT, by BPTT that keeps √T states and computes the rest again (memory="sqrt"), and by RTRL: once on longer and
longer sequences, once with more and more units. Time is the fastest of several calls of the compiled program, memory what
the compiler sets aside for it beside inputs and outputs. With S = 2H numbers in the state and P = 4H(H + D + 1) in the
params,

            time          memory
    BPTT    T·P           T·H
    √T      T·P           √T·H
    RTRL    T·S²·P ∝ H⁴   S·P ∝ H³, whatever T

Dashed lines have these slopes; BPTT's time in H has none, as so few units are hardly any work for it. What the dense
layer behind the LSTM learns is not among the P.

`--quick` takes fewer and smaller ones; `--out DIR` says where the picture goes.

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
    """A way to the gradient."""

    gradient: Callable[[int], Callable[..., Any]]  # by the number of units
    color: str
    by_steps: dict[str, int]  # the exponents that are due, of what it costs in T, in H
    by_units: dict[str, int]


class Price(NamedTuple):
    """What one gradient costs."""

    seconds: float
    bytes: int


def network(cell: fn.Layer) -> fn.Layer:
    """A recurrent layer that is asked at every step."""
    return fn.serial(cell, fn.dense(OUTPUTS))


def bptt(units: int, **settings: Any) -> Callable[..., Any]:
    """The gradient of an LSTM backward in time."""
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
    """(params, x, target), in float32 unless it is changed to float64."""
    rng, dtype = np.random.default_rng(0), jnp.result_type(float)
    x, target = (rng.standard_normal((BATCH, steps, n)).astype(dtype) for n in (INPUTS, OUTPUTS))
    shapes = jax.eval_shape(network(cell).init, jax.random.key(0), x)
    params = jax.tree.map(
        lambda leaf: (rng.standard_normal(leaf.shape) / np.sqrt(leaf.shape[0])).astype(dtype), shapes
    )
    return params, x, target


def difference(cell: fn.Layer, steps: int) -> tuple[float, float]:
    """How far RTRL is from BPTT, in float64: of the value, and of the gradient, both relative to the largest."""
    with jax.enable_x64(True):
        given = drawn(cell, steps)
        (value, _), grads = jax.jit(fn.rtrl(network(cell), LOSS).whole)(*given)
        (same, _), expected = jax.jit(fn.value_and_grad_by_hand(network(cell), LOSS))(*given)
    one, other = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (grads, expected)
    )
    return abs(float(value - same)) / float(same), float(np.abs(one - other).max() / np.abs(other).max())


def price(way: Way, units: int, steps: int, budget: float) -> Price:
    """What the gradient of one batch costs."""
    gradient = way.gradient(units)

    def value_and_gradient(*given: Any) -> Any:
        (value, _), dparams = gradient(*given)
        return value, dparams

    given = jax.device_put(drawn(fn.lstm(units), steps))
    compiled = jax.jit(value_and_gradient).lower(*given).compile()
    jax.block_until_ready(compiled(*given))
    fastest, begun = np.inf, time.perf_counter()
    while time.perf_counter() - begun < budget:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        fastest = min(fastest, time.perf_counter() - start)
    return Price(fastest, compiled.memory_analysis().temp_size_in_bytes)


Prices = dict[str, dict[tuple[int, int], Price]]  # by way, and by (units, steps)


def prices(ways: Sequence[str], where: set[tuple[int, int]], budget: float) -> Prices:
    """What every way costs, everywhere."""
    found: Prices = {name: {} for name in ways}
    for name, at in progress([(name, at) for at in sorted(where) for name in ways], "prices"):
        found[name][at] = price(WAYS[name], *at, budget)
    return found


def print_equality(steps: int, names: Sequence[str]) -> None:
    """RTRL beside BPTT."""
    rows = [(name, *(f"{gap:.0e}" for gap in difference(CELLS[name], steps))) for name in names]
    print(f"RTRL less BPTT, {steps} steps, float64, relative to the largest\n")
    print(table(("", "value", "gradient"), rows))


def print_prices(head: str, numbers: Sequence[int], where: Sequence[tuple[int, int]], found: Prices) -> None:
    """Time and memory, a row for each number."""
    rows = []
    for number, at in zip(numbers, where, strict=True):
        milliseconds = [f"{1e3 * each[at].seconds:.2f}" for each in found.values()]
        kibibytes = [f"{each[at].bytes / 2**10:.0f}" for each in found.values()]
        rows.append((number, *milliseconds, "", *kibibytes))
    print(f"\n\n{head}\n")
    print(table(("", *(f"{name}, ms" for name in found), "", *(f"{name}, KiB" for name in found)), rows))


def draw(axes: Any, numbers: Sequence[int], values: dict[str, list[float]], slopes: dict[str, int]) -> None:
    """One panel: a price of every way, and from its last point back the slope that is due."""
    at = np.array(numbers)
    for name, each in values.items():
        axes.loglog(at, each, "o-", base=2, color=WAYS[name].color, label=name)
        if name in slopes:
            due = each[-1] * (at / at[-1]) ** slopes[name]
            axes.loglog(at, due, "--", base=2, color=WAYS[name].color, linewidth=1)
    axes.set(xticks=at, xticklabels=at)
    axes.set_yscale("log")
    axes.minorticks_off()


def main(argv: Sequence[str] | None = None) -> int:
    """First the same, then what it costs."""
    chosen = options(__doc__, argv)
    lengths, widths, units, steps = ([8, 32], [2, 4], 4, 8) if chosen.quick else (LENGTHS, WIDTHS, 12, 16)
    print_equality(steps, list(CELLS)[-1:] if chosen.quick else list(CELLS))

    by_length, by_width = [(units, length) for length in lengths], [(width, steps) for width in widths]
    ways, budget = (list(WAYS)[::2], 0.02) if chosen.quick else (list(WAYS), 0.3)
    found = prices(ways, {*by_length, *by_width}, budget)
    titles = f"{units} units, {BATCH} sequences", f"{steps} steps, {BATCH} sequences"
    print_prices(f"By the number of steps T; {titles[0]}", lengths, by_length, found)
    print_prices(f"By the number of units H; {titles[1]}", widths, by_width, found)

    with picture(chosen.out / "rtrl.png", 11, 7.5) as figure:
        panels = figure.subplots(2, 2)
        rows = (lengths, by_length, "steps T", "by_steps"), (widths, by_width, "units H", "by_units")
        for row, (numbers, where, what, slope), title in zip(panels, rows, titles, strict=True):
            for axes, field, unit, factor in zip(
                row, Price._fields, ("ms", "KiB"), (1e3, 2**-10), strict=True
            ):
                values = {
                    name: [factor * getattr(each[at], field) for at in where] for name, each in found.items()
                }
                slopes = {
                    name: dues[field] for name in found if field in (dues := getattr(WAYS[name], slope))
                }
                draw(axes, numbers, values, slopes)
                axes.set(title=f"{'Time' if unit == 'ms' else 'Memory'}, {unit}; {title}", xlabel=what)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(found))
    return 0


if __name__ == "__main__":
    run(main)
