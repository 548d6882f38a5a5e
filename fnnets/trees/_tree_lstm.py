"""The Tree-LSTM: a long short-term memory along the branches of a tree."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.layer import Layer, describe
from fnnets.core.parameters import Initializer
from fnnets.trees.binary_tree_lstm import BinaryTreeLSTM, binary
from fnnets.trees.child_sum_tree_lstm import ChildSumTreeLSTM, child_sum
from fnnets.trees.recursion import of_cell


def tree_lstm(
    features: int,
    kind: Literal["child_sum", "binary"] = "child_sum",
    *,
    forget_bias: float = 1.0,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """A Tree-LSTM: each node's state comes from its input and from the states of its children.

    Formula: for node j, in topological order (children before parents), with children k = 1, …, K,

        z_j = x_j·w + b                               in blocks i, f, g, o of H columns
        child_sum:  h̃_j = Σ_k h_k                     any number of children, in no order
                    i = σ(z_i + h̃_j·u_i), g = tanh(z_g + h̃_j·u_g), o = σ(z_o + h̃_j·u_o)
                    f_k = σ(z_f + h_k·u_f)            a forget gate for each child
        binary:     q = [h_l, h_r]·u                  in blocks i, f_left, f_right, g, o
                    i = σ(z_i + q_i), g = tanh(z_g + q_g), o = σ(z_o + q_o)
                    f_l = σ(z_f + q_left), f_r = σ(z_f + q_right)
        c_j = i⊙g + Σ_k f_k⊙c_k,  h_j = o⊙tanh(c_j),  y_j = h_j

    and h = c = 0 for a missing child. Every node has an input x_j. If only leaves have words, inner nodes have x_j = 0.

    Derivation: given the gradients dh and dc of h_j and c_j (from dy_j and from the parent), with t = tanh(c_j):

        dc ← dc + dh⊙o⊙(1−t²)
        dz_i = dc⊙g⊙i(1−i), dz_g = dc⊙i⊙(1−g²), dz_o = dh⊙t⊙o(1−o)
        df_k = dc⊙c_k, dz_fk = df_k⊙f_k(1−f_k), dc_k = dc⊙f_k
        child_sum:  dz_f = Σ_k dz_fk, dq_k = [dz_i, dz_fk, dz_g, dz_o]: node k's product q_k = h_k·u enters
                    its parent's gates, so dh_k = dq_k·uᵀ, which node k adds to its own dy
        binary:     dz_f = dz_left + dz_right, dq = [dz_i, dz_left, dz_right, dz_g, dz_o], [dh_l, dh_r] = dq·uᵀ

    from the last node to the first. After the loop, over all nodes: dw = Σ_j x_jᵀdz_j, db = Σ_j dz_j,
    dx_j = dz_j·wᵀ, du = Σ_j h_jᵀdq_j (child_sum) or Σ_j [h_l, h_r]ᵀdq_j (binary). The children are integers and have
    no gradient: dx is a pair (dfeatures, None).

    Args:
      features: H, the number of units.
      kind: "child_sum" for any number of unordered children, as in dependency trees; "binary" for two children, left
        and right.
      forget_bias: the initial value of b's forget block; `init` alone uses it.
      use_bias: whether to add b.
      kernel_init: `(key, shape, dtype) -> w`.
      recurrent_init: `(key, (H, 4H) or (2H, 5H), dtype) -> u`.

    Returns:
      A `Layer`; its params are `ChildSumTreeLSTM(w, u, b)` or `BinaryTreeLSTM(w, u, b)`.
      x is a pair: features (…, N, D), floats, and children (…, N, K), integers. `children[…, j, k]` is the number of
      node j's k-th child: smaller than j, or negative if there is none. `fn.pad_trees` builds x from nested tuples.
      If a child does not come before its parent, the parent and every node above it become NaN.
      The mask is a pair of bools: which nodes exist (…, N), and which children (…, N, K). The state of padding is 0.
      y is (…, N, features) in the dtype of the params. In `serial` the masks end here. `fn.pad_trees` pads in front,
      so the root is the last node, and `fn.last()` returns its state.

    Raises:
      TypeError: x is not a pair of floats and integers; the mask is not a pair of bools; params are another layer's.
      ValueError: shapes do not fit; kind is unknown; "binary" and K is not 2.

    Example:
      >>> import fnnets as fn, jax
      >>> trees = fn.pad_trees([((1, 2), 3), (2, 4)])
      >>> net = fn.serial(fn.nodes(fn.embedding(5, 6)), fn.tree_lstm(8), fn.last(), fn.dense(2))
      >>> params = net.init(jax.random.key(0), trees.x)
      >>> net.apply(params, trees.x, mask=trees.mask).shape
      (2, 2)

    References:
      Tai, Socher & Manning, Improved semantic representations from tree-structured long short-term memory networks
      (ACL 2015), eqs. 2–8 (child-sum) and 9–14 with N = 2 (binary); their u is g here.

    Differences: Tai's own code starts all biases alike; here the forget bias starts at 1, as in `fn.lstm`. With many
    children c then grows by Σ f_k at each level; forget_bias=0 starts each f_k near ½.
    """
    checks.positive("tree_lstm", features=features)
    checks.choice("tree_lstm", "kind", kind, ("child_sum", "binary"))
    info = describe(tree_lstm, features=features, kind=kind, forget_bias=forget_bias, use_bias=use_bias)
    make, params_of, rows, columns = {
        "child_sum": (child_sum, ChildSumTreeLSTM, features, 4 * features),
        "binary": (binary, BinaryTreeLSTM, 2 * features, 5 * features),
    }[kind]

    def init(key: Any, x: Any, places: int) -> Any:
        del places
        dtype = jnp.result_type(float)
        w_key, u_key = jax.random.split(key)
        w = kernel_init(w_key, (x.shape[-1], 4 * features), dtype)
        u = recurrent_init(u_key, (rows, columns), dtype)
        b = jnp.repeat(jnp.array([0, forget_bias, 0, 0], dtype), features)
        return params_of(w, u, b if use_bias else None)

    return of_cell(make(features, info, init))
