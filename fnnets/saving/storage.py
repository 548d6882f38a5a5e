"""A checkpoint on the disk: a folder with the arrays, written by orbax, and `about.json` with all digests.

The folder gets its name, a number, when all of it is on the disk. So a folder with such a name was complete once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.saving import leaves

ABOUT, ARRAYS, FORMAT = "about.json", "arrays", 1
UNFINISHED, REMOVED = ".unfinished", ".removed"


class CheckpointError(ValueError):
    """A checkpoint that cannot be saved, is damaged, or belongs to another training.

    The text names the file, the path or the setting, and the remedy. Nothing is deleted or overwritten.

    Example:
      >>> import fnnets as fn
      >>> try:
      ...     fn.train.checkpoints("runs/none").restore(None)
      ... except fn.train.CheckpointError as error:
      ...     "holds no checkpoint" in str(error)
      True
    """


def numbers(directory: Path) -> list[int]:
    """The steps of the checkpoints in a directory, the oldest first; empty if the directory does not exist."""
    if not directory.is_dir():
        return []
    names = (path.name for path in directory.iterdir() if path.name.isdecimal() and path.is_dir())
    return sorted(int(name) for name in names if name == str(int(name)))


def write(directory: Path, step: int, arrays: dict[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes a checkpoint as a whole, or not at all."""
    folder = directory / f"{step}{UNFINISHED}"
    try:
        folder.mkdir()
        stored = {quote(name, safe=""): array for name, array in arrays.items() if array.size}
        if stored:
            with needed() as orbax:
                _checkpointer(orbax).save(folder / ARRAYS, args=orbax.args.PyTreeSave(stored))
        content = {
            "format": FORMAT,
            "step": step,
            **about,
            "arrays": {
                name: [*leaves.kind(array), leaves.digest(name, array)] for name, array in arrays.items()
            },
            "files": {name: _digest_of(folder / name, sync=True) for name in _files(folder)},
        }
        with open(folder / ABOUT, "wb") as file:
            file.write(_with_digest(content))
            file.flush()
            os.fsync(file.fileno())
        os.rename(folder, directory / str(step))
        _sync_names(directory)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(
            f"checkpoints: step {step} could not be saved in {directory}: {type(error).__name__}: {error}"
        ) from error


def is_ours(folder: Path) -> bool:
    """Whether a folder is a checkpoint, damaged or not. Other folders named by a number are not removed."""
    return (folder / ABOUT).is_file()


def about(folder: Path) -> dict[str, Any]:
    """The description of a checkpoint, without its arrays."""
    try:
        text = (folder / ABOUT).read_bytes()
        content = dict(json.loads(text)["content"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder / ABOUT} is missing: fnnets did not save this folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / ABOUT} is damaged, or fnnets did not write it ({error})") from error
    if text != _with_digest(content):
        raise CheckpointError(f"{folder / ABOUT} is damaged: its content is not what was saved")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{folder / ABOUT} has format {content['format']}, of another version of fnnets; this version reads {FORMAT}"
        )
    return content


def verify(folder: Path) -> dict[str, Any]:
    """The description of a checkpoint; compares every file with its digest first."""
    content = about(folder)
    for name, digest in content["files"].items():
        try:
            actual = _digest_of(folder / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder / name} is missing") from error
        if actual != digest:
            raise CheckpointError(f"{folder / name} is damaged: its content is not what was saved")
    return content


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a checkpoint. orbax reads only verified files."""
    content = verify(folder)
    kinds = content["arrays"]
    stored = {quote(name, safe=""): name for name, (_, shape, _) in kinds.items() if 0 not in shape}
    restored = {}
    if stored:
        with needed() as orbax:
            as_numpy = {quoted: orbax.RestoreArgs(restore_type=np.ndarray) for quoted in stored}
            restored = _checkpointer(orbax).restore(
                folder / ARRAYS, args=orbax.args.PyTreeRestore(restore_args=as_numpy)
            )
    arrays = {
        name: np.zeros(shape, jnp.dtype(dtype)) for name, (dtype, shape, _) in kinds.items() if 0 in shape
    }
    arrays |= {name: np.asarray(restored[quoted]) for quoted, name in stored.items()}
    for name, (*_, digest) in kinds.items():
        if leaves.digest(name, arrays[name]) != digest:
            raise CheckpointError(f"{folder}: {name} is damaged: its values are not what was saved")
    return content, arrays


def remove(folder: Path) -> None:
    """Removes a checkpoint. The folder is renamed first, so that half of it never looks like a checkpoint."""
    removed = folder.with_name(folder.name + REMOVED)
    os.rename(folder, removed)
    shutil.rmtree(removed)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lets one process at a time save in a directory.

    Removes what killed processes left unfinished: under the lock no other process is writing it. On a file system
    without locks these files stay.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CheckpointError(f"checkpoints: {directory} cannot be written to: {error.strerror}") from error
    try:
        if _lock(directory, descriptor):
            for path in directory.iterdir():
                if path.suffix in (UNFINISHED, REMOVED) and path.stem.isdecimal():
                    shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _lock(directory: Path, descriptor: int) -> bool:
    """Takes the lock; False on a system without locks. The system releases it when the process dies."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"checkpoints: another training is saving in {directory}; wait until it ends, or give another directory."
        ) from error
    except OSError:
        return False
    return True


class Background:
    """A thread that saves, one save at a time. Its errors are raised by the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._last: Future[None] | None = None

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """Waits for the last function, and runs this one in the thread."""
        self.wait()
        self._last = self._pool.submit(function, *args)

    def wait(self) -> None:
        """Waits for the last function, and raises its error."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            error.add_note(str(failed))
        finally:
            self._pool.shutdown()


@contextmanager
def needed() -> Iterator[Any]:
    """orbax, imported only when it is needed; within, it writes nothing into the log."""
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ImportError(
            "checkpoints need orbax-checkpoint; install it with pip install 'fnnets[save]'.", name="orbax"
        ) from error

    def of_others(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    log = logging.getLogger("absl")
    log.addFilter(of_others)
    try:
        yield orbax
    finally:
        log.removeFilter(of_others)


def _checkpointer(orbax: Any) -> Any:
    """orbax's checkpointer, for this process alone: by default it would wait for the others."""
    alone = orbax.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = orbax.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return orbax.Checkpointer(handler, multiprocessing_options=alone)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _digest_of(path: Path, *, sync: bool = False) -> str:
    """SHA-256 of a file; with sync, waits until the file is on the disk."""
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _with_digest(content: Mapping[str, Any]) -> bytes:
    """The text of `about.json`. Content read from an undamaged file gives the same bytes again."""
    text = json.dumps(content, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"content": {text},\n"sha256": "{digest}"}}\n'.encode()


def _sync_names(directory: Path) -> None:
    """Waits until the names in a directory are on the disk."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
