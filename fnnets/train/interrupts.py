"""Ctrl-C that waits for the end of an epoch."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def delayed_interrupt() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C is only remembered, and the second interrupts as usual.

    Gives a function that returns whether Ctrl-C came. An epoch donates the buffers of its state, so an interrupt within
    it would lose the training. Other threads than the main one receive no Ctrl-C; there, nothing changes.
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
