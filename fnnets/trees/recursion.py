"""Runs a cell over the nodes of trees: the scans, padding and children, shared by all tree cells."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import transpose_kernels, transpose_kernels_back, zero_where_masked
from fnnets.core.devices import varying_like
from fnnets.core.layer import Info, Layer, Static, layer
from fnnets.trees.tree_cell import Arrays, TreeCell


class Nodes(NamedTuple):
    """The nodes of B trees in topological order; N is the first axis."""

    x: jax.Array  # (N, B, D), 0 in the padding
    rows: jax.Array  # (N, K, B), the children's rows; a missing child points to row N, which is 0
    keep: jax.Array | None  # (N, B), False in the padding
    broken: jax.Array  # (N, B), True where a child does not come before its parent


class TreeSaved(NamedTuple):
    """What a tree layer keeps for its backward."""

    nodes: Nodes
    h: jax.Array  # (N, B, H)
    messages: Arrays  # (N + 1, B, ·) each
    cell: Any  # what the cell saved of each node
    like: Static  # the batch axes and the dtype of the features


def of_cell(cell: TreeCell) -> Layer:
    """Makes a layer that runs a cell over the nodes.

    Formula: s_j = node(x_j, s_{c_j1}, …, s_{c_jK}) for j = 0, …, N − 1, y_j = h_j, the first part of s_j. s_j = 0 in
    the padding and for a missing child.

    Derivation: with ds_j = ∂E/∂s_j, which includes all nodes above j, the chain rule from the last node to the first:

        ds_j   ← ds_j + dy_j                    s_j is used in y_j and by its parents
        ds_{c_jk} += ∂s_j/∂s_{c_jk}ᵀ·ds_j       the cell's backward, added to the child's row

    All parents of a node come after it, so its ds is complete when the scan reaches it. The weights' gradients are sums
    over all nodes, each one matrix product after the loop.
    """
    info = cell.info

    def init(key: Any, x: Any) -> Any:
        features, children = parts(cell, x)
        return cell.init(key, features, children.shape[-1])

    def project(params: Any, nodes: Nodes) -> jax.Array:
        z = cell.project(params, nodes.x)
        return jnp.where(nodes.broken[..., None], jnp.asarray(jnp.nan, z.dtype), z)

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        def step(states: Arrays, at: Any) -> tuple[Arrays, jax.Array]:
            j, z, index, keep = at
            state = zero_in_padding(keep, cell.node(params, z, gathered(states, index)))
            return written(states, j, state), state[0]

        nodes = enter(cell, x, mask)
        z = project(params, nodes)
        order = jnp.arange(len(z))
        _, h = jax.lax.scan(
            step, varying_like(empty(z, cell.state), z, nodes), (order, z, nodes.rows, nodes.keep)
        )
        return leave(h, jnp.shape(x[0])[:-2])

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, TreeSaved]:
        def step(messages: Arrays, at: Any) -> Any:
            j, z, index, keep = at
            h, message, saved = cell.forward(params, z, gathered(messages, index))
            masked = zero_in_padding(keep, (h, *message))
            return written(messages, j, masked[1:]), (masked[0], saved)

        nodes = enter(cell, x, mask)
        z = project(params, nodes)
        order = jnp.arange(len(z))
        start = varying_like(empty(z, cell.message), z, nodes)
        messages, (h, saved) = jax.lax.scan(step, start, (order, z, nodes.rows, nodes.keep))
        batch, dtype = jnp.shape(x[0])[:-2], jnp.result_type(x[0])
        return leave(h, batch), TreeSaved(nodes, h, messages, saved, Static((batch, dtype)))

    def backward(params: Any, saved: TreeSaved, dy: jax.Array) -> tuple[Any, Any]:
        def step(dmessages: jax.Array, at: Any) -> tuple[jax.Array, jax.Array]:
            j, dh, index, keep, cell_saved = at
            dmessage = split_columns(dmessages[j], cell.message)
            children = gathered(saved.messages, index)
            dz, dchildren = cell.backward(transpose_kernels_back(kernels), children, cell_saved, dh, dmessage)
            masked = zero_in_padding(keep, (dz, *dchildren))
            return added(dmessages, index, masked[1:]), masked[0]

        nodes, h, kernels = saved.nodes, saved.h, transpose_kernels(params)
        batch, dtype = saved.like.value
        order, dh = jnp.arange(len(h)), first(dy.astype(h.dtype), dy.ndim - 2)
        scanned = (order, dh, nodes.rows, nodes.keep, saved.cell)
        (zeros,) = empty(h, (sum(cell.message),))  # side by side, so each step adds to one array
        zeros = varying_like(zeros, scanned)
        dmessages, dz = jax.lax.scan(step, zeros, scanned, reverse=True)

        def children(a: jax.Array) -> jax.Array:
            return gathered((jnp.concatenate([a, jnp.zeros_like(a[:1])]),), nodes.rows)[0]

        dparams, dx = cell.collect(
            params, nodes.x, h, children, dz, split_columns(dmessages[:-1], cell.message)
        )
        return dparams, (leave(dx.astype(dtype), batch), None)

    return layer(init, apply, forward, backward, name=info)


def parts(cell: TreeCell, x: Any) -> tuple[Any, Any]:
    """The features and the children of an input."""
    info = cell.info
    if not isinstance(x, tuple) or len(x) != 2:
        got = f"a tuple of {len(x)}" if isinstance(x, tuple) else type(x).__name__
        raise TypeError(
            f"{info}: x must be a pair (features, children), got {got}; fn.pad_trees builds it from trees."
        )
    features, children = checks.array(info, x[0], "features"), checks.integers(info, x[1], "children")
    if jnp.issubdtype(features.dtype, jnp.integer):
        raise TypeError(
            f"{info}: features must be floating point, got {features.dtype}; look ids up with "
            "fn.nodes(fn.embedding(…)) before this layer."
        )
    features = checks.floats(info, features, "features")
    checks.rank(info, features, 2, "features")
    checks.rank(info, children, 2, "children")
    checks.same_shape(
        info, "children without its last axis", children.shape[:-1], features.shape[:-1],
        "a row of children for each node.",
    )  # fmt: skip
    if cell.places is not None and children.shape[-1] != cell.places:
        raise ValueError(
            f"{info}: children must have {cell.places} places on the last axis, got shape "
            f"{checks.shape_text(children.shape)}; pass arity={cell.places} to fn.pad_trees, or use child_sum."
        )
    return features, children


def enter(cell: TreeCell, x: Any, mask: Any) -> Nodes:
    """The input with padding set to 0, the node axis first and the batch axes flattened."""
    features, children = parts(cell, x)
    keep, there = masks(cell.info, mask, x)
    children = children.astype(jnp.int32)
    n = features.shape[-2]
    here = (children >= 0) if there is None else (children >= 0) & there
    late = here & (children >= jnp.arange(n)[:, None])
    broken = late.any(-1)
    features = zero_where_masked(features, keep)
    axis = features.ndim - 2
    index = jnp.swapaxes(first(jnp.where(here & ~late, children, n), axis), 1, 2)
    return Nodes(
        first(features, axis),
        index,
        None if keep is None else first(keep[..., None], axis)[..., 0],
        first(broken[..., None], axis)[..., 0],
    )


def masks(info: Info, mask: Any, x: Any) -> tuple[Any, Any]:
    """The masks of the nodes and of the children; None without a mask."""
    if mask is None:
        return None, None
    if not isinstance(mask, tuple) or len(mask) != 2:
        raise TypeError(
            f"{info}: mask must be a pair (nodes, children), got {type(mask).__name__}; "
            "pass (nodes, children >= 0), or the mask of fn.pad_trees."
        )
    keep, there = (checks.bools(info, part) for part in mask)
    checks.same_shape(info, "the nodes' mask", keep.shape, jnp.shape(x[1])[:-1], "one bool for each node.")
    checks.same_shape(info, "the children's mask", there.shape, jnp.shape(x[1]), "one bool for each child.")
    return keep, there


def first(a: jax.Array, axis: int) -> jax.Array:
    """Reshapes (…, N, n) to (N, B, n)."""
    a = jnp.moveaxis(a, axis, 0)
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def leave(a: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """Reshapes (N, B, n) to (*batch, N, n)."""
    n, _, width = a.shape
    return jnp.moveaxis(a.reshape(n, *batch, width), 0, -2)


def empty(like: jax.Array, widths: tuple[int, ...]) -> Arrays:
    """Zeros (N + 1, B, ·): a row for each node, and one for missing children."""
    n, batch, _ = like.shape
    return tuple(jnp.zeros((n + 1, batch, width), like.dtype) for width in widths)


def gathered(rows: Arrays, index: jax.Array) -> Arrays:
    """The children's rows: index (…, K, B) of rows (N + 1, B, ·) gives (…, K, B, ·)."""
    trees = jnp.arange(index.shape[-1])
    return tuple(part.at[index, trees].get(mode="promise_in_bounds") for part in rows)


def added(rows: jax.Array, index: jax.Array, children: Arrays) -> jax.Array:
    """Adds to the children's rows: the gradient of `gathered`."""
    trees = jnp.arange(index.shape[-1])
    return rows.at[index, trees].add(jnp.concatenate(children, -1), mode="promise_in_bounds")


def split_columns(rows: jax.Array, widths: tuple[int, ...]) -> Arrays:
    """Splits the last axis into arrays (…, width)."""
    return tuple(jnp.split(rows, list(itertools.accumulate(widths))[:-1], -1))


def written(rows: Arrays, j: jax.Array, own: Arrays) -> Arrays:
    """Writes node j's row."""
    return tuple(row.at[j].set(part) for row, part in zip(rows, own, strict=True))


def zero_in_padding(keep: jax.Array | None, arrays: Arrays) -> Arrays:
    """Sets arrays (…, B, ·) to 0 where the node is padding."""
    if keep is None:
        return arrays
    return tuple(zero_where_masked(a, jnp.expand_dims(keep, range(a.ndim - 2))) for a in arrays)


def side_by_side(children: jax.Array) -> jax.Array:
    """Joins the children's rows (…, K, B, H) to (…, B, K·H)."""
    rows = jnp.moveaxis(children, -3, -2)
    return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])


def one_below_the_other(rows: jax.Array, places: int) -> jax.Array:
    """Splits (B, K·H) into the children's rows (K, B, H): the inverse of `side_by_side`."""
    return jnp.moveaxis(rows.reshape(*rows.shape[:-1], places, -1), -2, -3)
