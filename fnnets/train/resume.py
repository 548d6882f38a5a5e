"""Continues a training from its newest checkpoint, if that is of the same training.

The names and texts of `describe` are stored in checkpoints: do not change them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from fnnets.core.arrays import is_key
from fnnets.core.version import __version__
from fnnets.saving import leaves
from fnnets.saving.checkpoint_folder import Checkpoints, kinds, rebuilt
from fnnets.saving.storage import CheckpointError
from fnnets.train.epoch import History, Training
from fnnets.train.job import Job
from fnnets.train.settings import Settings

SAMPLE = 256  # the number of values compared in each array of the data
GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 spread evenly over an array of any size
CLOSE = 1e-3  # another machine may round the data in another way


@contextmanager
def resumed(
    checkpoints: Checkpoints | None, job: Job, epochs: int, training: Training
) -> Iterator[tuple[Training, list[History], Callable[..., None]]]:
    """Gives the training to continue from, its records so far, and `save(training, records, last)` for every epoch.

    `training` is the start, as arrays of this process; without checkpoints it continues from there and saves nothing.
    The data are compared as on one device, so a training may continue on more devices, or fewer.
    """
    if checkpoints is None:
        yield training, [], lambda training, records, last: None
        return
    if not isinstance(checkpoints, Checkpoints):
        raise TypeError(
            f"fit: checkpoints must be made by fn.train.checkpoints(directory), got {type(checkpoints).__name__}."
        )
    with checkpoints.saving() as save:
        first, records = int(training.state.epoch), list[History]()
        traced = job.trace(training)
        described = describe(job, training, traced.jaxpr)
        if checkpoints.steps():
            training, records = _newest(checkpoints, described, training, traced.out_info[1], epochs)
        elif first >= epochs:
            raise ValueError(
                f"fit: with checkpoints, epochs counts all epochs, got {epochs} with a state after {first}; give more."
            )

        def save_due(training: Training, records: list[History], last: bool) -> None:
            if last or (first + len(records)) % checkpoints.every == 0:
                training = job.placement.gather(training)
                beside = {"best": training.best, "alive": training.alive, "history": stack_records(records)}
                save(training.state, beside=beside, setting=described)

        yield training, records, save_due


def stack_records(records: list[History]) -> History:
    """The records of several epochs as one."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *records)


def _newest(
    checkpoints: Checkpoints, described: dict[str, Any], training: Training, record: Any, epochs: int
) -> tuple[Training, list[History]]:
    """The newest checkpoint; refuses one of another training."""
    content, arrays = checkpoints.opened()
    folder, saved = checkpoints.directory / str(content["step"]), kinds(content)
    if content["setting"] is None:
        raise CheckpointError(
            f"fit: {folder} was not saved by fit; to continue from it, give state=checkpoints.restore(state) and "
            "another directory."
        )
    number = saved["history.loss"].shape[0]
    history = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), (number, *leaf.shape)), record
    )
    like = {"state": training.state, "best": training.best, "alive": training.alive, "history": history}
    wanted = leaves.named("fit", like)
    lines = differing(content["setting"], described)
    lines += leaves.differences(saved, {name: leaves.kind(leaf) for name, leaf in wanted.items()})
    if not lines and _program_differs(content["setting"], described):
        lines = [
            "program: a function or a number within net, loss, updater, penalty, metrics or early_stopping, such as "
            "a learning rate"
        ]
    if lines:
        raise CheckpointError(
            f"fit: {folder} belongs to another training:\n  "
            + "\n  ".join(lines)
            + "\nGive another directory; to continue from its state on purpose, give "
            "state=checkpoints.restore(state) too."
        )
    if content["epoch"] > epochs:
        raise CheckpointError(
            f"fit: {folder} has {content['epoch']} epochs already, got epochs={epochs}; give at least as many."
        )
    tree = rebuilt(like, wanted, content, arrays)
    records = [jax.tree.map(lambda leaf, i=i: leaf[i], tree["history"]) for i in range(number)]
    return Training(tree["state"], tree["best"], tree["alive"]), records


def describe(job: Job, training: Training, program: Any) -> dict[str, Any]:
    """Describes a training so that two can be compared: texts, values from the data, and a digest of the program."""
    examples, validation = job.data.unplaced
    data = leaves.named("fit", examples, "examples")
    if validation is not None:
        data |= leaves.named("fit", validation.examples, "validation")
    devices = len(jax.tree.leaves(job.data.examples)[0].sharding.device_set)
    texts = _texts(job.settings, training)
    return {
        "texts": {name: _without_addresses(text) for name, text in texts.items()},
        "data": {name: [str(leaves.kind(leaf)), sample(leaf)] for name, leaf in data.items()},
        "program": {
            "under": [jax.__version__, jax.default_backend(), devices, __version__],
            "sha256": _digest(program),
        },
    }


def _texts(settings: Settings, training: Training) -> dict[str, str]:
    """The settings, the key and the start as texts."""
    key, state = training.state.key, training.state
    texts = {name: str(value) for name, value in settings._asdict().items()}
    texts["updater"] = "its state is compared, and the program"
    texts["metrics"] = ", ".join(name for name, _ in settings.metrics) or "None"
    if settings.early_stopping is not None:
        texts["early_stopping"] = f"watches {settings.early_stopping.watch}"
    texts["key"] = f"{leaves.kind(key)} {leaves.to_host(key).tolist()}"
    texts["begun"] = f"at epoch {state.epoch}, step {state.step}"
    return texts


def differing(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """A line for each setting, and each array of the data, that differs in the checkpoint (there)."""
    lines = []
    for name, text in here["texts"].items():
        if (other := there["texts"].get(name)) != text:
            lines.append(f"{name}: {other} there, {text} here")
    for name in here["data"] | there["data"]:
        (kind, values), (other, others) = (each["data"].get(name, ("missing", [])) for each in (here, there))
        if kind != other:
            lines.append(f"{name}: {other} there, {kind} here")
        elif not _close(values, others):
            lines.append(f"{name}: other values there than here")
    return lines


def sample(leaf: Any) -> list[float]:
    """Some values of an array; none if only its shape is known, as for the rows of several processes."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return []
    flat = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).reshape(-1)
    at = (np.arange(1, min(flat.size, SAMPLE) + 1) * GOLDEN % 1 * flat.size).astype(int)
    values: list[float] = np.real(flat[at]).astype(float).tolist()
    return values


def _close(values: list[float], others: list[float]) -> bool:
    """Whether two samples are the same up to rounding; an empty sample equals any."""
    if not values or not others:
        return True
    scale = np.nanmean(np.abs(others)) if np.isfinite(others).any() else 0.0
    return bool(
        len(values) == len(others) and np.allclose(values, others, CLOSE, CLOSE * scale, equal_nan=True)
    )


def _program_differs(there: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether the epochs' programs differ. Digests under another jax or fnnets, or on other devices, do not compare."""
    there, here = there["program"], here["program"]
    return bool(there["under"] == here["under"] and there["sha256"] != here["sha256"])


def _digest(program: Any) -> str:
    """SHA-256 of a traced function's text and of its constant arrays."""
    sha256 = hashlib.sha256(_without_addresses(str(program)).encode())
    for i, array in enumerate(program.consts):
        sha256.update(leaves.digest(str(i), leaves.to_host(array)).encode())
    return sha256.hexdigest()


def _without_addresses(text: str) -> str:
    """The text without the memory addresses of functions, which differ from run to run."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)
