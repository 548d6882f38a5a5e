"""The contract of a tree cell: the equations of one node, and the gradient of one node derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnnets.core.layer import Info, Params, Saved

Arrays = tuple[jax.Array, ...]
Children = Callable[[jax.Array], jax.Array]


class TreeCell(NamedTuple):
    """One node of a tree network; `recursion.of_cell` turns it into a `Layer`.

    The children's arrays are (K, B, ·): K places for children (0 for a missing child), B trees. Arrays over all
    nodes are (N, B, ·), with N nodes.

    Attributes:
      init: `(key, features, places) -> params`; features (…, N, D) and the number of places K.
      places: the K that the cell requires; None for any.
      state: the widths of a node's state, h first.
      message: the widths of the arrays that `forward` hands from a node to its parent.
      project: `(params, x) -> z`, (N, B, n): the part that does not depend on the children, for all nodes at once.
      node: `(params, z, children) -> state`: the textbook equations of one node, from its children's states.
      forward: `(params, z, children) -> (h, message, saved)`: the same, from its children's messages.
      backward: `(params, children, saved, dh, dmessage) -> (dz, dchildren)`: the backward of one node; dh is dy at
        this node, dmessage the gradient of its message.
      collect: `(params, x, h, children, dz, dmessages) -> (dparams, dx)`: all nodes at once; `children(h)` gives
        the children's rows of an array (N, B, ·), as (N, K, B, ·).
      info: name and settings.
    """

    init: Callable[[Any, Any, int], Params]
    places: int | None
    state: tuple[int, ...]
    message: tuple[int, ...]
    project: Callable[[Params, jax.Array], jax.Array]
    node: Callable[[Params, jax.Array, Arrays], Arrays]
    forward: Callable[[Params, jax.Array, Arrays], tuple[jax.Array, Arrays, Saved]]
    backward: Callable[[Params, Arrays, Saved, jax.Array, Arrays], tuple[jax.Array, Arrays]]
    collect: Callable[..., tuple[Params, jax.Array]]
    info: Info
