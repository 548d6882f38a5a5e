"""Which device of a mesh holds which rows, and how to gather a batch from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnnets.data.examples import Examples
from fnnets.train.rows import broadcast_rows
from fnnets.train.sharding import sharded


class RowLayout(NamedTuple):
    """Which device holds which rows. Rows are numbered over all processes, in their order."""

    mesh: Mesh
    room: int  # the number of rows that fit on every device
    first: tuple[int, ...]  # the index of each device's first row
    rows: tuple[int, ...]  # the number of rows that each device holds


def row_layout(mesh: Mesh, numbers: Any) -> RowLayout:
    """The layout of the rows, from the number of rows of each device's process, (devices,)."""
    process = [device.process_index for device in mesh.devices.flat]
    room = max(-(-int(n) // process.count(p)) for n, p in zip(numbers, process, strict=True))
    first, rows, before = [0] * mesh.size, [0] * mesh.size, 0
    for j in sorted(range(mesh.size), key=lambda j: (process[j], j)):
        filled = process[:j].count(process[j]) * room
        first[j], rows[j] = before, min(max(int(numbers[j]) - filled, 0), room)
        before += rows[j]
    return RowLayout(mesh, room, tuple(first), tuple(rows))


def rows_that_count(layout: RowLayout) -> Any:
    """Which rows are not padding, (devices·room,) bools, sharded; None if all count."""
    if min(layout.rows) == layout.room:
        return None
    those = np.arange(layout.room) < np.asarray(layout.rows)[:, None]
    return jax.make_array_from_callback((those.size,), sharded(layout.mesh), lambda at: those.ravel()[at])


def take_rows(layout: RowLayout, examples: Examples, index: jax.Array) -> Examples:
    """The rows with these indices (B,), sharded, or replicated if the devices do not divide B.

    Each device looks up the rows that it holds, with zeros in place of the others. The batch is the sum over the
    devices. Each device gets its part of the sum, so no more than the batch is moved.
    """
    (axis,), scatter = layout.mesh.axis_names, len(index) % layout.mesh.size == 0

    def own(examples: Examples, index: jax.Array) -> Examples:
        device = jax.lax.axis_index(axis)
        place = index - jnp.asarray(layout.first)[device]
        here = (place >= 0) & (place < jnp.asarray(layout.rows)[device])
        place = jnp.where(here, place, 0)

        def one(leaf: jax.Array) -> jax.Array:
            rows = jnp.where(
                broadcast_rows(here, (len(here), *leaf.shape[1:])), leaf[place], jnp.zeros((), leaf.dtype)
            )
            summed = rows.astype(jnp.uint8) if leaf.dtype == bool else rows
            added = jax.lax.psum_scatter(summed, axis, tiled=True) if scatter else jax.lax.psum(summed, axis)
            return added.astype(leaf.dtype)

        return jax.tree.map(one, examples)

    rows, everything = PartitionSpec(axis), PartitionSpec()
    return jax.shard_map(
        own, mesh=layout.mesh, in_specs=(rows, everything), out_specs=rows if scatter else everything
    )(examples, index)
