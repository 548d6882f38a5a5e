"""A checkpoint on the disk: a folder of arrays as orbax writes them, and `about.json` with digests of everything.

It is written beside its place and moved there when all of it is on the disk, so that a folder with a number for a
name is a whole checkpoint, or was one once.
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

    Its text says which file, path or setting it is, and what can be done. Nothing was deleted or overwritten.

    Example:
      >>> import fnnets as fn
      >>> try:
      ...     fn.train.checkpoints("runs/none").restore(None)
      ... except fn.train.CheckpointError as error:
      ...     "holds no checkpoint" in str(error)
      True
    """


def numbers(directory: Path) -> list[int]:
    """The steps of the checkpoints in a directory, the oldest first; none where there is no such directory."""
    if not directory.is_dir():
        return []
    found = (path.name for path in directory.iterdir() if path.name.isdecimal() and path.is_dir())
    return sorted(int(name) for name in found if name == str(int(name)))


def write(directory: Path, step: int, arrays: dict[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes a checkpoint, whole or not at all."""
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
            "files": {name: _digest_of(folder / name, on_disk=True) for name in _files(folder)},
        }
        with open(folder / ABOUT, "wb") as file:
            file.write(_sealed(content))
            file.flush()
            os.fsync(file.fileno())
        os.rename(folder, directory / str(step))
        _on_disk(directory)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(
            f"checkpoints: step {step} could not be saved in {directory}: {type(error).__name__}: {error}"
        ) from error


def is_ours(folder: Path) -> bool:
    """Whether a folder was a checkpoint once: others with a number for a name are not ours to remove."""
    return (folder / ABOUT).is_file()


def about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    try:
        text = (folder / ABOUT).read_bytes()
        content = dict(json.loads(text)["content"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder / ABOUT} is missing: nothing that was saved by fnnets") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / ABOUT} is damaged or not by fnnets ({error})") from error
    if text != _sealed(content):
        raise CheckpointError(f"{folder / ABOUT} is damaged: its content is not what was saved")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{folder / ABOUT} has format {content['format']}, of another version of fnnets; this one reads {FORMAT}"
        )
    return content


def verify(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, after every file was compared with its digest."""
    content = about(folder)
    for name, digest in content["files"].items():
        try:
            found = _digest_of(folder / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder / name} is missing") from error
        if found != digest:
            raise CheckpointError(f"{folder / name} is damaged: its content is not what was saved")
    return content


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a checkpoint says of itself, and its arrays. orbax is only given files that are as they were written."""
    content = verify(folder)
    kinds = content["arrays"]
    stored = {quote(name, safe=""): name for name, (_, shape, _) in kinds.items() if 0 not in shape}
    found = {}
    if stored:
        with needed() as orbax:
            as_numpy = {quoted: orbax.RestoreArgs(restore_type=np.ndarray) for quoted in stored}
            found = _checkpointer(orbax).restore(
                folder / ARRAYS, args=orbax.args.PyTreeRestore(restore_args=as_numpy)
            )
    arrays = {
        name: np.zeros(shape, jnp.dtype(dtype)) for name, (dtype, shape, _) in kinds.items() if 0 in shape
    }
    arrays |= {name: np.asarray(found[quoted]) for quoted, name in stored.items()}
    for name, (*_, digest) in kinds.items():
        if leaves.digest(name, arrays[name]) != digest:
            raise CheckpointError(f"{folder}: {name} is damaged: it is not what was saved")
    return content, arrays


def remove(folder: Path) -> None:
    """Removes a folder so that it never looks like a whole checkpoint while it is being removed."""
    removed = folder.with_name(folder.name + REMOVED)
    os.rename(folder, removed)
    shutil.rmtree(removed)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """The right to save in a directory, which one process has at a time.

    What earlier ones left unfinished is cleared up: who holds the lock knows that nobody is writing there. Where a
    file system has no locks it stays.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CheckpointError(
            f"checkpoints: nothing can be saved in {directory}: {error.strerror}"
        ) from error
    try:
        if _lock(directory, descriptor):
            for path in directory.iterdir():
                if path.suffix in (UNFINISHED, REMOVED) and path.stem.isdecimal():
                    shutil.rmtree(path, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def _lock(directory: Path, descriptor: int) -> bool:
    """Whether the lock was taken; False where there are none. The system gives it back when a process dies."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CheckpointError(
            f"checkpoints: another training is saving in {directory}; wait for its end, or give another directory."
        ) from error
    except OSError:
        return False
    return True


class Background:
    """A thread that saves; never more than one save is under way, and no error is lost."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._last: Future[None] | None = None

    def run(self, function: Callable[..., None], *args: Any) -> None:
        """Runs a function there, when the one before has ended."""
        self.wait()
        self._last = self._pool.submit(function, *args)

    def wait(self) -> None:
        """Waits for the end, and raises what was raised there."""
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
    """orbax, imported when it is needed; within, what it would write into the log is left out."""
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ImportError(
            "checkpoints need orbax-checkpoint; pip install 'fnnets[save]' brings it.", name="orbax"
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
    """What writes and reads a tree in this process alone, whether or not there are others."""
    alone = orbax.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = orbax.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return orbax.Checkpointer(handler, multiprocessing_options=alone)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _digest_of(path: Path, *, on_disk: bool = False) -> str:
    """SHA-256 of a file, which is on the disk then, if asked for."""
    with open(path, "rb") as file:
        if on_disk:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(content: Mapping[str, Any]) -> bytes:
    """The text of `about.json`; that of what was read from it is the same, to the byte, if nothing was changed."""
    text = json.dumps(content, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"content": {text},\n"sha256": "{digest}"}}\n'.encode()


def _on_disk(directory: Path) -> None:
    """The names in a directory too are on the disk then."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
