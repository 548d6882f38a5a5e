"""A training that is killed twenty times ends like an unbroken one: `python examples/studies/resume.py`.

A small network with batch norm, dropout, Adam and early stopping learns scikit-learn's handwritten digits in a process of
its own, with `checkpoints=fn.train.checkpoints(folder)`. The study kills that process (by SIGKILL, which no program can
catch) and restarts it, twenty times. The moments are random: every fifth is while the process starts, compiles or
restores, the others are about when it writes a checkpoint, which shows as an unfinished folder. Then the same call
continues to the end. Its whole result (params, best params, the updater's state, the history) is compared with that of
a training that was never killed. The exit status is 1 if a single bit differs.

`--quick` kills it twice. There is no picture.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from support.common import options, run, say, table

import fnnets as fn

NET = fn.serial(fn.dense(32, use_bias=False), fn.batch_norm(), fn.relu(), fn.dropout(0.2), fn.dense(10))
UPDATER, METRICS = fn.updaters.adam(3e-3), {"accuracy": fn.train.accuracy}
EARLY = fn.train.early_stopping(640)
DATA, SEED = "digits.npz", 0
DEADLINE = 120.0  # seconds to wait for a new checkpoint


class Plan(NamedTuple):
    """The size of the study."""

    kills: int
    saves: int  # a process may begin this many before it is killed
    epochs: int


EVERY = 4  # epochs between checkpoints
FULL, QUICK = Plan(kills=20, saves=6, epochs=640), Plan(kills=2, saves=2, epochs=24)


class Kill(NamedTuple):
    """When to kill a process: seconds after its start, or after the beginning of a save."""

    saves: int
    seconds: float


def load(path: Path) -> None:
    """Writes the digits to a file, which every process reads faster than scikit-learn's."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    x, held = np.float32(x / 16), np.arange(len(x)) % 5 == 0
    np.savez(path, x=x[~held], target=target[~held], held_x=x[held], held_target=target[held])


def train(data: Path, epochs: int, checkpoints: fn.train.Checkpoints | None) -> fn.train.Fitted:
    """The training, the same call in every process."""
    with np.load(data) as parts:
        examples, held = (parts["x"], parts["target"]), (parts["held_x"], parts["held_target"])
    return fn.train.fit(
        NET, fn.losses.softmax_cross_entropy(), UPDATER, examples,
        epochs=epochs, key=jax.random.key(SEED + 1), batch_size=64, validation=held, metrics=METRICS,
        early_stopping=EARLY, checkpoints=checkpoints,
    )  # fmt: skip


def draw(moments: random.Random, i: int, plan: Plan) -> Kill:
    """The moment of kill i: every fifth at the start, the others up to 120 ms after a save begins, twice its usual time."""
    if i % 5 == 1:
        return Kill(0, moments.uniform(0.0, 2.0))
    return Kill(moments.randint(1, plan.saves), moments.uniform(0.0, 0.12))


class Child:
    """The training in a process of its own."""

    def __init__(self, folder: Path, epochs: int, cache: Path) -> None:
        self.folder, self.started = folder, time.time()
        known = [str(Path(fn.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(folder), "--epochs", str(epochs), "--out", str(cache)],
            stdout=self.said,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, known)),
                "JAX_COMPILATION_CACHE_DIR": str(cache),  # shared, so that only the first compiles
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            },
        )

    def saves(self) -> set[str]:
        """The checkpoints that were begun and are not removed."""
        return {path.name.partition(".")[0] for path in self.folder.iterdir() if path.name[0].isdecimal()}

    def unfinished(self) -> list[str]:
        """What this process was writing or removing when it was killed."""
        paths = [path for path in self.folder.iterdir() if path.suffix in (".unfinished", ".removed")]
        return [path.name for path in paths if path.stat().st_mtime > self.started]

    def kill(self, moment: Kill) -> bool:
        """Kills the process at that moment; returns whether it was still running."""
        before, begun = self.saves(), set[str]()
        deadline = time.monotonic() + DEADLINE
        while len(begun) < moment.saves and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the process wrote no checkpoint within {DEADLINE:.0f} seconds")
            begun |= self.saves() - before
            time.sleep(0.001)
        time.sleep(moment.seconds)
        ended = self.process.poll() is not None
        self.process.kill()
        self.wait(killed=True)
        return not ended

    def wait(self, killed: bool = False) -> None:
        """Waits for the process to end; exits this program too if it failed."""
        status = self.process.wait(DEADLINE)
        with self.said:
            self.said.seek(0)
            text = self.said.read().decode(errors="replace")
        if status > 0 or (status < 0 and not killed):
            sys.exit(f"the training ended with status {status}:\n{text}")


def killed(folder: Path, plan: Plan, cache: Path) -> list[tuple[Any, ...]]:
    """Kills the training as often as planned; returns a row for each kill."""
    moments, rows = random.Random(SEED), []
    folder.mkdir()
    for i in range(1, plan.kills + 1):
        moment = draw(moments, i, plan)
        child = Child(folder, plan.epochs, cache)
        if not child.kill(moment):
            say(f"the training ended before kill {i}")
            break
        unfinished = child.unfinished()
        when = f"{moment.seconds:.2f} s after " + (f"save {moment.saves}" if moment.saves else "its start")
        steps = fn.train.checkpoints(folder).steps()
        rows.append((i, when, steps[-1] if steps else 0, ", ".join(unfinished) or "–"))
    return rows


def bits(tree: Any) -> list[bytes]:
    """The bytes of every leaf."""

    def data(leaf: Any) -> Any:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return [np.asarray(data(leaf)).tobytes() for leaf in jax.tree.leaves(tree)]


def main(argv: Sequence[str] | None = None) -> int:
    """Kills, resumes and compares."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
        parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)

    chosen = options(__doc__, argv, more)
    if chosen.child:
        train(chosen.child.parent / DATA, chosen.epochs, fn.train.checkpoints(chosen.child, every=EVERY))
        return 0
    plan = QUICK if chosen.quick else FULL
    with tempfile.TemporaryDirectory() as place:
        data, folder = Path(place, DATA), Path(place, "run")
        load(data)
        rows = killed(folder, plan, Path(place, "cache"))
        print(table(("kill", "moment", "newest step", "being written or removed"), rows))
        checkpoints = fn.train.checkpoints(folder, every=EVERY)
        broken, unbroken = train(data, plan.epochs, checkpoints), train(data, plan.epochs, None)
        print(f"\nat the end:\n{checkpoints}\n")
    during = sum(row[-1] != "–" for row in rows)
    print(f"killed {len(rows)} times, {during} of them while it wrote a checkpoint or removed an old one")
    accuracy = broken.history.validation["accuracy"].max()
    print(f"{len(broken.history.loss)} epochs, best validation accuracy {accuracy:.1%}")
    same = bits(broken) == bits(unbroken)
    print(
        f"all {len(bits(broken))} arrays equal those without a kill, bit for bit: {'yes' if same else 'NO'}"
    )
    return int(not same or len(rows) < plan.kills)


if __name__ == "__main__":
    run(main)
