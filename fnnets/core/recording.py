"""What happens inside a network, for those who ask: values of every child, and the path in errors.

What is asked for is part of the context that jax's caches look at: a function that was traced without it is
traced anew. The values themselves leave jit, checkpoint, scan and vmap by `harvest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core.harvest import harvest, tag
from fnnets.core.layer import Layer

Alter = Callable[[str, Layer, Any, Any], Any]

# What can be collected: the children's outputs; their gradients on the way back; the gates of recurrent layers; what
# a comparison asks the gradients of; and all values that the children and the steps of recurrences come by, both ways.
Kind = Literal["outputs", "gradients", "gates", "probes", "values"]

Collected = dict[str, dict[str, Any]]  # by path, by name


class _Asked(NamedTuple):
    """What is asked for, and where in the network this is."""

    kind: Kind | None
    path: tuple[str, ...] = ()
    alter: Alter | None = None


_asked: Any = jax.make_user_context(None)  # an _Asked, or None


def collect(
    kind: Kind, function: Callable[..., Any], *args: Any, added: Collected | None = None
) -> tuple[Any, Collected]:
    """`function(*args)`, and the values of a kind that arise inside, by path and name, in the order of the calls.

    Paths begin with the network that the function calls. `added` is added to collected values on their way. A scan or a
    vmap around a value puts its axis in front; a value that knows where its own axes are has a method `behind(front)`,
    which gives it behind these ("scan" or "vmap" each, the one in the very front last).
    """
    flat = {(path, name): value for path, values in (added or {}).items() for name, value in values.items()}
    with _asked(_Asked(kind)):
        result, kept = harvest(function, *args, added=flat)
    found: Collected = {}
    for (path, name), one in kept.items():
        behind = getattr(one.value, "behind", None)
        found.setdefault(path, {})[name] = one.value if behind is None else behind(one.front)
    return result, found


@contextmanager
def altering(alter: Alter) -> Iterator[None]:
    """Within, every child's output y is `alter(path, layer, x, y)`: how a comparison tries out mistakes."""
    with _asked(_Asked(None, alter=alter)):
        yield


@contextmanager
def child(parent: Any, index: int, layer: Layer) -> Iterator[None]:
    """Marks the call of a child: names it in errors, and in what is collected within."""
    asked: _Asked | None = _asked.value
    try:
        if asked is None:
            yield
        else:
            with _asked(asked._replace(path=(*asked.path, f"{index}.{layer.info.name}"))):
                yield
    except Exception as error:
        error.add_note(f"in {parent}, layer {index}: {layer.info}")
        raise


def collects(*kinds: Kind) -> bool:
    """Whether values of one of these kinds are being collected."""
    asked: _Asked | None = _asked.value
    return asked is not None and asked.kind in kinds


def note(name: str, value: Any) -> Any:
    """The value, which is collected by its name at the path of this call."""
    asked: _Asked | None = _asked.value
    return value if asked is None or asked.kind is None else tag(("/".join(asked.path), name), value)


def seen(layer: Layer, x: Any, y: Any, mask: Any) -> Any:
    """A child's output on its way on: collected where that is asked for, replaced where `altering` says so."""
    asked: _Asked | None = _asked.value
    if asked is None:
        return y
    if asked.alter is not None:
        y = asked.alter("/".join(asked.path), layer, x, y)
    if asked.kind in ("outputs", "values"):
        y = note("y", y)
    if asked.kind == "values":
        note("mask", mask)
    return passed(y)


def passed(y: Any) -> Any:
    """An output on its way on, whose gradient a comparison asks for."""
    is_float = isinstance(y, jax.Array) and jnp.issubdtype(y.dtype, jnp.floating)
    return probe("dy", y) if is_float else y


def probe(name: str, value: Any) -> Any:
    """The value, whose gradient a comparison asks for by the zeros that it adds."""
    return note(name, value) if collects("probes") else value
