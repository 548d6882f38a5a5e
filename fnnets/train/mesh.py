"""Arrays on the devices of a mesh, from one process or from several."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fnnets.core import checks
from fnnets.core.arrays import is_key
from fnnets.saving import leaves


def checked_mesh(who: str, mesh: Any) -> Mesh:
    """The same devices under an axis along which the compiler shares arrays out, whatever type it had."""
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{who}: mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}; make one of all devices with "
            'jax.make_mesh((jax.device_count(),), ("batch",)).'
        )
    if len(mesh.axis_names) != 1:
        raise ValueError(
            f"{who}: mesh must have one axis, got {checks.shape_text(mesh.axis_names)}; make one of the same devices "
            'with jax.sharding.Mesh(mesh.devices.ravel(), ("batch",)).'
        )
    if not mesh.local_devices:
        raise ValueError(
            f"{who}: mesh must hold devices of this process, {jax.process_index()}, got only those of others; make it "
            "of jax.devices(), or call this in the processes that it has devices of."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))


def as_it_is(leaf: Any) -> Any:
    """An array where it lies: what will be shared out need not fit on one device before.

    One that lies on several of this process is taken to the host: it need not be shared out as it will be.
    """
    if isinstance(leaf, jax.Array) and (len(leaf.sharding.device_set) == 1 or not leaf.is_fully_addressable):
        return leaf
    leaf = np.asarray(leaf)
    return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)


def shared(mesh: Mesh) -> NamedSharding:
    """The first axis is shared out among the devices."""
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def everywhere(mesh: Mesh) -> NamedSharding:
    """The whole array is on every device."""
    return NamedSharding(mesh, PartitionSpec())


def active(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """Within, jax computes on that mesh, whichever the user has set for his own computations."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def of_several_processes(mesh: Mesh) -> bool:
    """Whether it has devices of other processes."""
    return len(mesh.local_devices) < mesh.size


def leads(mesh: Mesh) -> bool:
    """Whether this process holds the mesh's first device: one of them does."""
    return mesh.devices.flat[0].process_index == jax.process_index()


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Copies of arrays that every process has, whole, on the devices of a mesh."""
    return _copier(sharding)(tree)


def home(mesh: Mesh, tree: Any) -> Any:
    """What lies on a mesh as arrays of this process alone, which go together with all its others."""
    if of_several_processes(mesh):
        tree = put(tree, everywhere(mesh))

    def one(leaf: Any) -> Any:
        if is_key(leaf):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jnp.asarray(jax.device_get(leaf))

    return jax.tree.map(one, tree)


@functools.lru_cache(maxsize=16)
def _copier(sharding: NamedSharding) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=sharding)


def laid_out(mesh: Mesh, tree: Any, each: int) -> Any:
    """Rows of this process on its own devices, `each` on every one, zeros behind the last; and so those of the others."""

    def one(leaf: Any) -> jax.Array:
        parts = []
        for i, device in enumerate(mesh.local_devices):
            part = leaf[i * each : (i + 1) * each]
            if missing := each - len(part):
                part = jnp.pad(part, [(0, missing), *[(0, 0)] * (part.ndim - 1)])
            parts.append(jax.device_put(part, device))
        shape = (mesh.size * each, *leaf.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, shared(mesh), parts)

    return jax.tree.map(one, tree)


def of_every_device(mesh: Mesh, numbers: Sequence[int]) -> np.ndarray:
    """The whole numbers that the process of each device gives here, (devices, …); waits for all of them."""
    row = np.asarray(numbers, np.uint32)
    if not of_several_processes(mesh):
        return np.tile(row, (mesh.size, 1))
    rows = np.tile(row, (len(mesh.local_devices), 1))
    return np.asarray(put(laid_out(mesh, rows, 1), everywhere(mesh)))


def agreed(
    who: str, mesh: Mesh, described: Callable[[], dict[str, str]], numbers: Sequence[int] = ()
) -> np.ndarray:
    """The numbers of each device's process, (devices, …); refuses processes that differ in what is described.

    It is compared before anything is computed together: processes with different programs would wait for each other
    for ever.
    """
    if not of_several_processes(mesh):
        return of_every_device(mesh, numbers)
    same = described()
    marks = [zlib.crc32(text.encode()) for text in same.values()]
    table = of_every_device(mesh, [*marks, *numbers])
    for (name, text), column in zip(same.items(), table.T, strict=False):
        processes = {
            device.process_index: mark for device, mark in zip(mesh.devices.flat, column, strict=True)
        }
        own = jax.process_index()
        if differ := sorted(p for p, mark in processes.items() if mark != processes[own]):
            raise ValueError(
                f"{who}: {name} must be the same in all processes, got {text} in process {own}, and something else in "
                f"process {', '.join(map(str, differ))}; run the same program in each."
            )
    return table[:, len(marks) :]


def shapes_of(tree: Any, rows: int) -> Any:
    """The arrays' shapes and dtypes, with so many rows."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), tree)


def shapes(tree: Any, skip: int = 0) -> str:
    """The arrays of a tree as text, without their first axes."""
    return ", ".join(
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape[skip:])}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    )


def contents(tree: Any) -> str:
    """The arrays of a tree as a short text that differs where any number does."""
    mark = 0
    for leaf in jax.tree.leaves(tree):
        mark = zlib.crc32(leaves.to_host(leaf).tobytes(), mark)
    return f"arrays with the checksum {mark:08x}"
