"""A network as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from fnnets.core.layer import Layer
from fnnets.core.parameters import count_params
from fnnets.core.text_table import format_table
from fnnets.insight._intermediates import output_shapes


@dataclass(frozen=True)
class LayerSummary:
    """One line of a summary.

    Attributes:
      path: the layer's place in the network, "" for the network itself.
      layer: the layer as code.
      shape: the shape of its output, or of the first of several.
      params: the number of its trained values.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    params: int


@dataclass(frozen=True)
class Summary:
    """The result of `summary`: rows, and a table as its text."""

    rows: tuple[LayerSummary, ...]
    params: int

    def __str__(self) -> str:
        head = ("layer", "output shape", "parameters")
        inside = any(row.path == "" for row in self.rows)  # the first row is the network itself
        body = [
            (
                "  " * (row.path.count("/") + (inside and row.path != "")) + row.layer,
                str(row.shape),
                f"{row.params:,}" if row.params else "",
            )
            for row in self.rows
        ]
        lines = format_table([head, *body])
        return "\n".join([*lines, lines[1], f"{self.params:,} parameters"])

    def __repr__(self) -> str:
        return str(self)


def summary(layer: Layer, x: Any) -> Summary:
    """A table of a network's layers, their output shapes and numbers of parameters, without computing anything.

    Args:
      layer: any layer or network.
      x: an input, or its `jax.ShapeDtypeStruct`.

    Returns:
      A `Summary`, which prints as a table; `.rows` and `.params` hold its content. Inside a `stack` the first axis of
      a shape is the copy, and parameters count all copies.

    Raises:
      TypeError, ValueError: the layers refuse their input.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> print(fn.summary(fn.serial(fn.dense(8), fn.tanh(), fn.dense(1)), jnp.ones((4, 2))))
      layer     output shape  parameters
      --------  ------------  ----------
      dense(8)  (4, 8)        24
      tanh()    (4, 8)
      dense(1)  (4, 1)        9
      --------  ------------  ----------
      33 parameters
    """
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    shapes = output_shapes(layer, params, x)
    # A sequence shows its layers alone; every other network or layer has a row of its own.
    shapes[""] = jax.eval_shape(layer.apply, params, x)
    rows = [] if layer.info.sequence else [_row(layer, params, "", shapes)]
    rows += _rows(layer, params, shapes, "")
    return Summary(tuple(rows), count_params(params))


def _rows(layer: Layer, params: Any, shapes: dict[str, Any], prefix: str) -> list[LayerSummary]:
    """A row for each child, followed by the rows of its own children."""
    children = layer.info.children
    if not children:
        return []
    owned = params if isinstance(params, tuple) and not layer.info.unwrapped else (params,)
    if len(owned) != len(children):
        raise TypeError(
            f"{layer.info}: params must be a tuple of {len(children)}, one for each child, got {type(params).__name__} of "
            f"{len(owned)}; if they are the params of the only child, use Info(…, unwrapped=True)."
        )
    rows = []
    for i, (child, own) in enumerate(zip(children, owned, strict=True)):
        path = f"{prefix}{i}.{child.info.name}"
        rows.append(_row(child, own, path, shapes))
        rows += _rows(child, own, shapes, path + "/")
    return rows


def _row(layer: Layer, params: Any, path: str, shapes: dict[str, Any]) -> LayerSummary:
    text = layer.info.name if layer.info.children else repr(layer)
    return LayerSummary(path, text, jax.tree.leaves(shapes[path])[0].shape, count_params(params))
