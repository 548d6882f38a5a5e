"""Where a training runs: on one device, or on the devices of a mesh, which share every batch.

`OneDevice` and `OnMesh` have the same functions, so the code that trains need not know which one it has. On a mesh the
compiler partitions the program for one device. So a mean is over the whole batch, and dropout draws the same.
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
    """The examples and the validation, if any, as an epoch takes them."""

    examples: Examples
    validation: Validation | None
    # The data before they were placed, which a checkpoint compares; with several processes, only their shapes.
    unplaced: tuple[Examples, Validation | None]
    layout: RowLayout | None = None  # None: one device holds all rows


@dataclass(frozen=True)
class OneDevice:
    """All arrays stay where jax puts them."""

    @property
    def leads(self) -> bool:
        """Whether this process shows progress for all."""
        return True

    @property
    def everywhere(self) -> NamedSharding | None:
        """The sharding of an epoch's results; None lets jax choose."""
        return None

    def as_array(self, leaf: Any) -> Any:
        """The user's data as an array that can be placed."""
        return jnp.asarray(leaf)

    def place(
        self,
        settings: Settings,
        epochs: int,
        state: State,
        examples: Examples,
        validation: Validation | None,
    ) -> Data:
        """Puts the data on the devices; refuses data that cannot be placed, and processes that differ."""
        del settings, epochs, state
        return Data(examples, validation, (examples, validation))

    def replicate(self, training: Training) -> Training:
        """Copies the training, as it starts or continues, to every device."""
        return training

    def gather(self, tree: Any) -> Any:
        """An epoch's results as arrays of this process alone."""
        return tree

    def source(self, examples: Examples, layout: RowLayout | None) -> BatchSource:
        """Where an epoch's batches come from."""
        del layout
        return BatchSource(lambda index: take(examples, index), number(examples))

    def batch(self, data: Data, index: Any) -> Examples:
        """The examples with these indices, as arrays of this process alone."""
        return take(data.examples, index)

    def active(self) -> AbstractContextManager[Any]:
        """Within, jax computes here."""
        return nullcontext()

    def in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process; waits for all."""
        return flag

    def compile_models(self, caller: str, train: Model, in_axes: tuple[int | None, ...]) -> Model:
        """Compiles `jax.vmap(train, in_axes)`, where `train` is the training of one model."""
        del caller
        return jax.jit(jax.vmap(train, in_axes))

    def compile_grid(self, caller: str, train: Model) -> Model:
        """Compiles `train(point, key, …)` for all pairs of points and keys; results have the axes (points, keys, …)."""
        del caller
        over_keys = jax.vmap(train, (None, 0, None, None))
        return jax.jit(jax.vmap(over_keys, (0, None, None, None)))


@dataclass(frozen=True)
class OnMesh:
    """Every device holds a part of the rows and all of the training; has the functions of `OneDevice`."""

    mesh: Mesh

    @property
    def leads(self) -> bool:
        """Whether this process holds the first device of the mesh; exactly one does."""
        return bool(self.mesh.devices.flat[0].process_index == jax.process_index())

    @property
    def everywhere(self) -> NamedSharding:
        """The sharding with everything on every device."""
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
        """Puts the rows of this process on its devices; the arrays also hold the rows of the other processes."""
        _check_batch_size(self.mesh, settings.batch_size)
        parts = [examples] if validation is None else [examples, validation.examples]
        _check_rows_are_own(parts)
        # Always two numbers: processes with and without a validation must compare tables of the same shape.
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
        """Copies the training to every device; refuses processes that read different checkpoints."""

        def described() -> dict[str, str]:
            return {"the checkpoint": f"epoch {training.state.epoch}, {checksum_text(training)}"}

        agree("fit", self.mesh, described)
        return sharding.copy_to(training, self.everywhere)

    def gather(self, tree: Any) -> Any:
        """Arrays on the mesh as arrays of this process alone."""
        return sharding.gather(self.mesh, tree)

    def source(self, examples: Examples, layout: RowLayout | None) -> BatchSource:
        """Batches gathered from the rows of each device."""
        assert layout is not None
        return BatchSource(lambda index: take_rows(layout, examples, index), sum(layout.rows))

    def batch(self, data: Data, index: Any) -> Examples:
        """The examples with these indices, from all devices, as arrays of this process alone."""
        assert data.layout is not None
        with self.active():
            rows = jax.jit(functools.partial(take_rows, data.layout))(data.examples, np.asarray(index))
        return self.gather(rows)

    def active(self) -> AbstractContextManager[Any]:
        """Within, jax computes on this mesh, even if the user has set another."""
        return sharding.active(self.mesh)

    def in_any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process of the mesh; waits for all."""
        if not sharding.spans_processes(self.mesh):
            return flag
        return bool(numbers_by_device(self.mesh, [flag]).any())

    def compile_models(self, caller: str, train: Model, in_axes: tuple[int | None, ...]) -> Model:
        """Each device trains its part of the models; every process gets all results, as arrays of its own.

        If the devices do not divide the models, some devices train the last model too. This costs no time: they would
        wait for the others otherwise.
        """
        mesh = self.mesh
        part, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()
        specs = tuple(whole if axis is None else part for axis in in_axes)
        # Devices exchange nothing, so jax need not track what varies between them (check_vma).
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
                results = program(*placed)
            return jax.tree.map(lambda leaf: leaf[:models], self.gather(results))

        return on_devices

    def compile_grid(self, caller: str, train: Model) -> Model:
        """Compiles all pairs as models on one axis, which the devices share."""
        program = self.compile_models(caller, train, (0, 0, None, None))

        def on_devices(points: Any, keys: Any, *data: Any) -> Any:
            point, key = jnp.divmod(jnp.arange(len(keys) * len(jax.tree.leaves(points)[0])), len(keys))
            results = program(take(points, point), keys[key], *data)
            return jax.tree.map(lambda leaf: leaf.reshape(-1, len(keys), *leaf.shape[1:]), results)

        return on_devices


Placement = OneDevice | OnMesh


def placement_on(caller: str, mesh: Any) -> Placement:
    """The placement on the user's mesh, or on one device if it is None."""
    return OneDevice() if mesh is None else OnMesh(sharding.checked_mesh(caller, mesh))


@functools.lru_cache(maxsize=16)
def compiled_epoch(
    settings: Settings, placement: Placement, layout: RowLayout | None = None
) -> Callable[..., tuple[Training, History]]:
    """An epoch of `make_epoch`, compiled; the next fit with the same settings reuses it."""
    epoch = make_epoch(settings)

    def on_examples(training: Training, examples: Any, validation: Any) -> tuple[Training, History]:
        return epoch(training, placement.source(examples, layout), validation)

    return jax.jit(on_examples, donate_argnums=0, out_shardings=placement.everywhere)


def _check_batch_size(mesh: Mesh, batch_size: int) -> None:
    """Refuses a batch size that the devices do not divide."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        near = f"{below} or {below + mesh.size}" if below else f"{mesh.size}"
        raise ValueError(
            f"fit: batch_size must be a multiple of the {mesh.size} devices of the mesh, got {batch_size}; use {near}, "
            "or a mesh of fewer devices."
        )


def _check_rows_are_own(parts: list[Examples]) -> None:
    """Refuses arrays that span several processes."""
    for leaf in jax.tree.leaves(parts):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(
                "fit: examples must be rows of this process alone, got an array that spans several processes; give each "
                "process its own rows, as jax or NumPy arrays."
            )


def _with_rows(tree: Any, rows: int) -> Any:
    """The arrays' shapes and dtypes, with `rows` rows."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), tree)


def _same_everywhere(settings: Settings, epochs: int, state: State, parts: list[Examples]) -> dict[str, str]:
    """Descriptions, by name, that must be the same in every process."""
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
