"""The binary Tree-LSTM: two children, left and right, each with weights of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Info
from fnnets.trees.recursion import one_below_the_other, side_by_side
from fnnets.trees.tree_cell import Arrays, Children, TreeCell


class BinaryTreeLSTM(NamedTuple):
    """The parameters of `tree_lstm(kind="binary")`: blocks i, f, g, o; u has two f blocks, left and right."""

    w: jax.Array  # (D, 4H)
    u: jax.Array  # (2H, 5H), the rows of the left child, then those of the right
    b: jax.Array | None  # (4H,); None without bias


BinaryTreeLSTM.blocks = dict.fromkeys("wb", ("i", "f", "g", "o")) | {  # type: ignore[attr-defined]
    "u": ("i", "f_left", "f_right", "g", "o")
}


class Gates(NamedTuple):
    """What a node keeps for its backward."""

    i: jax.Array  # (B, H), like all gates
    f_left: jax.Array
    f_right: jax.Array
    g: jax.Array
    o: jax.Array


def binary(features: int, info: Info, init: Any) -> TreeCell:
    """The cell, derived in `tree_lstm`."""

    def project(params: BinaryTreeLSTM, x: jax.Array) -> jax.Array:
        checks.node(info, params, BinaryTreeLSTM)
        checks.width(info, x, params.w.shape[0], "features")
        z = x.astype(params.w.dtype) @ params.w
        return z if params.b is None else z + params.b

    def node(params: BinaryTreeLSTM, z: jax.Array, children: Arrays) -> Arrays:
        (h_l, h_r), (c_l, c_r) = children
        z_i, z_f, z_g, z_o = jnp.split(z, 4, -1)
        q_i, q_l, q_r, q_g, q_o = jnp.split(jnp.concatenate([h_l, h_r], -1) @ params.u, 5, -1)
        i, f_l, f_r, o = map(jax.nn.sigmoid, (z_i + q_i, z_f + q_l, z_f + q_r, z_o + q_o))
        c = i * jnp.tanh(z_g + q_g) + f_l * c_l + f_r * c_r
        return o * jnp.tanh(c), c

    def forward(params: BinaryTreeLSTM, z: jax.Array, children: Arrays) -> tuple[jax.Array, Arrays, Gates]:
        h, c = children
        z_i, z_f, z_g, z_o = jnp.split(z, 4, -1)
        z = jnp.concatenate([z_i, z_f, z_f, z_g, z_o], -1) + side_by_side(h) @ params.u
        z_i, z_l, z_r, z_g, z_o = jnp.split(z, 5, -1)
        i, f_l, f_r, o = map(jax.nn.sigmoid, (z_i, z_l, z_r, z_o))
        g = jnp.tanh(z_g)
        c = i * g + f_l * c[0] + f_r * c[1]
        h = o * jnp.tanh(c)
        return h, (h, c), Gates(i, f_l, f_r, g, o)

    def backward(
        params: BinaryTreeLSTM, children: Arrays, gates: Gates, dh: jax.Array, dmessage: Arrays
    ) -> tuple[jax.Array, Arrays]:
        c_l, c_r = children[1]
        i, f_l, f_r, g, o = gates
        dh, dc = dh + dmessage[0], dmessage[1]
        t = jnp.tanh(i * g + f_l * c_l + f_r * c_r)
        dc = dc + dh * o * (1 - t * t)
        dz = jnp.concatenate([
            dc * g * i * (1 - i),
            dc * c_l * f_l * (1 - f_l),
            dc * c_r * f_r * (1 - f_r),
            dc * i * (1 - g * g),
            dh * t * o * (1 - o),
        ], -1)  # fmt: skip
        return dz, (one_below_the_other(dz @ params.u.T, 2), jnp.stack([dc * f_l, dc * f_r]))

    def collect(
        params: BinaryTreeLSTM,
        x: jax.Array,
        h: jax.Array,
        children: Children,
        dz: jax.Array,
        dmessages: Arrays,
    ) -> tuple[BinaryTreeLSTM, jax.Array]:
        del dmessages
        du = outer_sum(side_by_side(children(h)), dz)
        dz_i, dz_l, dz_r, dz_g, dz_o = jnp.split(dz, 5, -1)
        dz = jnp.concatenate([dz_i, dz_l + dz_r, dz_g, dz_o], -1)
        db = None if params.b is None else sum_leading(dz)
        return BinaryTreeLSTM(outer_sum(x.astype(dz.dtype), dz), du, db), dz @ params.w.T

    widths = (features, features)
    return TreeCell(init, 2, widths, widths, project, node, forward, backward, collect, info)
