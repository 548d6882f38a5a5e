"""Checkpoints: where training stands, saved while it goes on, so that a run that was killed goes on bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fnnets.core import checks
from fnnets.core.arrays import is_key
from fnnets.core.text_table import format_table
from fnnets.saving import leaves, storage
from fnnets.saving.storage import CheckpointError


class Checkpoints(NamedTuple):
    """The checkpoints in a directory: made by `fn.train.checkpoints`, printed as a table of what is there.

    Each is a folder with the number of its step as name. It is written beside its place and moved there when all of
    it is on the disk; what a killed process left unfinished is cleared up by the next one that saves there. Every
    file's and every array's SHA-256 is saved too and compared at restoring.

    Attributes:
      directory: where they are.
      every: of `fn.train.fit`, after how many epochs the next one is saved.
      keep: how many of them are kept, the newest ones; None keeps all.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, tempfile
      >>> net, updater = fn.dense(1), fn.updaters.adam(0.1)
      >>> batch = fn.data.Examples(jnp.ones((4, 2)), jnp.zeros((4, 1)))
      >>> step = fn.train.make_step(net, fn.losses.mse(), updater)
      >>> def run(checkpoints, steps):
      ...     state = fn.train.start(net, updater, batch.x, jax.random.key(0))
      ...     if checkpoints.steps():
      ...         state = checkpoints.restore(state)
      ...     with checkpoints.saving() as save:
      ...         while int(state.step) < steps:
      ...             state, _ = step(state, batch)
      ...             if int(state.step) % 10 == 0:
      ...                 save(state)
      ...     return state
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     checkpoints = fn.train.checkpoints(folder, keep=2)
      ...     state = run(checkpoints, 35)  # killed here, say
      ...     again = run(checkpoints, 40)  # from step 30 on
      ...     int(again.step), checkpoints.steps()
      (40, [30, 40])
    """

    directory: Path
    every: int = 1
    keep: int | None = 3

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, the oldest first."""
        return storage.numbers(self.directory)

    def restore(self, like: Any, step: int | None = None) -> Any:
        """What was saved, if it is what is asked for.

        Args:
          like: what it looks like: a `State` from `fn.train.start` (of checkpoints of `fn.train.fit` too), or what
            else was saved; arrays or shapes.
          step: which checkpoint; by default the newest.

        Returns:
          A tree like `like` with what was saved: jax arrays, typed keys, NumPy's arrays where like has those.

        Raises:
          CheckpointError: there is none, it is damaged, or it holds something else: all paths that differ are named.
        """
        asked = leaves.named("checkpoints", like, "state")
        content, arrays = self.opened(step)
        there = {name: kind for name, kind in kinds(content).items() if name.split(".")[0] == "state"}
        if lines := leaves.differences(there, {name: leaves.kind(leaf) for name, leaf in asked.items()}):
            raise CheckpointError(
                f"checkpoints: {self.directory / str(content['step'])} holds something else:\n  "
                + "\n  ".join(lines)
            )
        return rebuilt(like, asked, content, arrays)

    def save(self, tree: Any, step: int | None = None) -> None:
        """Saves one checkpoint and waits until it is on the disk; the arguments are those that `saving` gives a function for."""
        with self.saving() as save:
            save(tree, step)

    @contextmanager
    def saving(self) -> Iterator[Callable[..., None]]:
        """For `with checkpoints.saving() as save:`, a function `save(state)` that saves in the background.

        `save(tree, step=None)` copies the tree (a `State`, or any tree of arrays with a step given) and returns; its
        buffers may be donated then. It waits where the save before has not ended yet. At the end of the block
        everything is on the disk. Nobody else can save in the directory meanwhile.

        Raises:
          CheckpointError: something could not be saved (raised by the next `save`, or at the end), the step was saved
            already, or another training is saving there.
          ImportError: orbax-checkpoint is not installed.
        """
        with storage.needed():
            pass
        if jax.process_index() > 0:  # one of several processes writes for all
            yield lambda *args, **more: None
            return
        with storage.locked(self.directory), storage.Background() as background:

            def save(tree: Any, step: int | None = None, *, beside: Any = None, setting: Any = None) -> None:
                if step is None:
                    if not hasattr(tree, "step"):
                        raise ValueError("checkpoints: give a step too, for a tree that is no State.")
                    step = int(tree.step)
                checks.whole("checkpoints", step=step)
                if (self.directory / str(step)).exists():
                    raise CheckpointError(
                        f"checkpoints: step {step} is in {self.directory} already, and nothing is overwritten; "
                        "remove it, or give another directory."
                    )
                found = leaves.named("checkpoints", tree, "state") | leaves.named("checkpoints", beside)
                epoch = int(tree.epoch) if hasattr(tree, "epoch") else None
                arrays = {name: leaves.to_host(leaf) for name, leaf in found.items()}
                background.run(self._write, step, arrays, _about(found, epoch, setting))

            yield save

    def _write(self, step: int, arrays: dict[str, np.ndarray], about: Mapping[str, Any]) -> None:
        storage.write(self.directory, step, arrays, about)
        ours = [old for old in self.steps() if storage.is_ours(self.directory / str(old))]
        for old in [] if self.keep is None else ours[: -self.keep]:
            storage.remove(self.directory / str(old))

    def opened(self, step: int | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What a checkpoint says of itself, and its arrays; refuses a damaged one, and says which one is whole."""
        steps = self.steps()
        if not steps or step not in (None, *steps):
            what = "no checkpoint" if step is None else f"no step {step}"
            there = f"; there are {', '.join(map(str, steps))}" if steps else ""
            raise CheckpointError(f"checkpoints: {self.directory} holds {what}{there}.")
        step = steps[-1] if step is None else step
        folder = self.directory / str(step)
        try:
            return storage.read(folder)
        except CheckpointError as error:
            whole = next((old for old in reversed(steps) if old < step and self._is_whole(old)), None)
            remedy = (
                f"none before it is whole; to begin anew, remove {self.directory}"
                if whole is None
                else f"step {whole} is whole; to go on from there, remove what came after it"
            )
            raise CheckpointError(f"checkpoints: {error}. Nothing was changed; {remedy}.") from error

    def _is_whole(self, step: int) -> bool:
        try:
            storage.verify(self.directory / str(step))
        except CheckpointError:
            return False
        return True

    def __str__(self) -> str:
        """A row for each checkpoint; whether it is whole is looked at when it is restored."""
        rows: list[tuple[str, ...]] = [("step", "epoch", "saved", "bytes")]
        for step in self.steps():
            folder = self.directory / str(step)
            try:
                about = storage.about(folder)
                found = "–" if about["epoch"] is None else str(about["epoch"]), about["saved"]
            except CheckpointError:
                found = "?", "damaged"
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows.append((str(step), *found, f"{size:,}"))
        if len(rows) == 1:
            return f"{self.directory}: no checkpoints"
        return "\n".join([f"{self.directory}:", *format_table(rows)])


def checkpoints(directory: str | os.PathLike[str], *, every: int = 1, keep: int | None = 3) -> Checkpoints:
    """Checkpoints of a training in a directory: with `fn.train.fit(…, checkpoints=…)`, or in a loop of one's own.

    With `fit`, the same call made again goes on where the last one ended or was killed, and gives what an unbroken
    run gives, bit for bit: all that the next epoch needs is saved (params, moving statistics, the updater's state, the
    key, the counts of steps and epochs, what early stopping remembers, the history), and batches and dropout are
    drawn by the key and these counts. Files are written while training goes on; at most one at a time. An epoch
    with a loss that is not finite is not saved.

    A checkpoint of another training is refused, with what differs: the network and its shapes, the loss, the
    updater's state, the key, batch size, penalty, …, shapes and some values of the data, and the program of an epoch,
    which a learning rate is a part of (it is compared under the same jax and fnnets and on the same number of devices).

    Args:
      directory: a folder for this training alone; it is made when something is saved.
      every: of `fit`, after how many epochs the next one is saved; the last one always is.
      keep: how many are kept, the newest ones; None keeps all.

    Returns:
      A `Checkpoints(directory, every, keep)`. Printed, it lists what is there.

    Raises:
      ValueError: every or keep is below 1; directory is a file, or an address of the net.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, tempfile
      >>> x = jax.random.normal(jax.random.key(0), (64, 2))
      >>> net, updater = fn.serial(fn.dense(8), fn.dropout(0.2), fn.dense(1)), fn.updaters.adam(0.01)
      >>> training = net, fn.losses.mse(), updater, (x, x[:, :1] * x[:, 1:])
      >>> def train(folder, epochs):
      ...     checkpoints = fn.train.checkpoints(folder, every=2)
      ...     return fn.train.fit(*training, epochs=epochs, key=jax.random.key(1), checkpoints=checkpoints)
      >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
      ...     _ = train(one, 3)  # say that it was killed then
      ...     broken, unbroken = train(one, 7), train(other, 7)
      >>> bool((broken.params[0].w == unbroken.params[0].w).all()), broken.history.loss.shape
      (True, (7,))
    """
    path = os.fspath(directory)
    checks.positive("checkpoints", every=every, **({} if keep is None else {"keep": keep}))
    if "://" in path:
        raise ValueError(
            f"checkpoints: directory must be a folder of this machine's file systems, got {path!r}."
        )
    found = Path(os.path.abspath(path))  # orbax wants it, and the working directory may change
    if found.exists() and not found.is_dir():
        raise ValueError(f"checkpoints: directory must be a folder, got the file {found}.")
    return Checkpoints(found, every, keep)


def _about(found: Mapping[str, Any], epoch: int | None, setting: Any) -> dict[str, Any]:
    return {
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "epoch": epoch,
        "setting": setting,
        "leaves": {name: leaves.kind(leaf) for name, leaf in found.items()},
        "keys": {name: str(jax.random.key_impl(leaf)) for name, leaf in found.items() if is_key(leaf)},
    }


def kinds(content: Mapping[str, Any]) -> dict[str, leaves.Kind]:
    """What a checkpoint says of its leaves."""
    return {name: leaves.Kind(dtype, tuple(shape)) for name, (dtype, shape) in content["leaves"].items()}


def rebuilt(
    like: Any, asked: Mapping[str, Any], content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Any:
    """The tree again, of its leaves' names in their order."""
    impl = content["keys"]
    found = [leaves.from_host(arrays[name], leaf, impl.get(name)) for name, leaf in asked.items()]
    return jax.tree.unflatten(jax.tree.structure(like), found)
