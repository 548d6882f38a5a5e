"""What the examples share: their options, progress, tables, and one style of picture.

Not an example itself. The studies say `from support.common import …`, which works wherever they are run from.
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
    """The options of an example whose docstring is `doc`: `quick`, `out`, a folder that exists, and what `more` adds."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small version of a few seconds")
    parser.add_argument("--out", type=Path, default=Path("pictures"), metavar="DIR", help="where pictures go")
    for add in more:
        add(parser)
    found = parser.parse_args(argv)
    try:
        found.out.mkdir(parents=True, exist_ok=True)  # now: nobody trains for a minute to learn of a typo
    except OSError as error:
        parser.error(f"--out {found.out}: {error.strerror}")
    return found


def run(main: Callable[[], int]) -> None:
    """Runs an example as a program: no traceback where nothing is wrong with the program."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stdout.flush()
        print("interrupted", file=sys.stderr, flush=True)
        os._exit(130)  # without the interpreter's tidying up, which would crash on what jax still computes
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ModuleNotFoundError as error:
        sys.exit(
            f'{error.name} is not installed: pip install "fnnets[examples]" brings what the examples need'
        )


def progress(steps: Iterable[Any], what: str) -> Iterable[Any]:
    """The steps, with a bar on a terminal."""
    if not sys.stderr.isatty():
        return steps
    from tqdm import tqdm

    return tqdm(steps, desc=what, leave=False, dynamic_ncols=True)


def say(text: str) -> None:
    """Prints a line at once, above a bar where there is one."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text)
    else:
        print(text, flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The rows as text: the first column to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of that size in inches and in the examples' style, saved as `path` at the end."""
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
