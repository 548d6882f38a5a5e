"""What every benchmark shares: contenders in processes of their own, timed in interleaved rounds.

Each contender lives in its own process, so that no framework's threads, allocator or flags reach
another. Only one computes at a time: in each round every contender, in random order, repeats its step
for at least `TURN` seconds and reports the median time of a step. Whatever slows the machine for a while
then slows all of them alike, and the rounds pair their times: a ratio's interval comes from resampling
rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

TURN = 0.05  # seconds that a contender computes in one round, at least
PAUSE = 0.005  # seconds between two turns: threads that wait in a busy loop fall asleep
SITTINGS = 3
RESAMPLES = 4000
MEASURED, DIED = "measured", "failed: its process ended"
FIGURES = {"flops": "flops", "bytes": "bytes accessed", "temp": "temporary bytes"}


class Built(NamedTuple):
    """What a contender's `build` gives: a step that was compiled and warmed up, and can be repeated."""

    step: Callable[[], None]  # one step; returns when all of it is computed
    figures: dict[str, int]  # what the compiler says of the step; {} where nothing is compiled
    device: str


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
      name: the row's name.
      build: `(settings) -> Built`, a function of a module (its process finds it by name) that imports
        its framework itself: where that is missing, the row says so.
      package: the distribution whose version is shown.
    """

    name: str
    build: Callable[[Any], Built]
    package: str = "fnnets"


@dataclass(frozen=True)
class Claim:
    """That `ours` is no slower than the best of the rivals, and its figures are at most each of theirs."""

    ours: str
    rivals: tuple[str, ...]
    figures: tuple[str, ...] = tuple(FIGURES)


@dataclass(frozen=True)
class Benchmark:
    """A title, the contenders (ratios are to the first), the claims, and the settings: full and quick."""

    title: str
    contenders: tuple[Contender, ...]
    claims: tuple[Claim, ...]
    settings: Any  # a NamedTuple of numbers and tuples, handed to every `build`
    quick: Any


@dataclass
class Row:
    """What was measured of one contender."""

    name: str
    status: str = MEASURED  # or why there is nothing
    seconds: list[float] = field(default_factory=list)  # the median time of a step in each round
    figures: dict[str, int] = field(default_factory=dict)
    device: str = ""


class Ratio(NamedTuple):
    """A ratio of median times and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


# ---------------------------------------------------------------- in a contender's process


def jitted(step: Callable[..., Any], state: Any, *inputs: Any) -> Built:
    """Compiles `step(state, *inputs) -> (state, value)` and warms it up; the state's buffers are donated."""
    compiled_step = jax.jit(step, donate_argnums=0)
    compiled = compiled_step.lower(state, *inputs).compile()

    def one() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled_step(state, *inputs))

    for _ in range(3):
        one()
    return Built(one, compiled_figures(compiled), jax.devices()[0].device_kind)


def compiled_figures(compiled: Any) -> dict[str, int]:
    """Flops, bytes accessed and temporary memory of a compiled function, as far as the compiler tells."""
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    figures = {"flops": cost.get("flops"), "bytes": cost.get("bytes accessed")}
    figures["temp"] = None if memory is None else memory.temp_size_in_bytes
    return {name: int(value) for name, value in figures.items() if value is not None}


def _work(pipe: Connection, build: Callable[[Any], Built], settings: Any) -> None:
    """A contender's process: builds, says what it is, then computes when it is told how many steps."""
    try:
        try:
            step, figures, device = build(settings)
        except ModuleNotFoundError as error:
            pipe.send({"status": f"not installed: {error.name}"})
            return
        except Exception as error:  # any framework's own kind: shown in the table, not raised
            pipe.send({"status": f"failed: {type(error).__name__}: {error}".splitlines()[0]})
            return
        gc.collect()
        gc.disable()
        pipe.send({"figures": figures, "device": device})
        while True:
            k = pipe.recv()
            step()  # other processes had the caches since the last turn
            pipe.send(float(np.median([_seconds(step) for _ in range(k)])))
    except (EOFError, OSError):
        pass  # the coordinator is gone


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


# ---------------------------------------------------------------- the coordinator


class _Worker(NamedTuple):
    row: Row
    pipe: Connection
    process: Any


@contextmanager
def _workers(contenders: Sequence[Contender], rows: Sequence[Row], settings: Any) -> Iterator[list[_Worker]]:
    """One process each, started together and stopped together, however this ends."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    # Ctrl-C reaches every process of the terminal; those started while it is ignored go on ignoring it
    # and leave the answer to this one.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for contender, row in zip(contenders, rows, strict=True):
            pipe, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, contender.build, settings), daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(row, pipe, process))
        signal.signal(signal.SIGINT, interrupt)
        yield workers
    finally:
        signal.signal(signal.SIGINT, interrupt)
        for worker in workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()


def measure(
    contenders: Sequence[Contender], settings: Any, rounds: int, turn: float = TURN, sittings: int = SITTINGS
) -> list[Row]:
    """The rows of the contenders: `rounds` times per step for each that could be built.

    Args:
      contenders: what is compared.
      settings: what their `build` gets.
      rounds: how many turns each has.
      turn: how long a turn lasts, in seconds, at least.
      sittings: the rounds are spread over so many sittings, with new processes in each: where a
        process happens to lie in memory makes it faster or slower for all its life.
    """
    # An accelerator is shared by all: by default the first process would take its whole memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    rows = [Row(contender.name) for contender in contenders]
    order, progress = random.Random(0), _progress(range(rounds))
    for sitting in range(sittings):
        with _workers(contenders, rows, settings) as workers:
            ready = [worker for worker in workers if _built(worker)]
            steps = {w.row.name: math.ceil(turn / min(_answers(w, 1) for _ in range(3))) for w in ready}
            for _ in range(sitting, rounds, sittings):
                next(progress)
                for worker in order.sample(ready, len(ready)):
                    time.sleep(PAUSE)
                    worker.row.seconds.append(_answers(worker, steps[worker.row.name]))
    next(progress, None)
    return rows


def _built(worker: _Worker) -> bool:
    """Waits until the worker has built its step; whether it could."""
    try:
        vars(worker.row).update(worker.pipe.recv())
    except EOFError:
        worker.row.status = DIED
    return worker.row.status == MEASURED


def _answers(worker: _Worker, k: int) -> float:
    """The median time of k steps; infinite from a process that died, whose row says so."""
    try:
        worker.pipe.send(k)
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.row.status = DIED
        return math.inf


def _progress(rounds: range) -> Iterator[int]:
    """The rounds, with a bar where someone watches."""
    with suppress(ImportError):
        from tqdm import tqdm

        return iter(tqdm(rounds, unit="round", leave=False, disable=None))  # None: only on a terminal
    return iter(rounds)


# ---------------------------------------------------------------- what the times say


def ratio(times: Sequence[float], to: Sequence[float]) -> Ratio:
    """The ratio of the medians of `times` and `to`, with a 95 % bootstrap interval, paired by round."""
    first, second = np.asarray(times), np.asarray(to)
    draws = np.random.default_rng(0).integers(len(first), size=(RESAMPLES, len(first)))
    ratios = np.median(first[draws], axis=1) / np.median(second[draws], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Ratio(float(np.median(first) / np.median(second)), float(low), float(high))


class Verdict(NamedTuple):
    """One claim's outcome: held is None where there was nothing to compare."""

    held: bool | None
    text: str


def judge(claim: Claim, rows: Sequence[Row]) -> list[Verdict]:
    """The claim's verdicts: no slower within the interval, then figure by figure at most theirs."""
    measured = {row.name: row for row in rows if row.status == MEASURED}
    rivals = [measured[name] for name in claim.rivals if name in measured]
    if claim.ours not in measured or not rivals:
        missing = "its rivals" if claim.ours in measured else claim.ours
        return [Verdict(None, f"{claim.ours}: not compared, {missing} could not be measured")]
    ours = measured[claim.ours]
    best = min(rivals, key=lambda row: np.median(row.seconds))
    against = ratio(ours.seconds, best.seconds)
    held = against.low <= 1.0
    words = "no slower within the interval" if held else "SLOWER"
    verdicts = [Verdict(held, f"time: {ours.name} is {words} than the best, {best.name}: {against}")]
    for name in claim.figures:
        known = [row for row in (ours, *rivals) if name in row.figures]
        if len(known) < 2 or known[0] is not ours:
            continue
        above = [
            f"{row.name}'s {row.figures[name]:,}" for row in known if row.figures[name] < ours.figures[name]
        ]
        least = min(row.figures[name] for row in known[1:])
        text = f"{FIGURES[name]}: {ours.name}'s {ours.figures[name]:,} "
        text += (
            f"are MORE than {', '.join(above)}" if above else f"are at most each of theirs (least {least:,})"
        )
        verdicts.append(Verdict(not above, text))
    return verdicts


# ---------------------------------------------------------------- the report


def processor() -> str:
    """The processor's name as the system gives it, the cores this process may use, and how busy they are."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {cores} cores{load}"


def versions(contenders: Sequence[Contender]) -> dict[str, str]:
    """The versions of Python, jax and every contender's package that is installed."""
    found = {"python": platform.python_version()}
    for package in dict.fromkeys(["jax", "jaxlib", *(contender.package for contender in contenders)]):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def table(rows: Sequence[Row]) -> str:
    """The rows as text: median and quartiles in milliseconds, ratio to the first measured, figures."""
    base = next((row for row in rows if row.status == MEASURED), None)
    over = "" if base is None else f"ratio to {base.name} [95 %]"
    lines = [("", "ms per step", "quartiles", over, *FIGURES.values())]
    for row in rows:
        if row.status != MEASURED:
            lines.append((row.name, row.status))
            continue
        low, median, high = np.quantile(row.seconds, [0.25, 0.5, 0.75]) * 1e3
        relation = "1" if row is base else str(ratio(row.seconds, base.seconds))
        figures = [f"{row.figures[name]:,}" if name in row.figures else "–" for name in FIGURES]
        lines.append((row.name, f"{median:.3f}", f"{low:.3f}–{high:.3f}", relation, *figures))
    _, *columns = zip(*(line for line in lines if len(line) > 2), strict=True)
    widths = [max(len(line[0]) for line in lines), *(max(map(len, column)) for column in columns)]

    def aligned(line: tuple[str, ...]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=False)]
        return "  ".join([line[0].ljust(widths[0]), *cells])

    return "\n".join(
        aligned(line) if len(line) > 2 else f"{line[0]:<{widths[0]}}  {line[1]}" for line in lines
    )


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has; a benchmark may add its own."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="turns of each contender (60; 5 if --quick)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim does not hold")
    return parser


def main(benchmark: Benchmark, options: argparse.Namespace) -> int:
    """Measures, prints the table and the verdicts; returns the exit status."""
    settings = benchmark.quick if options.quick else benchmark.settings
    rounds = options.rounds or (5 if options.quick else 60)
    before = processor()  # with the load that others make
    try:
        shorter = (TURN / 10, 1) if options.quick else ()
        rows = measure(benchmark.contenders, settings, rounds, *shorter)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    device = next((row.device for row in rows if row.figures), "unknown")
    facts = {"device": device, "processor": before, "versions": versions(benchmark.contenders)}
    verdicts = [verdict for claim in benchmark.claims for verdict in judge(claim, rows)]
    print(f"{benchmark.title}: {', '.join(f'{k} {v}' for k, v in settings._asdict().items())}")
    print(
        f"device {device} ({facts['processor']}); {', '.join(' '.join(v) for v in facts['versions'].items())}"
    )
    print(f"{rounds} rounds in random order, one process at a time\n\n{table(rows)}\n")
    for held, text in verdicts:
        print({True: "holds", False: "FAILS", None: "     "}[held], text)
    if options.json:
        report = {"title": benchmark.title, "settings": settings._asdict(), "rounds": rounds, **facts}
        report |= {
            "rows": [asdict(row) for row in rows],
            "claims": [verdict._asdict() for verdict in verdicts],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(options.check and not all(verdict.held for verdict in verdicts))
