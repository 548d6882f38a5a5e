"""Where a training lies: on one device, or with every batch shared among the devices of a mesh.

`OneDevice` and `OnMesh` have the same functions, so that the code that trains never asks which one it has. On a mesh the
program is the one for a single device, which the compiler partitions: a mean over the batch is one over the whole
batch, and dropout draws what it would draw there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnnets.data.examples import Examples, number, take
from fnnets.train import sharding
from fnnets.train.epoch import BatchSource, History, Training, Validation, make_epoch
from fnnets.train.processes import agree, checksum_text, numbers_by_device, shapes_text
from fnnets.train.row_layout import RowLayout, row_layout, rows_that_count, take_rows
from fnnets.train.settings import Settings
from fnnets.train.state import State

Model = Callable[..., Any]  # the training of one model, as a pure function


class Data(NamedTuple):
    """Examples, and perhaps a validation, as an epoch is given them."""

    examples: Examples
    validation: Validation | None
    # The same as on one device, which a checkpoint compares; of several processes' rows the shapes alone.
    unplaced: tuple[Examples, Validation | None]
    layout: RowLayout | None = None  # None: one device holds all rows


@dataclass(frozen=True)
class OneDevice:
    """All arrays are where jax puts them."""

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all."""
        return True

    @property
    def everywhere(self) -> NamedSharding | None:
        """The sharding of an epoch's results; None leaves it to jax."""
        return None

    def as_array(self, leaf: Any) -> Any:
        """What a user gives, as an array that can be placed."""
        return jnp.asarray(leaf)

    def place(
        self,
        settings: Settings,
        epochs: int,
        state: State,
        examples: Examples,
        validation: Validation | None,
    ) -> Data:
        """The data on the devices; refuses what cannot be placed there, and processes that differ."""
        del settings, epochs, state
        return Data(examples, validation, (examples, validation))

    def replicate(self, training: Training) -> Training:
        """Where training begins, or goes on, on every device."""
        return training

    def gather(self, tree: Any) -> Any:
        """What an epoch gives, as arrays of this process alone."""
        return tree

    def source(self, examples: Examples, layout: RowLayout | None) -> BatchSource:
        """Where an epoch's batches come from."""
        del layout
        return BatchSource(lambda index: take(examples, index), number(examples))

    def batch(self, data: Data, index: Any) -> Examples:
        """The examples with those indices, as arrays of this process alone."""
        return take(data.examples, index)

    def active(self) -> AbstractContextManager[Any]:
        """Within, jax computes here."""
        return nullcontext()

    def in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process; waits for all."""
        return flag

    def compile_models(self, caller: str, train: Model, in_axes: tuple[int | None, ...]) -> Model:
        """`train`, the training of a model, for all models of a first axis: `jax.vmap(train, in_axes)`, compiled."""
        del caller
        return jax.jit(jax.vmap(train, in_axes))

    def compile_grid(self, caller: str, train: Model) -> Model:
        """`train(point, key, …)` for all pairs of points and keys, whose axes come first; compiled."""
        del caller
        over_keys = jax.vmap(train, (None, 0, None, None))
        return jax.jit(jax.vmap(over_keys, (0, None, None, None)))


@dataclass(frozen=True)
class OnMesh:
    """Every device holds a part of the rows and all of the training; the functions are those of `OneDevice`."""

    mesh: Mesh

    @property
    def leads(self) -> bool:
        """Whether this process holds the mesh's first device: one of them does."""
        return bool(self.mesh.devices.flat[0].process_index == jax.process_index())

    @property
    def everywhere(self) -> NamedSharding:
        """All of it on every device."""
        return sharding.replicated(self.mesh)

    def as_array(self, leaf: Any) -> Any:
        """An array that need not fit on one device."""
        return sharding.host_or_one_device(leaf)

    def place(
        self,
        settings: Settings,
        epochs: int,
        state: State,
        examples: Examples,
        validation: Validation | None,
    ) -> Data:
        """The rows of this process on its devices, together with those of the others."""
        _check_batch_size(self.mesh, settings.batch_size)
        parts = [examples] if validation is None else [examples, validation.examples]
        _check_rows_are_own(parts)
        # Two numbers, with a validation or without: processes that differ in it compare tables of one shape.
        rows = [number(examples), 0 if validation is None else number(validation.examples)]
        numbers = agree("fit", self.mesh, lambda: _same_everywhere(settings, epochs, state, parts), rows)
        layouts = [row_layout(self.mesh, column) for column in numbers.T]
        pairs = list(zip(parts, layouts, strict=False))
        placed = [sharding.shard_rows(self.mesh, part, layout.room) for part, layout in pairs]
        if sharding.spans_processes(self.mesh):
            parts = [_with_rows(part, sum(layout.rows)) for part, layout in pairs]
        if validation is None:
            return Data(placed[0], None, (parts[0], None), layouts[0])
        validation = Validation(placed[1], rows_that_count(layouts[1]))
        return Data(placed[0], validation, (parts[0], Validation(parts[1])), layouts[0])

    def replicate(self, training: Training) -> Training:
        """Training on every device; refuses processes that have read different checkpoints."""

        def described() -> dict[str, str]:
            return {"the checkpoint": f"epoch {training.state.epoch}, {checksum_text(training)}"}

        agree("fit", self.mesh, described)
        return sharding.copy_to(training, self.everywhere)

    def gather(self, tree: Any) -> Any:
        """What lies on the mesh, as arrays of this process alone."""
        return sharding.gather(self.mesh, tree)

    def source(self, examples: Examples, layout: RowLayout | None) -> BatchSource:
        """Batches put together from what each device holds."""
        assert layout is not None
        return BatchSource(lambda index: take_rows(layout, examples, index), sum(layout.rows))

    def batch(self, data: Data, index: Any) -> Examples:
        """The examples with those indices, of all devices, as arrays of this process alone."""
        assert data.layout is not None
        with self.active():
            rows = jax.jit(functools.partial(take_rows, data.layout))(data.examples, np.asarray(index))
        return self.gather(rows)

    def active(self) -> AbstractContextManager[Any]:
        """Within, jax computes on this mesh, whichever one the user has set."""
        return sharding.active(self.mesh)

    def in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process of the mesh; waits for all."""
        if not sharding.spans_processes(self.mesh):
            return flag
        return bool(numbers_by_device(self.mesh, [flag]).any())

    def compile_models(self, caller: str, train: Model, in_axes: tuple[int | None, ...]) -> Model:
        """Each device trains its part of the models, and none has to do with another.

        Where the devices do not divide the models, some train the last one too, which is not slower: the others would
        be waited for. What comes back is a process's own, and every process gets all of it.
        """
        mesh = self.mesh
        part, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()
        specs = tuple(whole if axis is None else part for axis in in_axes)
        # Nothing is exchanged, so that jax need not keep account of what differs from device to device.
        program = jax.jit(
            jax.shard_map(
                jax.vmap(train, in_axes), mesh=mesh, in_specs=specs, out_specs=part, check_vma=False
            )
        )

        def on_devices(*args: Any) -> Any:
            agree(caller, mesh, lambda: {"shapes": shapes_text(args), "keys and data": checksum_text(args)})
            models = len(jax.tree.leaves(args[in_axes.index(0)])[0])
            rows = np.minimum(np.arange(-(-models // mesh.size) * mesh.size), models - 1)
            placed = [
                sharding.copy_to(arg, self.everywhere)
                if axis is None
                else sharding.copy_to(take(arg, rows), sharding.sharded(mesh))
                for arg, axis in zip(args, in_axes, strict=True)
            ]
            with self.active():
                found = program(*placed)
            return jax.tree.map(lambda leaf: leaf[:models], self.gather(found))

        return on_devices

    def compile_grid(self, caller: str, train: Model) -> Model:
        """All pairs as models on one axis, which the devices share."""
        program = self.compile_models(caller, train, (0, 0, None, None))

        def on_devices(points: Any, keys: Any, *data: Any) -> Any:
            point, key = jnp.divmod(jnp.arange(len(keys) * len(jax.tree.leaves(points)[0])), len(keys))
            found = program(take(points, point), keys[key], *data)
            return jax.tree.map(lambda leaf: leaf.reshape(-1, len(keys), *leaf.shape[1:]), found)

        return on_devices


Placement = OneDevice | OnMesh


def placement_on(caller: str, mesh: Any) -> Placement:
    """The placement on the mesh that the user gave, or on one device for None."""
    return OneDevice() if mesh is None else OnMesh(sharding.checked_mesh(caller, mesh))


@functools.lru_cache(maxsize=16)
def compiled_epoch(
    settings: Settings, placement: Placement, layout: RowLayout | None = None
) -> Callable[..., tuple[Training, History]]:
    """An epoch of `make_epoch`, compiled: found again by the next fit with the same settings."""
    epoch = make_epoch(settings)

    def on_examples(training: Training, examples: Any, validation: Any) -> tuple[Training, History]:
        return epoch(training, placement.source(examples, layout), validation)

    return jax.jit(on_examples, donate_argnums=0, out_shardings=placement.everywhere)


def _check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Refuses a batch that the devices do not divide."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        near = f"{below} or {below + mesh.size}" if below else f"{mesh.size}"
        raise ValueError(
            f"fit: batch_size must be a multiple of the {mesh.size} devices of the mesh, got {batch_size}; take {near}, "
            "or a mesh of fewer devices."
        )


def _check_rows_are_own(parts: list[Examples]) -> None:
    """Refuses arrays that lie on several processes."""
    for leaf in jax.tree.leaves(parts):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(
                "fit: examples must be rows of this process alone, got an array that lies on several; give each "
                "process its own rows, as jax or NumPy arrays."
            )


def _with_rows(tree: Any, rows: int) -> Any:
    """The arrays' shapes and dtypes, with so many rows."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), tree)


def _same_everywhere(settings: Settings, epochs: int, state: State, parts: list[Examples]) -> dict[str, str]:
    """What must be the same in every process, by name."""
    chosen = settings._asdict()
    options = ("batch_size", "remainder", "replace", "gradient", "clip")
    return {
        "the examples' shapes": shapes_text(parts[0], 1),
        "the validation's shapes": shapes_text(parts[1:], 1) or "no validation",
        "epochs": str(epochs),
        **{name: str(chosen[name]) for name in options},
        "metrics": ", ".join(name for name, _ in settings.metrics),
        "the network's params": shapes_text(state.params),
        "the updater's state": shapes_text(state.memory),
        "the key, or the state": checksum_text(state),
    }
