"""Training with every batch shared among the devices of a mesh, those of one process or of several.

The program is the one for a single device, which the compiler takes apart: a mean over the batch is one over the whole
batch, and dropout draws what it would draw there. What is said here is which device holds which examples, and how a
batch is put together from them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnnets.data.examples import Examples, number, take
from fnnets.train import mesh as m
from fnnets.train.epoch import Held, Progress, Setting, Source
from fnnets.train.rows import spread
from fnnets.train.state import State

Data = tuple[Examples, Held | None]


class Layout(NamedTuple):
    """Which device of a mesh holds which rows. Rows are counted through the processes, one after another."""

    mesh: Mesh
    each: int  # how many rows every device has room for
    first: tuple[int, ...]  # the number of each device's first row
    rows: tuple[int, ...]  # how many it holds


def share(
    mesh: Mesh, setting: Setting, epochs: int, state: State, examples: Examples, held: Held | None
) -> tuple[Layout, Data, Data]:
    """Where the rows of all processes are; those of this one on its devices; and all as they were on one device.

    Of several processes' rows the last says the shapes alone.
    """
    check_batch(mesh, setting.batch_size)
    parts = [examples] if held is None else [examples, held.examples]
    _check_own(parts)
    rows = [number(examples), 0 if held is None else number(held.examples)]
    numbers = m.agreed("fit", mesh, lambda: described(setting, epochs, state, parts), rows)
    layouts = [layout(mesh, column) for column in numbers.T]
    laid = [m.laid_out(mesh, part, where.each) for part, where in zip(parts, layouts, strict=False)]
    if m.of_several_processes(mesh):
        parts = [m.shapes_of(part, sum(where.rows)) for part, where in zip(parts, layouts, strict=False)]
    if held is None:
        return layouts[0], (laid[0], None), (parts[0], None)
    return layouts[0], (laid[0], Held(laid[1], _that_count(layouts[1]))), (parts[0], Held(parts[1]))


def placed(mesh: Mesh, now: Progress) -> Progress:
    """Where training begins, or goes on, on every device; refuses processes that have read different checkpoints."""
    m.agreed("fit", mesh, lambda: {"the checkpoint": f"epoch {now.state.epoch}, {m.contents(now)}"})
    return m.put(now, m.everywhere(mesh))


def source(examples: Examples, where: Layout | None) -> Source:
    """Batches of examples that one device holds, or of such as are laid out on many."""
    if where is None:
        return Source(lambda index: take(examples, index), number(examples))
    return Source(lambda index: _gathered(where, examples, index), sum(where.rows))


def _gathered(where: Layout, examples: Examples, index: jax.Array) -> Examples:
    """The rows with those numbers (B,), shared among the devices; a number that these do not divide is whole on each.

    Each device looks up those that it holds and puts zeros in place of the others; the sum over the devices, of
    which each gets its own part, moves no more than the batch.
    """
    (axis,), scatter = where.mesh.axis_names, len(index) % where.mesh.size == 0

    def own(examples: Examples, index: jax.Array) -> Examples:
        device = jax.lax.axis_index(axis)
        place = index - jnp.asarray(where.first)[device]
        here = (place >= 0) & (place < jnp.asarray(where.rows)[device])
        place = jnp.where(here, place, 0)

        def one(leaf: jax.Array) -> jax.Array:
            rows = jnp.where(
                spread(here, (len(here), *leaf.shape[1:])), leaf[place], jnp.zeros((), leaf.dtype)
            )
            summed = rows.astype(jnp.uint8) if leaf.dtype == bool else rows
            added = jax.lax.psum_scatter(summed, axis, tiled=True) if scatter else jax.lax.psum(summed, axis)
            return added.astype(leaf.dtype)

        return jax.tree.map(one, examples)

    rows, all_of_it = PartitionSpec(axis), PartitionSpec()
    return jax.shard_map(
        own, mesh=where.mesh, in_specs=(rows, all_of_it), out_specs=rows if scatter else all_of_it
    )(examples, index)


def looked_up(where: Layout | None, examples: Examples, index: Any) -> Examples:
    """A batch as arrays of this process alone."""
    if where is None:
        return take(examples, index)
    index = np.asarray(index)
    with m.active(where.mesh):
        rows = jax.jit(lambda *given: _gathered(where, *given))(examples, index)
    return m.home(where.mesh, rows)


def layout(mesh: Mesh, numbers: Any) -> Layout:
    """Where the rows are, from the number of rows that the process of each device brought, (devices,)."""
    process = [device.process_index for device in mesh.devices.flat]
    each = max(-(-int(n) // process.count(p)) for n, p in zip(numbers, process, strict=True))
    first, rows, before = [0] * mesh.size, [0] * mesh.size, 0
    for j in sorted(range(mesh.size), key=lambda j: (process[j], j)):
        filled = process[:j].count(process[j]) * each
        first[j], rows[j] = before, min(max(int(numbers[j]) - filled, 0), each)
        before += rows[j]
    return Layout(mesh, each, tuple(first), tuple(rows))


def _that_count(where: Layout) -> Any:
    """Which rows of a layout are no padding; None where all are."""
    if min(where.rows) == where.each:
        return None
    those = np.arange(where.each) < np.asarray(where.rows)[:, None]
    return jax.make_array_from_callback((those.size,), m.shared(where.mesh), lambda at: those.ravel()[at])


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Refuses a batch that the devices do not divide."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        near = f"{below} or {below + mesh.size}" if below else f"{mesh.size}"
        raise ValueError(
            f"fit: batch_size must be a multiple of the {mesh.size} devices of the mesh, got {batch_size}; take {near}, "
            "or a mesh of fewer devices."
        )


def _check_own(parts: list[Examples]) -> None:
    """Refuses arrays that lie on several processes."""
    for leaf in jax.tree.leaves(parts):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(
                "fit: examples must be rows of this process alone, got an array that lies on several; give each "
                "process its own rows, as jax or NumPy arrays."
            )


def described(setting: Setting, epochs: int, state: State, parts: list[Examples]) -> dict[str, str]:
    """What must be the same in every process, by name."""
    chosen = setting._asdict()
    options = ("batch_size", "remainder", "replace", "gradient", "clip")
    return {
        "the examples' shapes": m.shapes(parts[0], 1),
        "the validation's shapes": m.shapes(parts[1:], 1) or "no validation",
        "epochs": str(epochs),
        **{name: str(chosen[name]) for name in options},
        "metrics": ", ".join(name for name, _ in setting.metrics),
        "the network's params": m.shapes(state.params),
        "the updater's state": m.shapes(state.memory),
        "the key, or the state": m.contents(state),
    }


def anyone(where: Layout | None, flag: Callable[[], bool]) -> bool:
    """Whether the flag is set in any process."""
    if where is None or not m.of_several_processes(where.mesh):
        return flag()
    return bool(m.of_every_device(where.mesh, [flag()]).any())
