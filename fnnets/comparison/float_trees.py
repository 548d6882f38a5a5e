"""Trees for a comparison: in float64, split into differentiable leaves and others, and by path."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core.parameters import Stats


def _dtype(leaf: Any) -> Any:
    # A Python float counts as float64: every comparison is in float64.
    return leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)


def is_float(leaf: Any) -> bool:
    """Whether a leaf has a gradient."""
    return bool(jnp.issubdtype(_dtype(leaf), jnp.floating))


def leading(leaf: Any) -> tuple[int, ...]:
    """The axes of an input before its features; integers (ids) have no features."""
    shape = np.shape(leaf)
    return shape[:-1] if is_float(leaf) else shape


def in_float64(tree: Any) -> Any:
    """The tree with every floating-point leaf in float64; call it inside `jax.enable_x64(True)`."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf).astype(np.float64)) if is_float(leaf) else leaf, tree
    )


def split(tree: Any) -> tuple[Any, Any]:
    """The floating-point leaves of the tree, with None elsewhere; and the other leaves, likewise."""
    floats = jax.tree.map(lambda leaf: leaf if is_float(leaf) else None, tree)
    others = jax.tree.map(lambda leaf: None if is_float(leaf) else leaf, tree)
    return floats, others


def join(floats: Any, others: Any) -> Any:
    """The tree that `split` took apart."""
    return jax.tree.map(lambda a, b: b if a is None else a, floats, others, is_leaf=lambda leaf: leaf is None)


def text(path: Any) -> str:
    """A path as written in code, such as `params[0].w`."""
    return jax.tree_util.keystr(path[:1], simple=True) + jax.tree_util.keystr(path[1:])


def by_path(tree: Any) -> dict[str, np.ndarray]:
    """The leaves as numpy arrays, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {text(path): np.asarray(leaf) for path, leaf in leaves if not _is_float0(leaf)}


def constants(tree: Any) -> set[str]:
    """The paths of moving statistics, which are constants in every gradient."""
    paths: set[str] = set()
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, Stats))
    for path, node in nodes:
        if isinstance(node, Stats):
            paths |= {text((*path, *rest)) for rest, _ in jax.tree_util.tree_leaves_with_path(node)}
    return paths


def blocks(tree: Any) -> dict[str, tuple[str, ...]]:
    """The names of the equal blocks of each leaf, by path, where its NamedTuple names them.

    A NamedTuple of params names blocks in a class attribute, field by field:
    `blocks = {"w": ("i", "f", "g", "o")}`.
    """
    names: dict[str, tuple[str, ...]] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        parent, field = tree, ""
        for step in path[:-1]:
            parent = _child(parent, step)
        field = getattr(path[-1], "name", "")
        named = getattr(type(parent), "blocks", {})
        if field in named:
            names[text(path)] = tuple(named[field])
    return names


def _child(node: Any, step: Any) -> Any:
    if hasattr(step, "name"):
        return getattr(node, step.name)
    return node[step.idx if hasattr(step, "idx") else step.key]


def _is_float0(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) == jax.dtypes.float0
