"""Options, progress, tables and one style of picture, shared by the studies. Not a program.

The studies import it as `from support.common import …`, which works from any working directory.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2f6db3", "#e08214", "#2a9d6f", "#c8373f", "#8458b3", "#8a8f98"

STYLE = {
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.alpha": 0.6,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
}


def options(
    doc: str | None, argv: Sequence[str] | None, *more: Callable[[argparse.ArgumentParser], object]
) -> argparse.Namespace:
    """The options of a study with the docstring `doc`: `quick`, `out` (an existing folder), and those that `more` adds."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small version that takes a few seconds")
    parser.add_argument(
        "--out", type=Path, default=Path("pictures"), metavar="DIR", help="the folder for pictures"
    )
    for add in more:
        add(parser)
    found = parser.parse_args(argv)
    try:
        found.out.mkdir(parents=True, exist_ok=True)  # here, so that a typo shows before the training
    except OSError as error:
        parser.error(f"--out {found.out}: {error.strerror}")
    return found


def run(main: Callable[[], int]) -> None:
    """Runs a study as a program, without a traceback if the program is not at fault."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stdout.flush()
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)  # skips the interpreter's clean-up, which could crash while jax still computes
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is not installed; run pip install "fnnets[examples]"')


def progress(steps: Iterable[Any], what: str) -> Iterable[Any]:
    """The steps, with a progress bar on a terminal."""
    if not sys.stderr.isatty():
        return steps
    from tqdm import tqdm

    return tqdm(steps, desc=what, leave=False, dynamic_ncols=True)


def say(text: str) -> None:
    """Prints a line at once, above a progress bar if there is one."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text)
    else:
        print(text, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The rows as text; the first column is aligned left, the others right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of that size in inches and in the studies' style, saved as `path` at the end."""
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot: no window, and nothing to close

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(path)
        except OSError as error:
            sys.exit(f"{path}: {error.strerror}")
    print(f"\npicture: {path}")
