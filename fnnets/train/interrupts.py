"""Ctrl-C that waits for a whole epoch."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def delayed_interrupt() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C is only remembered, and the next interrupts as always.

    What jax computes cannot be interrupted, and an epoch uses its state's buffers again: half an epoch would leave
    nothing. Gives a function that says whether Ctrl-C came. In other threads than the main one, where no Ctrl-C
    arrives, nothing is changed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False
        return
    came = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        del number, frame
        came.set()
        signal.signal(signal.SIGINT, before)
        if sys.stderr.isatty():
            print("\nstopping after this epoch; Ctrl-C again stops at once", file=sys.stderr)

    signal.signal(signal.SIGINT, remember)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)
