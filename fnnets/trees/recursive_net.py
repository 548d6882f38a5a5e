"""The plain recursive network: one dense layer on the children's states, at every node of a tree."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Layer, describe
from fnnets.core.parameters import Initializer
from fnnets.layers.activations.squashing import tanh
from fnnets.trees.recursion import of_cell, one_below_the_other, side_by_side
from fnnets.trees.tree_cell import Arrays, Children, TreeCell


class Recursive(NamedTuple):
    """The parameters of `recursive`."""

    w: jax.Array  # (D, H)
    u: jax.Array  # (K·H, H), the rows of the first child, of the second, …
    b: jax.Array | None  # (H,); None without bias


def recursive(
    features: int,
    activation: Layer = tanh(),
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """A recursive (tree) network: each node's state is a dense layer on the states of its children.

    Formula: for node j with children l and r, in topological order (children before parents),

        h_j = f([h_l, h_r]·u + x_j·w + b),  y_j = h_j

    and h = 0 for a missing child. A leaf has no children: h_j = f(x_j·w + b), the projection of its input. An inner
    node usually has x_j = 0: h_j = f([h_l, h_r]·u + b); if it has a label, x_j is the label's vector. With K places
    for children, [h_1, …, h_K] has K blocks, and u has K blocks of rows.

    Derivation: given the gradient dh of h_j (from dy_j and from the parent),

        dz = f'(z)⊙dh                 f's own backward
        [dh_l, dh_r] = dz·uᵀ          added to these children's gradients

    from the last node to the first. After the loop, over all nodes: dw = Σ_j x_jᵀdz_j,
    du = Σ_j [h_l, h_r]ᵀdz_j, db = Σ_j dz_j, dx_j = dz_j·wᵀ. The children are integers and have no gradient: dx is
    a pair (dfeatures, None).

    Args:
      features: H, the number of units.
      activation: f, a layer without params, such as `fn.tanh()`.
      use_bias: whether to add b.
      kernel_init: `(key, shape, dtype) -> w`.
      recurrent_init: `(key, (K·H, H), dtype) -> u`.

    Returns:
      A `Layer`; its params are `Recursive(w, u, b)`.
      x is a pair: features (…, N, D), floats, and children (…, N, K), integers. `children[…, j, k]` is the number of
      node j's k-th child: smaller than j, or negative if there is none. `fn.pad_trees` builds x from nested tuples.
      If a child does not come before its parent, the parent and every node above it become NaN.
      The mask is a pair of bools: which nodes exist (…, N), and which children (…, N, K). The state of padding is 0.
      y is (…, N, features) in the dtype of the params. In `serial` the masks end here. `fn.pad_trees` pads in front,
      so the root is the last node, and `fn.last()` returns its state.

    Raises:
      TypeError: x is not a pair of floats and integers; the mask is not a pair of bools; params are another layer's.
      ValueError: shapes do not fit; activation has params.

    Example:
      >>> import fnnets as fn, jax
      >>> trees = fn.pad_trees([((1, 2), 3), (2, 4)])
      >>> net = fn.serial(fn.nodes(fn.embedding(5, 6)), fn.recursive(8), fn.last(), fn.dense(2))
      >>> params = net.init(jax.random.key(0), trees.x)
      >>> net.apply(params, trees.x, mask=trees.mask).shape
      (2, 2)

    References:
      Socher, Lin, Ng & Manning, Parsing natural scenes and natural language with recursive neural networks (ICML
      2011), eq. 1 (leaves) and section 4.1 (inner nodes); Goller & Küchler, Learning task-dependent distributed
      representations by backpropagation through structure (1996).

    Differences: in these papers leaves have their own bias, and nodes have two children. Here all nodes share b, and
    the last axis of children sets the number of places.
    """
    checks.positive("recursive", features=features)
    info = describe(recursive, features=features, activation=activation, use_bias=use_bias)
    checks.activation(info, "activation", activation, Layer)

    def init(key: Any, x: Any, places: int) -> Recursive:
        dtype = jnp.result_type(float)
        w_key, u_key = jax.random.split(key)
        w = kernel_init(w_key, (x.shape[-1], features), dtype)
        u = recurrent_init(u_key, (places * features, features), dtype)
        return Recursive(w, u, jnp.zeros(features, dtype) if use_bias else None)

    def project(params: Recursive, x: jax.Array) -> jax.Array:
        checks.node(info, params, Recursive)
        checks.width(info, x, params.w.shape[0], "features")
        z = x.astype(params.w.dtype) @ params.w
        return z if params.b is None else z + params.b

    def below(params: Recursive, h: jax.Array) -> jax.Array:
        """The part of z that comes from the children."""
        joined = side_by_side(h)
        checks.width(info, joined, params.u.shape[0], "the children's states, side by side,")
        return joined @ params.u

    def node(params: Recursive, z: jax.Array, children: Arrays) -> Arrays:
        return (activation.apply((), z + below(params, children[0])),)

    def forward(params: Recursive, z: jax.Array, children: Arrays) -> tuple[jax.Array, Arrays, Any]:
        h, _, saved = activation.forward((), z + below(params, children[0]))
        return h, (h,), saved

    def backward(
        params: Recursive, children: Arrays, saved: Any, dh: jax.Array, dmessage: Arrays
    ) -> tuple[jax.Array, Arrays]:
        _, dz, _ = activation.backward((), saved, dh + dmessage[0])
        return dz, (one_below_the_other(dz @ params.u.T, len(children[0])),)

    def collect(
        params: Recursive, x: jax.Array, h: jax.Array, children: Children, dz: jax.Array, dmessages: Arrays
    ) -> tuple[Recursive, jax.Array]:
        del dmessages
        db = None if params.b is None else sum_leading(dz)
        du = outer_sum(side_by_side(children(h)), dz)
        return Recursive(outer_sum(x.astype(dz.dtype), dz), du, db), dz @ params.w.T

    return of_cell(
        TreeCell(init, None, (features,), (features,), project, node, forward, backward, collect, info)
    )
