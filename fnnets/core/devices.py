"""Arrays that differ between devices inside a `jax.shard_map`; jax records this in their types."""

from __future__ import annotations

from typing import Any

import jax


def varying_like(tree: Any, *others: Any) -> Any:
    """The tree, typed to differ over every device axis over which any of the others differs.

    A scan starts from zeros that are the same on every device, but its carry is not; jax wants one type for both.
    The transpose of this is the sum over the devices. Outside of `shard_map` it does nothing.
    """
    axes = frozenset().union(*(axes_of(leaf) for leaf in jax.tree.leaves(others)))
    return jax.tree.map(lambda leaf: _varying(leaf, tuple(axes - axes_of(leaf))), tree) if axes else tree


def axes_of(leaf: Any) -> frozenset[Any]:
    """The device axes over which an array differs."""
    return getattr(getattr(jax.typeof(leaf), "mat", None), "varying", frozenset())


def _varying(leaf: Any, axes: tuple[Any, ...]) -> Any:
    return jax.lax.pcast(leaf, axes, to="varying") if axes else leaf
