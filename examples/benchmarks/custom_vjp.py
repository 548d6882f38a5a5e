"""`fn.by_hand` against the same backward under `jax.custom_vjp`: `python examples/benchmarks/custom_vjp.py`.

`fn.by_hand` allows forward mode and second derivatives, which a `jax.custom_vjp` does not. This measures what that costs
a training step, in every benchmark that trains with `fn.by_hand`, at its own sizes: the feed-forward network, the residual
network, four of its steps in a scan, and an LSTM and a GRU at five sizes each. The claim: it costs nothing. The compiler
counts no more operations, traffic or temporary memory, and the step is not slower within the interval.

`fn.by_hand` falls back to `jax.custom_vjp` if a version of jax lacks what its primitive needs.

Options: those of every benchmark (`--quick`, `--rounds`, `--json`, `--check`).
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import convolution_task
import feedforward
import recurrent
import recurrent_task
from convolution import SCAN
from harness import Claim, arguments, judge, processor, table, versions
from processes import Built, Contender, measure

from fnnets.gradients import linear_primitive


class Task(NamedTuple):
    """A benchmark's step with `fn.by_hand`, and its settings, full and quick."""

    build: Callable[[Any], Built]
    settings: Any
    quick: Any


RECURRENT = {
    f"{cell} {'x'.join(map(str, size))}": Task(
        recurrent_task.by_hand,
        recurrent_task.Settings(cell, *size),
        recurrent_task.Settings(cell, *recurrent.QUICK[0]),
    )
    for cell in recurrent.CELLS
    for size in recurrent.SIZES
}
TASKS = {
    "feed-forward": Task(feedforward.by_hand, feedforward.BENCHMARK.settings, feedforward.BENCHMARK.quick),
    "convolution": Task(convolution_task.by_hand, convolution_task.Settings(), SCAN.quick._replace(steps=1)),
    "convolution in a scan": Task(convolution_task.by_hand, SCAN.settings, SCAN.quick),
    **RECURRENT,
}
QUICK = ("feed-forward", next(iter(RECURRENT)))
ROUNDS, QUICK_ROUNDS = 15, 2
Chosen = tuple[str, bool]  # a task's name, and whether to run the quick version


def by_hand(chosen: Chosen) -> Built:
    """The step with the primitive."""
    task = TASKS[chosen[0]]
    return task.build(task.quick if chosen[1] else task.settings)


def custom_vjp(chosen: Chosen) -> Built:
    """The step without the primitive, as if jax lacked what it needs."""
    linear_primitive.MISSING = "for comparison"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that forward mode is missing
        return by_hand(chosen)


CONTENDERS = Contender("by_hand", by_hand), Contender("custom_vjp", custom_vjp)
CLAIM = Claim("by_hand", ("custom_vjp",))


def main() -> int:
    """Measures task by task; returns the exit status."""
    options = arguments(__doc__, ROUNDS, QUICK_ROUNDS).parse_args()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    print(f"{processor()}; {', '.join(' '.join(v) for v in versions(CONTENDERS).items())}; {rounds} rounds")
    report, failed = [], False
    for name in QUICK if options.quick else TASKS:
        try:
            rows = measure(CONTENDERS, (name, options.quick), rounds)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        verdicts = judge(CLAIM, rows)
        failed |= not all(verdict.held for verdict in verdicts)
        print(f"\n{name}\n{table(rows)}")
        for held, text in verdicts:
            print("holds" if held else "FAILS", text, flush=True)
        report.append(
            {"task": name, "rows": [asdict(row) for row in rows], "claims": [v._asdict() for v in verdicts]}
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(options.check and failed)


if __name__ == "__main__":
    sys.exit(main())
