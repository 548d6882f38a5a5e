"""Contenders in separate processes, timed in interleaved rounds.

Each contender runs in its own process, so that the threads, allocator and flags of one framework do not affect
another. Only one computes at a time: in each round every contender, in random order, repeats its step for at
least `TURN` seconds and reports the median time of a step. A temporary slowdown of the machine then affects all
of them alike, and the rounds pair their times: a ratio's interval comes from resampling rounds.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import numpy as np

TURN = 0.05  # seconds that a contender computes in one round, at least
PAUSE = 0.005  # seconds between two turns, in which threads that wait in a busy loop fall asleep
SITTINGS = 3
MEASURED, DIED = "measured", "failed: its process ended"


class Built(NamedTuple):
    """The result of a contender's `build`: a compiled and warmed-up step that can be repeated."""

    step: Callable[[], None]  # one step; returns when it is computed
    figures: dict[str, int]  # the compiler's figures of the step; {} if nothing is compiled
    device: str


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
      name: the row's name.
      build: `(settings) -> Built`, a function at the top of a module (its process finds it by name). It imports
        its framework itself; if that is missing, the row says so.
      package: the distribution whose version the report shows.
    """

    name: str
    build: Callable[[Any], Built]
    package: str = "fnnets"


@dataclass
class Row:
    """The measurements of one contender."""

    name: str
    status: str = MEASURED  # or why there are none
    seconds: list[float] = field(default_factory=list)  # the median time of a step in each round
    figures: dict[str, int] = field(default_factory=dict)
    device: str = ""


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
    """Flops, bytes accessed and temporary memory of a compiled function, as far as the compiler reports them."""
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    figures = {"flops": cost.get("flops"), "bytes": cost.get("bytes accessed")}
    figures["temp"] = None if memory is None else memory.temp_size_in_bytes
    return {name: int(value) for name, value in figures.items() if value is not None}


def _work(pipe: Connection, build: Callable[[Any], Built], settings: Any) -> None:
    """A contender's process: builds, sends the figures, then times as many steps as it is told to."""
    try:
        try:
            step, figures, device = build(settings)
        except ModuleNotFoundError as error:
            pipe.send({"status": f"not installed: {error.name}"})
            return
        except Exception as error:  # of any framework: shown in the table, not raised
            pipe.send({"status": f"failed: {type(error).__name__}: {error}".splitlines()[0]})
            return
        gc.collect()
        gc.disable()
        pipe.send({"figures": figures, "device": device})
        while True:
            k = pipe.recv()
            step()  # other processes used the caches since the last turn
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
    """One process for each contender, started together and always stopped together."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    # Ctrl-C reaches every process of the terminal. Processes started while it is ignored keep ignoring it,
    # and this one handles it.
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
      contenders: the contenders to compare.
      settings: the argument of their `build`.
      rounds: how many turns each takes.
      turn: how long a turn lasts at least, in seconds.
      sittings: the rounds are spread over this many sittings, with new processes in each: its place in
        memory makes a process faster or slower for its whole life.
    """
    # All processes share an accelerator: by default the first would take its whole memory.
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
    """Waits until the worker has built its step; returns whether it could."""
    try:
        vars(worker.row).update(worker.pipe.recv())
    except EOFError:
        worker.row.status = DIED
    return worker.row.status == MEASURED


def _answers(worker: _Worker, k: int) -> float:
    """The median time of k steps; infinite if the process died, and its row then says so."""
    try:
        worker.pipe.send(k)
        return worker.pipe.recv()
    except (EOFError, OSError):
        worker.row.status = DIED
        return math.inf


def _progress(rounds: range) -> Iterator[int]:
    """The rounds, with a progress bar on a terminal."""
    with suppress(ImportError):
        from tqdm import tqdm

        return iter(
            tqdm(rounds, unit="round", leave=False, disable=None)
        )  # None: disabled unless on a terminal
    return iter(rounds)
