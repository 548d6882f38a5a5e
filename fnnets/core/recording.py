"""Recording inside a network: the values of every child, and the path of a child in errors.

The request is part of the context on which jax's caches depend, so a function traced without it is traced again.
The values leave jit, checkpoint, scan and vmap through `harvest`.
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

# What can be collected: the children's outputs; their gradients in the backward pass; the gates of recurrent layers;
# the values whose gradients a comparison needs; and all values of children and recurrent steps, forward and backward.
Kind = Literal["outputs", "gradients", "gates", "probes", "values"]

Collected = dict[str, dict[str, Any]]  # by path, by name


class _Request(NamedTuple):
    """What to record, and the place in the network."""

    kind: Kind | None
    path: tuple[str, ...] = ()
    alter: Alter | None = None


_request: Any = jax.make_user_context(None)  # a _Request, or None


def collect(
    kind: Kind, function: Callable[..., Any], *args: Any, added: Collected | None = None
) -> tuple[Any, Collected]:
    """`function(*args)`, and the values of a kind inside, by path and name, in the order of the calls.

    Paths are relative to the network that the function calls. `added` holds addends for collected values. A scan or a
    vmap around a value puts its axis in front. A value that stores the position of its own axes has a method
    `behind(front)`, which returns it with these shifted; `front` names "scan" or "vmap" for each, the outermost last.
    """
    flat = {(path, name): value for path, values in (added or {}).items() for name, value in values.items()}
    with _request(_Request(kind)):
        result, harvested = harvest(function, *args, added=flat)
    collected: Collected = {}
    for (path, name), tagged in harvested.items():
        behind = getattr(tagged.value, "behind", None)
        collected.setdefault(path, {})[name] = tagged.value if behind is None else behind(tagged.front)
    return result, collected


@contextmanager
def altering(alter: Alter) -> Iterator[None]:
    """Replaces every child's output y by `alter(path, layer, x, y)`; a comparison so tries out mistakes."""
    with _request(_Request(None, alter=alter)):
        yield


@contextmanager
def child(parent: Any, index: int, layer: Layer) -> Iterator[None]:
    """Marks the call of a child, for errors and for the paths of collected values."""
    request: _Request | None = _request.value
    try:
        if request is None:
            yield
        else:
            with _request(request._replace(path=(*request.path, f"{index}.{layer.info.name}"))):
                yield
    except Exception as error:
        error.add_note(f"in {parent}, layer {index}: {layer.info}")
        raise


def collects(*kinds: Kind) -> bool:
    """Whether values of one of these kinds are being collected."""
    request: _Request | None = _request.value
    return request is not None and request.kind in kinds


def note(name: str, value: Any) -> Any:
    """Returns the value, and collects it by its name at the path of this call."""
    request: _Request | None = _request.value
    return value if request is None or request.kind is None else tag(("/".join(request.path), name), value)


def observed(layer: Layer, x: Any, y: Any, mask: Any) -> Any:
    """Returns a child's output y: collected if requested, replaced inside `altering`."""
    request: _Request | None = _request.value
    if request is None:
        return y
    if request.alter is not None:
        y = request.alter("/".join(request.path), layer, x, y)
    if request.kind in ("outputs", "values"):
        y = note("y", y)
    if request.kind == "values":
        note("mask", mask)
    return probed_output(y)


def probed_output(y: Any) -> Any:
    """Returns an output, probed for its gradient if it is a float array."""
    is_float = isinstance(y, jax.Array) and jnp.issubdtype(y.dtype, jnp.floating)
    return probe("dy", y) if is_float else y


def probe(name: str, value: Any) -> Any:
    """Returns the value; a comparison adds zeros to it, and differentiates with respect to them."""
    return note(name, value) if collects("probes") else value
