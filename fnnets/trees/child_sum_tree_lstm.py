"""The child-sum Tree-LSTM: any number of children, in no order."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Info
from fnnets.trees.tree_cell import Arrays, Children, TreeCell


class ChildSumTreeLSTM(NamedTuple):
    """The parameters of `tree_lstm(kind="child_sum")`: blocks in the order i, f, g, o."""

    w: jax.Array  # (D, 4H)
    u: jax.Array  # (H, 4H)
    b: jax.Array | None  # (4H,); None without bias


ChildSumTreeLSTM.blocks = dict.fromkeys("wub", ("i", "f", "g", "o"))  # type: ignore[attr-defined]


class Gates(NamedTuple):
    """What a node keeps for its backward."""

    i: jax.Array  # (B, H)
    f: jax.Array  # (K, B, H), one for each child
    g: jax.Array  # (B, H)
    o: jax.Array  # (B, H)


def child_sum(features: int, info: Info, init: Any) -> TreeCell:
    """The cell, derived in `tree_lstm`. A child computes its product q = h·u once and hands it to its parent."""

    def project(params: ChildSumTreeLSTM, x: jax.Array) -> jax.Array:
        checks.node(info, params, ChildSumTreeLSTM)
        checks.width(info, x, params.w.shape[0], "features")
        z = x.astype(params.w.dtype) @ params.w
        return z if params.b is None else z + params.b

    def node(params: ChildSumTreeLSTM, z: jax.Array, children: Arrays) -> Arrays:
        h, c = children
        u_i, u_f, u_g, u_o = jnp.split(params.u, 4, -1)
        z_i, z_f, z_g, z_o = jnp.split(z, 4, -1)
        h_sum = h.sum(0)
        i = jax.nn.sigmoid(z_i + h_sum @ u_i)
        f = jax.nn.sigmoid(z_f + h @ u_f)
        g = jnp.tanh(z_g + h_sum @ u_g)
        o = jax.nn.sigmoid(z_o + h_sum @ u_o)
        c = i * g + (f * c).sum(0)
        return o * jnp.tanh(c), c

    def forward(params: ChildSumTreeLSTM, z: jax.Array, children: Arrays) -> tuple[jax.Array, Arrays, Gates]:
        q, c = children
        z_i, z_f, z_g, z_o = jnp.split(z, 4, -1)
        q_i, q_f, q_g, q_o = jnp.split(q, 4, -1)
        i = jax.nn.sigmoid(z_i + q_i.sum(0))
        f = jax.nn.sigmoid(z_f + q_f)
        g = jnp.tanh(z_g + q_g.sum(0))
        o = jax.nn.sigmoid(z_o + q_o.sum(0))
        c = i * g + (f * c).sum(0)
        h = o * jnp.tanh(c)
        return h, (h @ params.u, c), Gates(i, f, g, o)

    def backward(
        params: ChildSumTreeLSTM, children: Arrays, gates: Gates, dh: jax.Array, dmessage: Arrays
    ) -> tuple[jax.Array, Arrays]:
        (_, c), (i, f, g, o), (dq, dc) = children, gates, dmessage
        dh = dh + dq @ params.u.T
        t = jnp.tanh(i * g + (f * c).sum(0))
        dc = dc + dh * o * (1 - t * t)
        dz_i = dc * g * i * (1 - i)
        dz_f = dc * c * f * (1 - f)
        dz_g = dc * i * (1 - g * g)
        dz_o = dh * t * o * (1 - o)
        dq_i, dq_g, dq_o = (jnp.broadcast_to(a, f.shape) for a in (dz_i, dz_g, dz_o))
        dq_children = jnp.concatenate([dq_i, dz_f, dq_g, dq_o], -1)
        return jnp.concatenate([dz_i, dz_f.sum(0), dz_g, dz_o], -1), (dq_children, dc * f)

    def collect(
        params: ChildSumTreeLSTM,
        x: jax.Array,
        h: jax.Array,
        children: Children,
        dz: jax.Array,
        dmessages: Arrays,
    ) -> tuple[ChildSumTreeLSTM, jax.Array]:
        del children
        db = None if params.b is None else sum_leading(dz)
        dw, du = outer_sum(x.astype(dz.dtype), dz), outer_sum(h, dmessages[0])
        return ChildSumTreeLSTM(dw, du, db), dz @ params.w.T

    state, message = (features, features), (4 * features, features)
    return TreeCell(init, None, state, message, project, node, forward, backward, collect, info)
