"""A progress bar for terminals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fnnets.train.epoch import History


@contextmanager
def progress_bar(epochs: int, left: int, shown: bool) -> Iterator[Callable[[History], None]]:
    """Gives a function to call with each epoch's record. It moves tqdm's bar on a terminal, and does nothing elsewhere.

    `left` of the epochs are to come; an earlier run trained the others.
    """
    tqdm = _tqdm() if shown and sys.stderr.isatty() else None
    if tqdm is None:
        yield lambda record: None
        return
    with tqdm(total=epochs, initial=epochs - left, unit="epoch", leave=False, dynamic_ncols=True) as bar:

        def show(record: History) -> None:
            numbers = {"loss": record.loss, **{f"held-out {k}": v for k, v in record.validation.items()}}
            bar.set_postfix({name: f"{value:.4g}" for name, value in numbers.items()}, refresh=False)
            bar.update()

        yield show


def _tqdm() -> Any:
    """tqdm's bar, or None if it is not installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm
