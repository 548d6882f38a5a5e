"""Options, claims, ratios of times and the report, shared by all benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from processes import MEASURED, TURN, Contender, Row, measure

RESAMPLES = 4000
FIGURES = {"flops": "flops", "bytes": "bytes accessed", "temp": "temporary bytes"}


@dataclass(frozen=True)
class Claim:
    """A claim: `ours` takes at most `times` × the time of the fastest rival; its figures are at most `share` of each rival's."""

    ours: str
    rivals: tuple[str, ...]
    figures: tuple[str, ...] = tuple(FIGURES)
    share: float = 1.0
    times: float = 1.0


@dataclass(frozen=True)
class Benchmark:
    """A title, the contenders (ratios are to the first), the claims, and the settings: full and quick."""

    title: str
    contenders: tuple[Contender, ...]
    claims: tuple[Claim, ...]
    settings: Any  # a NamedTuple of numbers and tuples, passed to every `build`
    quick: Any


class Ratio(NamedTuple):
    """A ratio of median times and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


# ---------------------------------------------------------------- ratios and verdicts


def ratio(times: Sequence[float], to: Sequence[float]) -> Ratio:
    """The ratio of the medians of `times` and `to`, with a 95 % bootstrap interval, paired by round."""
    return mean_ratio([(times, to)])


def mean_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Ratio:
    """The geometric mean of the ratios of several pairs; the rounds of each pair are resampled independently."""
    random, value, resampled = np.random.default_rng(0), 0.0, np.zeros(RESAMPLES)
    for times, to in pairs:
        first, second = np.asarray(times), np.asarray(to)
        draws = random.integers(len(first), size=(RESAMPLES, len(first)))
        resampled += np.log(np.median(first[draws], axis=1) / np.median(second[draws], axis=1))
        value += np.log(np.median(first) / np.median(second))
    low, high = np.exp(np.quantile(resampled, [0.025, 0.975]) / len(pairs))
    return Ratio(float(np.exp(value / len(pairs))), float(low), float(high))


class Verdict(NamedTuple):
    """The outcome of one claim; held is None if there was nothing to compare."""

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
    held = against.low <= claim.times
    words = "is not slower within the interval than" if held else "is SLOWER than"
    if claim.times != 1.0:
        most = f"{claim.times} × the time of"
        words = f"takes at most {most}" if held else f"takes MORE than {most}"
    verdicts = [Verdict(held, f"time: {ours.name} {words} the best, {best.name}: {against}")]
    for name in claim.figures:
        known = [row for row in (ours, *rivals) if name in row.figures]
        if len(known) < 2 or known[0] is not ours:
            continue
        of, figure = "" if claim.share == 1 else f"{claim.share:g} of ", ours.figures[name]
        above = [
            f"{of}{row.name}'s {row.figures[name]:,}"
            for row in known[1:]
            if claim.share * row.figures[name] < figure
        ]
        least = min(row.figures[name] for row in known[1:])
        text = f"{FIGURES[name]}: {ours.name}'s {figure:,} "
        text += (
            f"are MORE than {', '.join(above)}"
            if above
            else f"are at most {of}each of theirs (least {least:,})"
        )
        verdicts.append(Verdict(not above, text))
    return verdicts


# ---------------------------------------------------------------- the report


def processor() -> str:
    """The processor's name, the number of cores that this process may use, and the load."""
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


def arguments(description: str | None, rounds: int = 60, quick: int = 5) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; `rounds` and `quick` are the default numbers of rounds."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, help=f"turns of each contender ({rounds}; {quick} with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim does not hold")
    return parser


def main(benchmark: Benchmark, options: argparse.Namespace) -> int:
    """Measures, prints the table and the verdicts; returns the exit status."""
    settings = benchmark.quick if options.quick else benchmark.settings
    rounds = options.rounds or (5 if options.quick else 60)
    before = processor()  # the load without this benchmark
    try:
        shorter = (TURN / 10, 1) if options.quick else ()
        rows = measure(benchmark.contenders, settings, rounds, *shorter)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    device = next((row.device for row in rows if row.device), "unknown")
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
