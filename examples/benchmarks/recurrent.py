"""One training step of an LSTM and a GRU: by hand, by autodiff, in other frameworks, and the matrix products alone.

Run `python examples/benchmarks/recurrent.py`; `--quick` only shows that it runs, `--results FILE` writes the
report to a file. The step is in recurrent_task.py, the other frameworks are in recurrent_peers.py; those that
are not installed are left out. A ratio compares the fastest of each group; `AIMS` holds the claims on its
geometric mean over the sizes. For the gradient by hand it also measures memory="sqrt" at 4096 steps, of the
layer without a loss, and the time to compile the step.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recurrent_peers as peers
import recurrent_task as task
from harness import Ratio, Verdict, arguments, mean_ratio, processor, ratio, versions
from processes import MEASURED, SITTINGS, TURN, Contender, Row, measure
from recurrent_task import Settings

Size = tuple[int, int, int]  # T, B, H

CELLS = ("lstm", "gru")
SIZES: tuple[Size, ...] = ((512, 8, 32), (256, 16, 64), (64, 32, 128), (128, 32, 256), (64, 64, 512))
QUICK: tuple[Size, ...] = ((4, 2, 128),)
# The second of each pair is for --quick.
ROUNDS = (30, 2)
LONG: tuple[Size, Size] = ((4096, 8, 64), (64, 2, 4))  # for memory="sqrt"
COMPILED = ((64, 4096), (4, 8))  # steps, for the time to compile

CONTENDERS = (
    Contender("by hand", task.by_hand),
    Contender("jax.grad(apply)", task.grad_of_apply),
    Contender("jax.grad(forward)", task.grad_of_forward),
    Contender("flax", peers.flax, "flax"),
    Contender("haiku", peers.haiku, "dm-haiku"),
    Contender("equinox", peers.equinox, "equinox"),
    Contender("keras", peers.keras, "keras"),
    Contender("pytorch", peers.pytorch, "torch"),
    Contender("products, rows", task.products),
    Contender("products, columns", task.products_in_columns),
)
OURS = ("by hand",)
AUTODIFF = ("jax.grad(apply)", "jax.grad(forward)")
JAX_PEERS = ("flax", "haiku", "equinox", "keras")
PRODUCTS = ("products, rows", "products, columns")


class Aim(NamedTuple):
    """A ratio of the fastest times of two groups, and the claim on its geometric mean, if any."""

    over: tuple[str, ...]
    under: tuple[str, ...]
    title: str
    least: float = 0.0
    most: float = np.inf
    never_below: float = 0.0  # at any size, within the interval
    features: int = 0  # the mean is over the sizes from this H on


AIMS = (
    Aim(AUTODIFF, OURS, "faster autodiff / by hand", least=1.25, never_below=1.0),
    Aim(JAX_PEERS, OURS, "fastest of flax, haiku, equinox, keras / by hand", least=1.25),
    Aim(OURS, PRODUCTS, "by hand / products alone, mean from H = 128", most=1.2, features=128),
    Aim(("pytorch",), OURS, "pytorch / by hand"),
)
CLAIMED = [aim for aim in AIMS if aim.least or aim.most < np.inf]


class Part(NamedTuple):
    """The measurements at one size."""

    settings: Settings
    rows: list[Row]

    def fastest(self, names: Sequence[str]) -> Row | None:
        """The fastest of the named contenders; None if none could be measured."""
        rows = [row for row in self.rows if row.name in names and row.status == MEASURED]
        return min(rows, key=lambda row: np.median(row.seconds), default=None)

    def pair(self, aim: Aim) -> tuple[list[float], list[float]] | None:
        """The times whose ratio the aim takes."""
        over, under = self.fastest(aim.over), self.fastest(aim.under)
        return None if over is None or under is None else (over.seconds, under.seconds)

    def __str__(self) -> str:
        _, steps, batch, size = self.settings
        return f"T {steps}, B {batch}, H {size}"


def mean(aim: Aim, parts: Sequence[Part]) -> Ratio | None:
    """The geometric mean of the aim's ratio; None if it could not be measured at every size."""
    pairs = [part.pair(aim) for part in parts if part.settings.features >= aim.features]
    known = [pair for pair in pairs if pair is not None]
    return mean_ratio(known) if known and len(known) == len(pairs) else None


def judge(aim: Aim, parts: Sequence[Part]) -> Verdict:
    """The verdict on an aim."""
    found = mean(aim, parts)
    if found is None:
        return Verdict(None, f"{aim.title}: not compared, one side could not be measured")
    bounds = [f"at least {aim.least:g}"] * (aim.least > 0) + [f"at most {aim.most:g}"] * (aim.most < np.inf)
    below = [
        part for part in parts if (pair := part.pair(aim)) is not None and ratio(*pair).high < aim.never_below
    ]
    text = f"{aim.title}, {' and '.join(bounds)}: {found}"
    if aim.never_below:
        text += f"; below {aim.never_below:g} at {'; '.join(map(str, below)) or 'no size'}"
    return Verdict(aim.least <= found.value <= aim.most and not below, text)


def judge_memory(parts: Sequence[Part]) -> Verdict:
    """The verdict on our temporary memory: at most that of the leaner autodiff."""
    more = []
    for part in parts:
        temp = {row.name: row.figures["temp"] for row in part.rows if "temp" in row.figures}
        least = min((temp[name] for name in AUTODIFF if name in temp), default=None)
        if least is None or OURS[0] not in temp:
            return Verdict(None, "temporary memory: not compared, it is unknown")
        if temp[OURS[0]] > least:
            more.append(f"{part}: {temp[OURS[0]]:,} against {least:,} bytes")
    text = "temporary memory, at most that of the leaner autodiff"
    return Verdict(not more, f"{text}: {'; '.join(more) or 'at every size'}")


# ---------------------------------------------------------------- by hand alone


def long_sequences(cell: str, rounds: int, quick: bool) -> tuple[list[Row], list[Verdict]]:
    """memory="all" and memory="sqrt" over many steps, in both layouts."""
    steps = LONG[quick][0]
    layouts = (("batch-major", False), ("time-major", True))[: 1 if quick else 2]
    contenders = [
        Contender(f'memory="{memory}", {layout}', partial(task.layer_alone, memory=memory, time_major=major))
        for layout, major in layouts
        for memory in ("all", "sqrt")
    ]
    rows = measured(contenders, Settings(cell, *LONG[quick]), rounds, quick)
    verdicts = []
    for (layout, _), every, root in zip(layouts, rows[::2], rows[1::2], strict=True):
        title = f'memory="sqrt" / "all", T {steps}, {layout}'
        if any(row.status != MEASURED or "temp" not in row.figures for row in (every, root)):
            verdicts.append(Verdict(None, f"{title}: not compared, it could not be measured"))
            continue
        share, slower = root.figures["temp"] / every.figures["temp"], ratio(root.seconds, every.seconds)
        verdicts += [
            Verdict(share <= 1 / 8, f"{title}: temporary memory, at most 0.125: {share:.3f}"),
            Verdict(slower.value <= 1.45, f"{title}: time, at most 1.45: {slower}"),
        ]
    return rows, verdicts


def compilation(cell: str, rounds: int, quick: bool) -> tuple[list[Row], list[Verdict]]:
    """The time to trace and compile the step, for few steps and for many."""
    few, many = COMPILED[quick]
    contenders = [Contender(f"T {steps}", partial(task.compilation, steps=steps)) for steps in (few, many)]
    rows = measured(contenders, Settings(cell, few, 8, 32), min(rounds, 9), quick, sittings=1)
    if any(row.status != MEASURED for row in rows):
        return rows, [Verdict(None, "time to compile: not compared, it could not be measured")]
    found = ratio(rows[1].seconds, rows[0].seconds)
    title = f"time to compile, T {many} / T {few}"
    return rows, [Verdict(found.low <= 1.1, f"{title}, at most 1.1 within the interval: {found}")]


# ---------------------------------------------------------------- the report


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in markdown, aligned."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]

    def written(line: Sequence[str]) -> str:
        first, *rest = (cell.ljust(width) if k == 0 else cell.rjust(width)
                        for k, (cell, width) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(map(written, [head, rule, *lines]))


def milliseconds(row: Row) -> str:
    """The median time of a row, or why there is none."""
    return f"{np.median(row.seconds) * 1e3:.2f}" if row.status == MEASURED else row.status


def megabytes(row: Row) -> str:
    """The temporary memory of a row, if it is known."""
    return f"{row.figures['temp'] / 1e6:.3f}" if "temp" in row.figures else "–"


def tables(cell: str, parts: Sequence[Part]) -> str:
    """One cell's times, ratios and memory."""
    sizes = [str(part) for part in parts]
    by_name = [[part.rows[k] for part in parts] for k in range(len(parts[0].rows))]
    times = [[rows[0].name, *map(milliseconds, rows)] for rows in by_name]
    memory = [[rows[0].name, *map(megabytes, rows)] for rows in by_name if "temp" in rows[0].figures]
    ratios = []
    for aim in AIMS:
        pairs = [part.pair(aim) for part in parts]
        each = ["–" if pair is None else str(ratio(*pair)) for pair in pairs]
        ratios.append([aim.title, *each, str(mean(aim, parts) or "–")])
    return "\n\n".join(
        [
            f"## {cell}",
            grid(["ms per step", *sizes], times),
            grid(["ratio of times", *sizes, "geometric mean"], ratios),
            grid(["temporary memory, MB", *sizes], memory),
        ]
    )


def introduction(device: str, before: str, rounds: int) -> str:
    """The report's first section: what was measured, on which machine, with which versions."""
    found = ", ".join(" ".join(pair) for pair in versions(CONTENDERS).items())
    return f"""# One training step of a recurrent layer

Written by `python examples/benchmarks/recurrent.py --results FILE`. The step computes E = ½Σ(y − t)² over the outputs
of one layer with D = H, and the gradients of E with respect to the layer's params and to x, in float32, with x
batch-major. Every framework starts from the same weights and gives the same gradients (haiku's GRU resets before the
product, and gives the gradients of fnnets' GRU that does so too). "products" are the step's matrix products alone, with
the state (B, H) or (H, B) in the loops: a lower bound for any step that uses these products. Times are medians of {rounds}
interleaved rounds, one process at a time. Ratios compare the fastest of each group, with 95 % bootstrap intervals.
Temporary memory is what the compiler plans.

Device {device} ({before}); {found}."""


def measured(
    contenders: Sequence[Contender], settings: Settings, rounds: int, quick: bool, sittings: int = SITTINGS
) -> list[Row]:
    """The rows; `quick` takes shorter turns and one sitting."""
    if sys.stderr.isatty():
        print(f"{settings} …", file=sys.stderr, flush=True)
    return measure(contenders, settings, rounds, *((0.001, 1) if quick else (TURN, sittings)))


def size(text: str) -> Size:
    """`512x8x32` as T, B, H."""
    steps, batch, features = map(int, text.split("x"))
    return steps, batch, features


def main(options: argparse.Namespace) -> int:
    """Measures, reports, judges; returns the exit status."""
    quick, before = options.quick, processor()
    sizes, rounds = options.sizes or (QUICK if quick else SIZES), options.rounds or ROUNDS[quick]
    sections, verdicts, everything, device = [], [], [], "unknown"
    for cell in options.cells or (("lstm",) if quick else CELLS):
        found = [Settings(cell, *size) for size in sizes]
        contenders = CONTENDERS[::8] if quick else CONTENDERS  # by hand, and the products alone
        parts = [Part(settings, measured(contenders, settings, rounds, quick)) for settings in found]
        device = next((row.device for row in parts[0].rows if row.figures), device)
        long, of_long = long_sequences(cell, rounds, quick)
        compiled, of_compilation = compilation(cell, rounds, quick)
        named = [row.name for row in long] + [f"compile, {row.name}" for row in compiled]
        alone = [[n, milliseconds(r), megabytes(r)] for n, r in zip(named, [*long, *compiled], strict=True)]
        sections += [tables(cell, parts), grid(["by hand alone", "ms", "temporary memory, MB"], alone)]
        of_cell = [*(judge(aim, parts) for aim in CLAIMED), judge_memory(parts), *of_long, *of_compilation]
        verdicts += [Verdict(held, f"{cell}: {text}") for held, text in of_cell]
        everything += [{**part.settings._asdict(), "rows": [*map(asdict, part.rows)]} for part in parts]
        everything += [{"cell": cell, "rows": [*map(asdict, [*long, *compiled])]}]
    words = {True: "holds", False: "FAILS", None: "open"}
    claims = "\n".join(f"- {words[held]}: {text}" for held, text in verdicts)
    report = "\n\n".join([introduction(device, before, rounds), *sections, "## Claims", claims]) + "\n"
    print(report, end="")
    if options.results:
        options.results.write_text(report)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n")
    return int(options.check and not all(verdict.held for verdict in verdicts))


if __name__ == "__main__":
    parser = arguments(__doc__, *ROUNDS)
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the report to FILE, in markdown")
    parser.add_argument(
        "--sizes", type=size, nargs="+", metavar="TxBxH", help="other sizes, such as 512x8x32"
    )
    parser.add_argument("--cells", nargs="+", choices=CELLS, help="only these cells")
    try:
        sys.exit(main(parser.parse_args()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
