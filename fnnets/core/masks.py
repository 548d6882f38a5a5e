"""Masks: they say which steps and places count; the values elsewhere have no effect."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import zero_where_masked
from fnnets.core.layer import Mask, PyTree


def mask_shape(x: PyTree) -> tuple[int, ...]:
    """The shape of a mask for x: that of x without its features; integers (ids) have no features."""
    return x.shape if jnp.issubdtype(x.dtype, jnp.integer) else x.shape[:-1]


def time_axis(who: Any, x: PyTree, name: str = "x") -> int:
    """The time axis of x: the last axis before the features; integers (ids) have no features."""
    x = checks.array(who, x, name)
    features = x.ndim - len(mask_shape(x))
    checks.rank(who, x, 1 + features, name)
    return -1 - features


def zero_padding(who: Any, x: PyTree, mask: Mask) -> Any:
    """x with 0 wherever the mask is False, so that no value there (not even NaN) enters a product."""
    if mask is None:
        return x
    if not same_structure(x, mask):
        raise ValueError(
            f"{who}: mask must have the structure of x, {jax.tree.structure(x)}, got {type(mask).__name__}; "
            "give each input a mask, an array of bools."
        )

    def clean(x: PyTree, mask: Mask) -> Any:
        mask = checks.bools(who, mask)
        checks.same_shape(who, "mask", mask.shape, mask_shape(x), "give one bool for each step of x.")
        return zero_where_masked(x, mask)

    return jax.tree.map(clean, x, mask)


def hide_gradient(dx: PyTree, mask: Mask) -> Any:
    """The backward of `zero_padding`: dx, with 0 where the mask is False. None (integers) stays None."""
    if mask is None or dx is None:
        return dx
    structure: Any = jax.tree.structure(mask)
    parts = structure.flatten_up_to(dx)
    return structure.unflatten(
        [
            None if dx is None else zero_where_masked(dx, m)
            for dx, m in zip(parts, jax.tree.leaves(mask), strict=True)
        ]
    )


def fitting_mask(who: Any, x: PyTree, mask: Mask) -> Any:
    """The mask for the next child: the mask itself if it fits x, None if a layer has reduced its axes away."""
    if mask is None:
        return None
    if not same_structure(x, mask):
        return None  # several inputs were merged into one
    for leaf, part in zip(jax.tree.leaves(x), jax.tree.leaves(mask), strict=True):
        if mask_shape(leaf) == part.shape:
            continue
        if leaf.shape[:-1] == part.shape[: leaf.ndim - 1]:
            return None
        raise ValueError(
            f"{who}: mask of shape {checks.shape_text(part.shape)} does not fit an input of shape "
            f"{checks.shape_text(leaf.shape)}: a layer before it changed the time axis; split the network there."
        )
    return mask


def same_structure(first: PyTree, second: PyTree) -> bool:
    """Whether two trees have the same structure."""
    structure: Any = jax.tree.structure(first)
    return bool(structure == jax.tree.structure(second))
