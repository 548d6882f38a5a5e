"""What the processes of a mesh exchange before they compute together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from fnnets.saving import leaves
from fnnets.train.sharding import copy_to, replicated, shard_rows, spans_processes


def numbers_by_device(mesh: Mesh, numbers: Sequence[int]) -> np.ndarray:
    """The whole numbers that each device's process passes in, (devices, …); waits for all processes."""
    row = np.asarray(numbers, np.uint32)
    if not spans_processes(mesh):
        return np.tile(row, (mesh.size, 1))
    rows = np.tile(row, (len(mesh.local_devices), 1))
    return np.asarray(copy_to(shard_rows(mesh, rows, 1), replicated(mesh)))


def agree(
    caller: str, mesh: Mesh, described: Callable[[], dict[str, str]], numbers: Sequence[int] = ()
) -> np.ndarray:
    """The numbers of each device's process, (devices, …); refuses processes whose descriptions differ.

    Call it before a computation in common: processes with different programs would wait for each other forever.
    """
    if not spans_processes(mesh):
        return numbers_by_device(mesh, numbers)
    same = described()
    marks = [zlib.crc32(text.encode()) for text in same.values()]
    table = numbers_by_device(mesh, [*marks, *numbers])
    for (name, text), column in zip(same.items(), table.T, strict=False):
        processes = {
            device.process_index: mark for device, mark in zip(mesh.devices.flat, column, strict=True)
        }
        own = jax.process_index()
        if differ := sorted(p for p, mark in processes.items() if mark != processes[own]):
            raise ValueError(
                f"{caller}: {name} must be the same in all processes, got {text} in process {own}, and something else "
                f"in process {', '.join(map(str, differ))}; run the same program in each."
            )
    return table[:, len(marks) :]


def shapes_text(tree: Any, skip: int = 0) -> str:
    """The dtypes and shapes of a tree's arrays as text, without their first `skip` axes."""
    return ", ".join(
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape[skip:])}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    )


def checksum_text(tree: Any) -> str:
    """A short text for a tree's arrays, which differs if any number differs."""
    mark = 0
    for leaf in jax.tree.leaves(tree):
        mark = zlib.crc32(leaves.to_host(leaf).tobytes(), mark)
    return f"arrays with the checksum {mark:08x}"
