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
    """The mesh with an axis of type Auto, along which the compiler shards arrays."""
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
            "from jax.devices(), or call this only in the processes that own its devices."
        )
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))


def host_or_one_device(leaf: Any) -> Any:
    """An array before it is sharded: an array on one device stays there, others go to the host.

    The host has room for arrays that do not fit on one device. An array of several processes is not changed.
    """
    if isinstance(leaf, jax.Array) and (len(leaf.sharding.device_set) == 1 or not leaf.is_fully_addressable):
        return leaf
    leaf = np.asarray(leaf)
    return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)


def sharded(mesh: Mesh) -> NamedSharding:
    """The sharding that divides the rows among the devices."""
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding with the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def active(mesh: Mesh) -> AbstractContextManager[Any]:
    """Within, jax computes on this mesh, even if the user has set another."""
    return jax.set_mesh(mesh)


def spans_processes(mesh: Mesh) -> bool:
    """Whether the mesh has devices of other processes."""
    return len(mesh.local_devices) < mesh.size


def copy_to(tree: Any, sharding: NamedSharding) -> Any:
    """Copies arrays, which every process holds in full, to the devices of a mesh."""
    return _copier(sharding)(tree)


def gather(mesh: Mesh, tree: Any) -> Any:
    """Arrays on a mesh as arrays of this process alone, which can be used with its other arrays."""
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
    """Puts the rows of this process on its devices, `room` on each, padded with zeros; every process calls it."""

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
