"""The first value that is not finite: three integers inside jit, decoded outside of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core.arrays import zero_where_masked
from fnnets.core.layer import Static

END = 2**30  # in an order: after everything else
SORTS = ("nan", "inf", "-inf")


class Along(NamedTuple):
    """A number in an order that is only known at run time: the index along this axis."""

    axis: int


Order = tuple[int | Along, ...]


class Where(NamedTuple):
    """What is known about a quantity before anything runs."""

    order: Order  # when it is computed; orders compare like tuples
    direction: str  # input, forward, loss or backward
    layer: str  # the path of the layer; "" for inputs and losses
    quantity: str
    shape: tuple[int, ...]
    copies: int = 0  # the number of leading axes for copies, one for each stack around the layer
    time: int | None = None  # the axis of the steps
    from_end: bool = False  # whether the layer reads x from its end


class Value(NamedTuple):
    """A quantity and its values."""

    where: Where
    values: jax.Array
    mask: jax.Array | None = None  # False where the values do not count; it may have fewer axes


class NonFinite(NamedTuple):
    """The result of `fn.locate_nan`: the first value that is not finite, if there is one.

    `bool(found)` is False if all values are finite, and `str(found)` is a sentence. code is an array, which leaves jit,
    vmap and scan like any other; table is static. The properties decode code, so they do not work inside jit. They are
    None if all values are finite.

    Attributes:
      code: (3,) int32: the number of the quantity, from 1 on, or 0 if all values are finite; the position of the value
        in it, in the order of computation; and 0, 1 or 2 for nan, inf or −inf.
      table: the quantities that the numbers stand for.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.serial(fn.dense(3), fn.tanh()), jnp.ones((4, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> bool(fn.locate_nan(net, params, x))
      False
      >>> found = fn.locate_nan(net, params, x.at[2, 1].set(jnp.inf))
      >>> found.direction, found.quantity, found.at, found.value
      ('input', 'x', (2, 1), 'inf')
    """

    code: jax.Array
    table: Static

    def __bool__(self) -> bool:
        return bool(self.code[0])

    def __repr__(self) -> str:
        return f"NonFinite(code={self.code!r}, table=…)"

    def __str__(self) -> str:
        where, at = self._where(), self.at
        if where is None or at is None:
            return "every value is finite"
        what = f"{where.quantity}[{', '.join(map(str, at))}]" if at else where.quantity
        if where.direction == "input":
            return f"{what} is {self.value} before anything was computed"
        of = f" of {where.layer}" if where.layer else ""
        copy = f", copy {', '.join(map(str, at[: where.copies]))}" if where.copies else ""
        step = "" if where.time is None else f", step {self.step}"
        step += " of x, which it reads from the end" if step and where.from_end else ""
        end = "," if copy or step else ""
        return f"{where.direction}: {what}{of}{copy}{step}{end} is {self.value}, the first that is not finite"

    @property
    def direction(self) -> str | None:
        """The part of the computation: "input", "forward", "loss" or "backward"."""
        where = self._where()
        return None if where is None else where.direction

    @property
    def layer(self) -> str | None:
        """The path of the layer, as in `fn.intermediates`; "" for inputs and losses."""
        where = self._where()
        return None if where is None else where.layer

    @property
    def quantity(self) -> str | None:
        """The name of the quantity, such as y, c, z_f, f, dz_f or dparams[0].w."""
        where = self._where()
        return None if where is None else where.quantity

    @property
    def at(self) -> tuple[int, ...] | None:
        """The index in the quantity, as `fn.intermediates` and `fn.trace_backward` return it."""
        where = self._where()
        if where is None:
            return None
        axes = _axes(where)
        place = np.unravel_index(int(self.code[1]), [where.shape[axis] for axis in axes])
        index = dict(zip(axes, map(int, place), strict=True))
        if where.direction == "backward":
            index |= {axis: where.shape[axis] - 1 - index[axis] for axis in _first_axes(where)}
        return tuple(index[axis] for axis in range(len(axes)))

    @property
    def copies(self) -> tuple[int, ...] | None:
        """The copy in each stack around the layer, the outermost first; () outside of stacks."""
        where, at = self._where(), self.at
        return None if where is None or at is None else at[: where.copies]

    @property
    def step(self) -> int | None:
        """The time step of x, if the quantity belongs to the steps of a recurrence; else None."""
        where, at = self._where(), self.at
        if where is None or at is None or where.time is None:
            return None
        step = at[where.time]
        return where.shape[where.time] - 1 - step if where.from_end else step

    @property
    def value(self) -> str | None:
        """The value: "nan", "inf" or "-inf"."""
        return SORTS[int(self.code[2])] if self else None

    def _where(self) -> Where | None:
        number = int(self.code[0])
        return None if number == 0 else self.table.value[number - 1]


def first(values: Sequence[Value]) -> NonFinite:
    """The first value that is not finite, in the order of computation."""
    wheres = [value.where for value in values]
    places, firsts = map(jnp.stack, zip(*map(_first_place, values), strict=True))
    alive = ~jnp.isfinite(firsts)
    for column in _orders(wheres, places).T:
        at = jnp.where(alive, column, END + 1)
        alive &= at == at.min()
    number = jnp.argmax(alive)
    sort = jnp.where(jnp.isnan(firsts), 0, jnp.where(firsts > 0, 1, 2))
    code = jnp.stack([number + 1, places[number], sort[number]])
    return NonFinite(jnp.where(alive.any(), code, 0).astype(jnp.int32), Static(tuple(wheres)))


def _first_place(value: Value) -> tuple[jax.Array, jax.Array]:
    """The first value of a quantity that is not finite: its position, with the axes in `_axes` order, and the value."""
    where, values, mask = value
    flipped = _first_axes(where) if where.direction == "backward" else ()
    return _search(values, mask, flipped, _axes(where))


@partial(jax.jit, static_argnums=(2, 3))  # traced once for all quantities of a shape
def _search(values: jax.Array, mask: Any, flipped: Any, axes: Any) -> tuple[jax.Array, jax.Array]:
    if mask is not None:
        mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
        values = zero_where_masked(values, mask)
    flat = jax.lax.transpose(jax.lax.rev(values, flipped), axes).reshape(-1)
    place = jax.lax.argmax(~jnp.isfinite(flat), 0, jnp.int32)
    return place, jax.lax.dynamic_index_in_dim(flat, place, keepdims=False)


def _first_axes(where: Where) -> tuple[int, ...]:
    """The axes along which a quantity is computed step by step, the outermost first."""
    return tuple(part.axis for part in where.order if isinstance(part, Along))


def _axes(where: Where) -> tuple[int, ...]:
    """All axes, with those of `_first_axes` first."""
    lead = _first_axes(where)
    return lead + tuple(axis for axis in range(len(where.shape)) if axis not in lead)


def _orders(wheres: Sequence[Where], places: jax.Array) -> jax.Array:
    """The order of each quantity's first value that is not finite, a row for each."""
    table = np.zeros((len(wheres), max(len(where.order) for where in wheres)), np.int32)
    cells: list[tuple[int, int, int, int]] = []
    for row, where in enumerate(wheres):
        axes = _axes(where)
        for column, part in enumerate(where.order):
            if isinstance(part, Along):
                at = axes.index(part.axis)
                inner = math.prod(where.shape[axis] for axis in axes[at + 1 :])
                cells.append((row, column, inner, where.shape[part.axis]))
            else:
                table[row, column] = part
    if not cells:
        return jnp.asarray(table)
    rows, columns, inner, sizes = np.array(cells, np.int32).T
    return jnp.asarray(table).at[rows, columns].set(places[rows] // inner % sizes)
