"""A bar that shows how training goes, where someone watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(epochs: int, shown: bool, done: int = 0) -> Iterator[Callable[[dict[str, float]], None]]:
    """A function to be called after every epoch with the numbers to show: tqdm's bar on a terminal, nothing elsewhere.

    The first `done` epochs were trained before.
    """
    if shown and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            shown = False
    else:
        shown = False
    if not shown:
        yield lambda numbers: None
        return
    with tqdm(total=epochs, initial=done, unit="epoch", leave=False, dynamic_ncols=True) as ticking:

        def tick(numbers: dict[str, float]) -> None:
            ticking.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
            ticking.update()

        yield tick
