"""The root of a tree, for what is said of the tree as a whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets import checks
from fnnets.contract import Layer, Static, describe, layer, no_params


class RootSaved(NamedTuple):
    """What `root` keeps for its backward."""

    chosen: jax.Array  # (…, N), True at the root
    dtype: Static  # of x


def root() -> Layer:
    """The root's state, of the states of all nodes.

    Formula: y = x_r, where r is the last node; with a mask the last one that is there.

    Derivation: dx_r = dy, and dx_j = 0 at every other node j.

    Returns:
      A `Layer` without params, from (…, N, H) to (…, H). In `serial` the mask ends at the tree layer before, a pair
      merged into one, and the root is the last node: `fn.pad_trees` pads in front. Alone it takes a mask (…, N);
      where all of it is False, y = 0.

    Raises:
      ValueError: x has fewer than two axes; the mask has another shape.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.root().apply((), jnp.ones((4, 7, 8))).shape
      (4, 8)
    """
    info = describe(root)

    def choose(x: jax.Array, mask: Any) -> jax.Array:
        checks.rank(info, x, 2)
        n = x.shape[-2]
        if mask is None:
            return jnp.broadcast_to(jnp.arange(n) == n - 1, x.shape[:-1])
        mask = checks.bools(info, mask)
        checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each node.")
        later = jnp.flip(jnp.cumsum(jnp.flip(mask, -1), -1), -1)
        return mask & (later == 1)

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        del params
        x = checks.floats(info, x)
        if mask is None:
            checks.rank(info, x, 2)
            return x[..., -1, :]
        return jnp.where(choose(x, mask)[..., None], x, jnp.zeros((), x.dtype)).sum(-2)

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, RootSaved]:
        y = apply(params, x, mask=mask)
        return y, RootSaved(choose(x, mask), Static(x.dtype))

    def backward(params: Any, saved: RootSaved, dy: jax.Array) -> tuple[Any, jax.Array]:
        del params
        dx = jnp.where(saved.chosen[..., None], dy[..., None, :], jnp.zeros((), dy.dtype))
        return (), dx.astype(saved.dtype.value)

    return layer(no_params, apply, forward, backward, name=info)
