"""What differs from device to device inside a `jax.shard_map`: jax keeps account of it in the types of arrays."""

from __future__ import annotations

from typing import Any

import jax


def varying_like(tree: Any, *others: Any) -> Any:
    """The tree, each array one of its own on every device of the axes over which any of the others differs.

    The zeros that a scan starts from are the same everywhere, and what it carries on from them is not: jax asks
    for one type. Transposed, this is the sum over the devices. Elsewhere than in a `shard_map` nothing happens.
    """
    axes = frozenset().union(*(axes_of(leaf) for leaf in jax.tree.leaves(others)))
    return jax.tree.map(lambda leaf: _varying(leaf, tuple(axes - axes_of(leaf))), tree) if axes else tree


def axes_of(leaf: Any) -> frozenset[Any]:
    """The axes of devices over which an array differs."""
    return getattr(getattr(jax.typeof(leaf), "mat", None), "varying", frozenset())


def _varying(leaf: Any, axes: tuple[Any, ...]) -> Any:
    return jax.lax.pcast(leaf, axes, to="varying") if axes else leaf
