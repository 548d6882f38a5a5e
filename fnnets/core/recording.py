"""What happens inside a network, for those who ask: what passes every child, and in whose hands an error arose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.layer import Layer

Alter = Callable[[str, Layer, Any, Any], Any]

_path: ContextVar[tuple[str, ...]] = ContextVar("path", default=())
_alter: ContextVar[Alter | None] = ContextVar("alter", default=None)
_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)

# What can be recorded: the children's outputs; their gradients on the way back; the gates of recurrent layers; the
# zeros that `probe` offers to add; and all values that the children and the steps of recurrences come by, both ways.
Kind = Literal["outputs", "gradients", "gates", "zeros", "values"]


class _Watch(NamedTuple):
    kind: Kind | None
    kept: dict[str, Any]
    zeros: dict[str, Any]  # by path, to be added to what `probe` stands at


@contextmanager
def child(parent: Any, index: int, layer: Layer) -> Iterator[None]:
    """Marks the call of a child: names it in errors, and in what is recorded within."""
    token = _path.set((*_path.get(), f"{index}.{layer.info.name}"))
    try:
        yield
    except Exception as error:
        error.add_note(f"in {parent}, layer {index}: {layer.info}")
        raise
    finally:
        _path.reset(token)


def here() -> str:
    """The path of the child whose call this is; "" outside of all."""
    return "/".join(_path.get())


def seen(layer: Layer, x: Any, y: Any, mask: Any) -> Any:
    """A child's output on its way on: recorded where that is asked for, replaced where `altering` says so."""
    if (alter := _alter.get()) is not None:
        y = alter(here(), layer, x, y)
    if records("outputs"):
        keep({here(): y})
    if records("values"):
        note("y", y)
        note("mask", mask)
    return passed(y)


def passed(y: Any) -> Any:
    """An output, with the zeros by which a comparison asks for its gradient."""
    if not isinstance(y, jax.Array) or not jnp.issubdtype(y.dtype, jnp.floating):
        return y
    zeros = probe("dy", lambda: jnp.zeros_like(y))
    return y if zeros is None else y + zeros


def probe(name: str, make: Callable[[], Any]) -> Any:
    """Zeros to be added to a value, so that their gradient is its own; None where nobody asks for it.

    `make` gives the zeros in their shapes, for whoever is to hand them in by `probing`.
    """
    watch = _watch.get()
    if watch is None:
        return None
    if watch.kind == "zeros":
        note(name, make())
    return watch.zeros.get(here(), {}).get(name)


@contextmanager
def altering(alter: Alter) -> Iterator[None]:
    """Within, every child's output y is `alter(path, layer, x, y)`: how a comparison tries out mistakes."""
    token = _alter.set(alter)
    try:
        yield
    finally:
        _alter.reset(token)


def records(*kinds: Kind) -> bool:
    """Whether values of one of these kinds are being recorded."""
    watch = _watch.get()
    return watch is not None and watch.kind in kinds


def keep(values: dict[str, Any]) -> None:
    """Keeps values that a `recording` inside a scan handed out."""
    if (watch := _watch.get()) is not None:
        watch.kept.update(values)


def note(name: str, value: Any) -> None:
    """Keeps one of several values at the path of this call."""
    if (watch := _watch.get()) is not None:
        watch.kept.setdefault(here(), {})[name] = value


@contextmanager
def recording(on: bool | None = None, kind: Kind = "outputs") -> Iterator[dict[str, Any]]:
    """Collects what is recorded within; `on=None` collects what, and only where, an outer recording does.

    Inside a scan the values are those of its body: hand the dict out as scanned outputs, then `keep` it.
    """
    outer = _watch.get()
    watch = _Watch(kind, {}, {}) if on else outer and outer._replace(kept={})
    with _watching(None if on is False else watch) as kept:
        yield kept


@contextmanager
def copy(i: Any) -> Iterator[dict[str, Any]]:
    """As `recording()`, inside a scan over copies of a child: of the zeros of `probing` it takes copy i's."""
    watch, inside = _watch.get(), here()
    if watch is not None:
        own = {
            path: zeros for path, zeros in watch.zeros.items() if path.startswith(inside) and path != inside
        }
        watch = watch._replace(kept={}, zeros=jax.tree.map(lambda leaf: leaf[i], own))
    with _watching(watch) as kept:
        yield kept


@contextmanager
def probing(zeros: dict[str, Any]) -> Iterator[None]:
    """Within, the zeros are added to what `probe` stands at: as a recording of the kind "zeros" found them."""
    with _watching(_Watch(None, {}, zeros)):
        yield


@contextmanager
def _watching(watch: _Watch | None) -> Iterator[dict[str, Any]]:
    token = _watch.set(watch)
    try:
        yield {} if watch is None else watch.kept
    finally:
        _watch.reset(token)


@contextmanager
def from_the_top() -> Iterator[None]:
    """Within, paths begin with the network that is called next."""
    token = _path.set(())
    try:
        yield
    finally:
        _path.reset(token)
