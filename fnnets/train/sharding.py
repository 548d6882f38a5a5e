"""Arrays on the devices of a mesh: sharded by rows, replicated on every device, or gathered in one process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fnnets.core import checks
from fnnets.core.arrays import is_key


def checked_mesh(caller: str, mesh: Any) -> Mesh:
    """The same devices under an axis along which the compiler shards arrays, whatever type it had."""
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{caller}: mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}; make one of all devices with "
            'jax.make_mesh((jax.device_count(),), ("batch",)).'
        )
    if len(mesh.axis_names) != 1:
        raise ValueError(
            f"{caller}: mesh must have one axis, got {checks.shape_text(mesh.axis_names)}; make one of the same devices "
            'with jax.sharding.Mesh(mesh.devices.ravel(), ("batch",)).'
        )
    if not mesh.local_devices:
        raise ValueError(
            f"{caller}: mesh must hold devices of this process, {jax.process_index()}, got only those of others; make it "
            "of jax.devices(), or call this in the processes that it has devices of."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))


def host_or_one_device(leaf: Any) -> Any:
    """An array that is not sharded yet: where it is, if that is one device, else on the host.

    What will be sharded need not fit on one device. An array of several processes stays as it is.
    """
    if isinstance(leaf, jax.Array) and (len(leaf.sharding.device_set) == 1 or not leaf.is_fully_addressable):
        return leaf
    leaf = np.asarray(leaf)
    return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)


def sharded(mesh: Mesh) -> NamedSharding:
    """The rows are divided among the devices."""
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array is on every device."""
    return NamedSharding(mesh, PartitionSpec())


def active(mesh: Mesh) -> AbstractContextManager[Any]:
    """Within, jax computes on this mesh, whichever one the user has set."""
    return jax.set_mesh(mesh)


def spans_processes(mesh: Mesh) -> bool:
    """Whether the mesh has devices of other processes."""
    return len(mesh.local_devices) < mesh.size


def copy_to(tree: Any, sharding: NamedSharding) -> Any:
    """Copies, on the devices of a mesh, of arrays that every process has whole."""
    return _copier(sharding)(tree)


def gather(mesh: Mesh, tree: Any) -> Any:
    """Arrays of a mesh as arrays of this process alone, which go together with all its others."""
    if spans_processes(mesh):
        tree = copy_to(tree, replicated(mesh))

    def one(leaf: Any) -> Any:
        if is_key(leaf):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jnp.asarray(jax.device_get(leaf))

    return jax.tree.map(one, tree)


@functools.lru_cache(maxsize=16)
def _copier(sharding: NamedSharding) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=sharding)


def shard_rows(mesh: Mesh, tree: Any, room: int) -> Any:
    """The rows of this process on its own devices, `room` on each, with zeros after the last; every process does so."""

    def one(leaf: Any) -> jax.Array:
        parts = []
        for i, device in enumerate(mesh.local_devices):
            part = leaf[i * room : (i + 1) * room]
            if missing := room - len(part):
                part = jnp.pad(part, [(0, missing), *[(0, 0)] * (part.ndim - 1)])
            parts.append(jax.device_put(part, device))
        shape = (mesh.size * room, *leaf.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharded(mesh), parts)

    return jax.tree.map(one, tree)
