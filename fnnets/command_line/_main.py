"""`python -m fnnets compare`: compares the catalogue, or a user's own layer."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from fnnets.command_line import user_objects
from fnnets.comparison.report import Report

OK, MISMATCH, BAD_USE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, 1 on a mismatch, 2 on bad use."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.json is not None and not options.json.resolve().parent.is_dir():
            raise user_objects.TargetError(f"--json: there is no folder {options.json.resolve().parent}")
        if options.target is not None:
            return _one(options)
        return _catalogue(options)
    except user_objects.TargetError as error:
        print(f"fnnets compare: {error}", file=sys.stderr)
        return BAD_USE
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fnnets", description="Functional neural networks in JAX."
    )
    commands = parser.add_subparsers(required=True, metavar="compare")
    compare = commands.add_parser(
        "compare",
        help="compare gradients by hand with autodiff and central differences",
        description="Compares gradients by hand with autodiff and central differences, in float64, for every layer "
        "and loss of the library or for the target. Exit status: 0 all agree, 1 a mismatch, 2 bad use.",
    )
    compare.add_argument(
        "target", nargs="?", help=f"path/to/file.py:name or module:name of {user_objects.EXPECTED}"
    )
    compare.add_argument(
        "--only", metavar="PATTERN", help="only rows of the catalogue whose name contains or matches PATTERN"
    )
    compare.add_argument(
        "--shape", type=_shape, metavar="4,5", help="the shape of x, if the target is only a layer"
    )
    compare.add_argument("--json", type=Path, metavar="FILE", help="also write the reports to FILE")
    return parser


def _one(options: argparse.Namespace) -> int:
    subject = user_objects.load(options.target)
    try:
        report = user_objects.report_on(subject, options.shape)
    except user_objects.TargetError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise user_objects.TargetError(f"{options.target}: {user_objects.first_line(error)}") from error
    print(report)
    _write(options.json, [report])
    return OK if report.ok else MISMATCH


def _catalogue(options: argparse.Namespace) -> int:
    from fnnets import catalogue  # imported here, since it builds every layer

    cases = [case for case in catalogue.cases() if _selected(case.name, options.only)]
    if not cases:
        raise user_objects.TargetError(f"--only {options.only}: no row of the catalogue has a name like this")
    start, width = time.perf_counter(), max(len(case.name) for case in cases)
    print(f"{'row':{width}}  leaves  vs autodiff  vs differences  verdict", flush=True)
    reports: dict[str, Report] = {}
    interrupted = False
    try:
        with _Progress(len(cases)) as progress:
            for case in cases:
                progress.at(case.name)
                report = reports[case.name] = case.compare()
                numbers = f"{report.worst_autodiff:11.1e}  {report.worst_difference:14.1e}"
                verdict = "ok" if report.ok else "MISMATCH"
                progress.line(f"{case.name:{width}}  {len(report.rows):6}  {numbers}  {verdict}")
    except KeyboardInterrupt:
        interrupted = True
    for name, report in reports.items():
        if not report.ok:
            print(f"\n{name}\n{report}")
    print(_last_line(reports, time.perf_counter() - start))
    _write(options.json, list(reports.values()), list(reports))
    if interrupted:
        print(f"interrupted after {len(reports)} of {len(cases)} rows", file=sys.stderr)
        return INTERRUPTED
    return OK if all(report.ok for report in reports.values()) else MISMATCH


def _last_line(reports: dict[str, Report], seconds: float) -> str:
    wrong = [name for name, report in reports.items() if not report.ok]
    leaves = sum(len(report.rows) for report in reports.values())
    aside = sum(row.set_aside for report in reports.values() for row in report.rows)
    verdict = f"{len(wrong)} MISMATCH: {', '.join(wrong)}" if wrong else "all agree"
    worst = [
        f"{max(getattr(report, name) for report in reports.values()):.1e} against {text}"
        for name, text in (("worst_autodiff", "autodiff"), ("worst_difference", "differences"))
        if reports
    ]
    return (
        f"\n{len(reports)} rows, {leaves} leaves, {aside} differences set aside at kinks: {verdict}; "
        f"worst error {', '.join(worst)}; {seconds:.0f} s"
    )


def _selected(name: str, pattern: str | None) -> bool:
    return (
        pattern is None or pattern.lower() in name.lower() or fnmatch.fnmatch(name.lower(), pattern.lower())
    )


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.strip("()").split(",") if size.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers with commas, such as 4,5") from None


def _write(path: Path | None, reports: list[Report], names: list[str] | None = None) -> None:
    if path is None:
        return
    rows: list[dict[str, Any]] = [report.to_dict() for report in reports]
    for row, name in zip(rows, names or [], strict=False):
        row["row"] = name
    whole = {"ok": all(report.ok for report in reports), "reports": rows}
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)  # in one move: a reader never sees half a file
    except OSError as error:
        raise user_objects.TargetError(f"--json {path}: {error.strerror}") from error


class _Progress:
    """A progress bar on a terminal if tqdm is installed; otherwise only lines."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit="row", leave=False, dynamic_ncols=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def at(self, name: str) -> None:
        if self._bar is not None:
            self._bar.set_description(name)

    def line(self, text: str) -> None:
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text, file=sys.stdout)
            self._bar.update()
