"""Checkpoints: the state of a training, saved while it runs. A killed run continues bit for bit."""

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
    """The checkpoints in a directory, made by `fn.train.checkpoints`; it prints as a table.

    Each checkpoint is a folder named by its step. It appears only when it is complete on the disk, and its digests
    (SHA-256) are compared when it is restored.

    Attributes:
      directory: the folder that holds them.
      every: `fn.train.fit` saves after every so many epochs.
      keep: the number of newest checkpoints to keep; None keeps all.

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
      ...     state = run(checkpoints, 35)  # suppose it is killed here
      ...     again = run(checkpoints, 40)  # continues from step 30
      ...     int(again.step), checkpoints.steps()
      (40, [30, 40])
    """

    directory: Path
    every: int = 1
    keep: int | None = 3

    def steps(self) -> list[int]:
        """The steps of the checkpoints, the oldest first."""
        return storage.numbers(self.directory)

    def restore(self, like: Any, step: int | None = None) -> Any:
        """Reads a checkpoint.

        Args:
          like: a tree with the expected structure, of arrays or shapes: a `State` from `fn.train.start` (also for
            checkpoints of `fn.train.fit`), or a tree like the one that was saved.
          step: the step of the checkpoint; by default the newest.

        Returns:
          A tree like `like` with the saved values: jax arrays and typed keys; NumPy arrays where like has them.

        Raises:
          CheckpointError: there is no such checkpoint, it is damaged, or it does not match like; the error lists every
            path that differs.
        """
        wanted = leaves.named("checkpoints", like, "state")
        content, arrays = self.opened(step)
        saved = {name: kind for name, kind in kinds(content).items() if name.split(".")[0] == "state"}
        if lines := leaves.differences(saved, {name: leaves.kind(leaf) for name, leaf in wanted.items()}):
            raise CheckpointError(
                f"checkpoints: {self.directory / str(content['step'])} holds something else:\n  "
                + "\n  ".join(lines)
            )
        return rebuilt(like, wanted, content, arrays)

    def save(self, tree: Any, step: int | None = None) -> None:
        """Saves one checkpoint and waits until it is on the disk.

        Args:
          tree: a `State`, or any tree of arrays.
          step: the step that names the checkpoint; by default that of the `State`.
        """
        with self.saving() as save:
            save(tree, step)

    @contextmanager
    def saving(self) -> Iterator[Callable[..., None]]:
        """Gives `save(tree, step=None)`, which saves in the background: `with checkpoints.saving() as save:`.

        `save` takes what the method `save` takes. It waits for the save before it, copies the tree and returns; the
        tree's buffers may then be donated. At the end of the block everything is on the disk. Within the block no
        other process can save in the directory.

        Raises:
          CheckpointError: a save failed (raised by the next `save`, or at the end), the step exists already, or another
            training is saving in the directory.
          ImportError: orbax-checkpoint is not installed.
        """
        with storage.needed():
            pass
        if jax.process_index() > 0:  # process 0 writes for all
            yield lambda *args, **more: None
            return
        with storage.locked(self.directory), storage.Background() as background:

            def save(tree: Any, step: int | None = None, *, beside: Any = None, setting: Any = None) -> None:
                if step is None:
                    if not hasattr(tree, "step"):
                        raise ValueError("checkpoints: give a step too, for a tree that is not a State.")
                    step = int(tree.step)
                checks.whole("checkpoints", step=step)
                if (self.directory / str(step)).exists():
                    raise CheckpointError(
                        f"checkpoints: step {step} is in {self.directory} already, and checkpoints are not overwritten; "
                        "remove it, or give another directory."
                    )
                named = leaves.named("checkpoints", tree, "state") | leaves.named("checkpoints", beside)
                epoch = int(tree.epoch) if hasattr(tree, "epoch") else None
                arrays = {name: leaves.to_host(leaf) for name, leaf in named.items()}
                background.run(self._write, step, arrays, _about(named, epoch, setting))

            yield save

    def _write(self, step: int, arrays: dict[str, np.ndarray], about: Mapping[str, Any]) -> None:
        storage.write(self.directory, step, arrays, about)
        ours = [old for old in self.steps() if storage.is_ours(self.directory / str(old))]
        for old in [] if self.keep is None else ours[: -self.keep]:
            storage.remove(self.directory / str(old))

    def opened(self, step: int | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The description and the arrays of a checkpoint. The error for a damaged one names the newest undamaged one."""
        steps = self.steps()
        if not steps or step not in (None, *steps):
            missing = "no checkpoint" if step is None else f"no step {step}"
            others = f"; it holds {', '.join(map(str, steps))}" if steps else ""
            raise CheckpointError(f"checkpoints: {self.directory} holds {missing}{others}.")
        step = steps[-1] if step is None else step
        folder = self.directory / str(step)
        try:
            return storage.read(folder)
        except CheckpointError as error:
            intact = next((old for old in reversed(steps) if old < step and self._is_intact(old)), None)
            remedy = (
                f"no earlier checkpoint is intact; to start again, remove {self.directory}"
                if intact is None
                else f"step {intact} is intact; to continue from it, remove the later checkpoints"
            )
            raise CheckpointError(f"checkpoints: {error}. Nothing was changed; {remedy}.") from error

    def _is_intact(self, step: int) -> bool:
        try:
            storage.verify(self.directory / str(step))
        except CheckpointError:
            return False
        return True

    def __str__(self) -> str:
        """A row for each checkpoint. Arrays are verified only when they are restored."""
        rows: list[tuple[str, ...]] = [("step", "epoch", "saved", "bytes")]
        for step in self.steps():
            folder = self.directory / str(step)
            try:
                about = storage.about(folder)
                cells = "–" if about["epoch"] is None else str(about["epoch"]), about["saved"]
            except CheckpointError:
                cells = "?", "damaged"
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            rows.append((str(step), *cells, f"{size:,}"))
        if len(rows) == 1:
            return f"{self.directory}: no checkpoints"
        return "\n".join([f"{self.directory}:", *format_table(rows)])


def checkpoints(directory: str | os.PathLike[str], *, every: int = 1, keep: int | None = 3) -> Checkpoints:
    """Saves the checkpoints of a training in a directory: with `fn.train.fit(…, checkpoints=…)`, or in your own loop.

    With `fit`, the same call made again continues from the newest checkpoint, and gives bit for bit what an unbroken
    run gives. It refuses a checkpoint of another training and says what differs. An epoch with a loss that is not
    finite is not saved.

    Args:
      directory: a folder for this training alone; the first save makes it.
      every: `fit` saves after every so many epochs, and after the last one.
      keep: the number of newest checkpoints to keep; None keeps all.

    Returns:
      A `Checkpoints(directory, every, keep)`. It prints as a list of the checkpoints.

    Raises:
      ValueError: every or keep is below 1; directory is a file, or a URL.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, tempfile
      >>> x = jax.random.normal(jax.random.key(0), (64, 2))
      >>> net, updater = fn.serial(fn.dense(8), fn.dropout(0.2), fn.dense(1)), fn.updaters.adam(0.01)
      >>> training = net, fn.losses.mse(), updater, (x, x[:, :1] * x[:, 1:])
      >>> def train(folder, epochs):
      ...     checkpoints = fn.train.checkpoints(folder, every=2)
      ...     return fn.train.fit(*training, epochs=epochs, key=jax.random.key(1), checkpoints=checkpoints)
      >>> with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
      ...     _ = train(one, 3)  # suppose it is killed here
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
    folder = Path(os.path.abspath(path))  # orbax needs it, and the working directory may change
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoints: directory must be a folder, got the file {folder}.")
    return Checkpoints(folder, every, keep)


def _about(named: Mapping[str, Any], epoch: int | None, setting: Any) -> dict[str, Any]:
    """The description that a checkpoint saves beside its arrays."""
    return {
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "epoch": epoch,
        "setting": setting,
        "leaves": {name: leaves.kind(leaf) for name, leaf in named.items()},
        "keys": {name: str(jax.random.key_impl(leaf)) for name, leaf in named.items() if is_key(leaf)},
    }


def kinds(content: Mapping[str, Any]) -> dict[str, leaves.Kind]:
    """The kinds of the leaves in a checkpoint."""
    return {name: leaves.Kind(dtype, tuple(shape)) for name, (dtype, shape) in content["leaves"].items()}


def rebuilt(
    like: Any, wanted: Mapping[str, Any], content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Any:
    """The tree with the saved values; `wanted` holds the leaves of `like` by name, in order."""
    impl = content["keys"]
    values = [leaves.from_host(arrays[name], leaf, impl.get(name)) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), values)
