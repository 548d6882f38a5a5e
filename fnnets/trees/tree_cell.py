"""The contract of a tree cell: the equations of one node, and the gradient of one node derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnnets.core.layer import Info, Params, Saved

Arrays = tuple[jax.Array, ...]
Children = Callable[[jax.Array], jax.Array]


class TreeCell(NamedTuple):
    """One node of a tree network; `recursion.of_cell` makes a `Layer` of it.

    The children's arrays come as (K, B, ·): K places for children, each 0 where there is none, B trees. What
    leads over all nodes at once has their number N first: (N, B, ·).

    Attributes:
      init: `(key, features, places) -> params`; features (…, N, D) and the number of places K.
      places: K where only that will do; None for any.
      state: the widths of a node's state, h first.
      message: the widths of what `forward` hands from a node to its parent.
      project: `(params, x) -> z`, (N, B, n): the part of a node that does not see its children, for all at once.
      node: `(params, z, children) -> state`: the textbook equations of one node, on its children's states.
      forward: `(params, z, children) -> (h, message, saved)`: the same, on its children's messages.
      backward: `(params, children, saved, dh, dmessage) -> (dz, dchildren)`: one node back; dh is dy at this
        node, dmessage what its parent sent back.
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
