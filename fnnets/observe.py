"""What happens inside a network, for those who ask: every child's output, and in whose hands an error arose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

from fnnets.contract import Layer
from fnnets.differentiate import plain_equations

Alter = Callable[[str, Layer, Any, Any], Any]

_path: ContextVar[tuple[str, ...]] = ContextVar("path", default=())
_alter: ContextVar[Alter | None] = ContextVar("alter", default=None)
_record: ContextVar[dict[str, Any] | None] = ContextVar("record", default=None)


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


def seen(layer: Layer, x: Any, y: Any) -> Any:
    """A child's output on its way on: recorded where a recording is on, replaced where `altering` says so."""
    path = "/".join(_path.get())
    if (alter := _alter.get()) is not None:
        y = alter(path, layer, x, y)
    if (kept := _record.get()) is not None:
        kept[path] = y
    return y


@contextmanager
def altering(alter: Alter) -> Iterator[None]:
    """Within, every child's output y is `alter(path, layer, x, y)`: how a comparison tries out mistakes."""
    token = _alter.set(alter)
    try:
        yield
    finally:
        _alter.reset(token)


def keep(values: dict[str, Any]) -> None:
    """Keeps values that a `recording` inside a scan handed out."""
    if (kept := _record.get()) is not None:
        kept.update(values)


@contextmanager
def recording(on: bool | None = None) -> Iterator[dict[str, Any]]:
    """Collects what is recorded within; `on=None` collects only where an outer recording is on.

    Inside a scan the values are those of its body: hand the dict out as scanned outputs, then `keep` it.
    """
    if on is None:
        on = _record.get() is not None
    kept: dict[str, Any] = {}
    token = _record.set(kept if on else None)
    try:
        yield kept
    finally:
        _record.reset(token)


def intermediates(
    layer: Layer, params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None
) -> dict[str, Any]:
    """What every child of a network gave, in the order of the calls.

    Formula: for serial(f₀, f₁, …), h_i = f_i(h_{i−1}); the result maps "i.name" to h_i.

    Args:
      layer: a network; a layer without children gives its own output under its name.
      params: its parameters.
      x: its input.
      key, train, mask: as in `layer.apply`.

    Returns:
      A dict from paths such as "2.residual/0.dense" to arrays; a `stack` gives those of its copies
      with the depth as first axis. Pure: it works under jit and vmap, and under `jax.eval_shape`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.serial(fn.dense(3), fn.tanh())
      >>> x = jnp.ones((4, 2))
      >>> {path: h.shape for path, h in fn.intermediates(net, net.init(jax.random.key(0), x), x).items()}
      {'0.dense': (4, 3), '1.tanh': (4, 3)}
    """
    token = _path.set(())
    try:
        with recording(True) as kept, plain_equations():
            y = layer.apply(params, x, key=key, train=train, mask=mask)
    finally:
        _path.reset(token)
    return kept if layer.info.children else {layer.info.name: y}


def output_shapes(layer: Layer, params: Any, x: Any) -> dict[str, Any]:
    """The shapes of `intermediates`, with nothing computed."""
    return jax.eval_shape(lambda params, x: intermediates(layer, params, x), params, x)
