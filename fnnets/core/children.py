"""How a combinator calls its children: keys, masks, carries, and sums over the paths of a gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks, recording
from fnnets.core.layer import Carry, Key, Layer, Mask, Params, PyTree, Saved, keep_stats


def child_key(key: Key | None, i: Any) -> Any:
    """Child i's key, by `fold_in`: appending a layer changes no earlier draw."""
    return None if key is None else jax.random.fold_in(key, i)


def apply_child(
    parent: Any, i: int, layer: Layer, params: Params, x: PyTree, *, key: Key | None, train: bool, mask: Mask
) -> Any:
    """Child i's output."""
    with recording.child(parent, i, layer):
        return recording.observed(layer, x, layer.apply(params, x, key=key, train=train, mask=mask), mask)


def forward_child(
    parent: Any,
    i: int,
    layer: Layer,
    params: Params,
    x: PyTree,
    carry: Carry,
    *,
    key: Key | None,
    train: bool,
    mask: Mask,
) -> Any:
    """Child i's (y, carry, saved)."""
    with recording.child(parent, i, layer):
        y, carry, saved = layer.forward(params, x, carry, key=key, train=train, mask=mask)
        return recording.observed(layer, x, y, mask), carry, saved


def backward_child(
    parent: Any, i: int, layer: Layer, params: Params, saved: Saved, dy: PyTree, dcarry: Carry
) -> Any:
    """Child i's (dparams, dx, dcarry)."""
    with recording.child(parent, i, layer):
        if recording.collects("gradients", "values"):
            dy = recording.note("dy", dy)
        dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
        if recording.collects("values"):
            dx = recording.note("dx", dx)
        return dparams, dx, dcarry


def one_each(who: Any, carry: Carry, n: int) -> list[Any]:
    """The carries of n children as a new list; None stands for n times None."""
    if carry is None:
        return [None] * n
    checks.count(who, "carry", carry, n)
    return list(carry)


def all_or_none(carries: list[Any]) -> Any:
    """The children's carries as a tuple; None if no child has one."""
    return None if all(carry is None for carry in carries) else tuple(carries)


def fitted_carry(who: Any, carry: Carry, like: Any, name: str) -> Any:
    """A carry with the structure and the dtypes of another, matched leaf by leaf in order.

    So an encoder's carry fits a decoder with more layers, as long as the additional layers have no carry.
    """
    leaves, wanted = jax.tree.leaves(carry), jax.tree.leaves(like)
    shapes = [jnp.shape(leaf) for leaf in leaves], [leaf.shape for leaf in wanted]
    if shapes[0] != shapes[1]:
        got, expected = (", ".join(map(checks.shape_text, each)) or "none" for each in shapes)
        raise ValueError(
            f"{who}: {name} must hold arrays of the shapes {expected}, got {got}; the recurrent layers on both "
            "sides need the same kind, width and batch axes."
        )
    leaves = [jnp.asarray(leaf, target.dtype) for leaf, target in zip(leaves, wanted, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def add(first: PyTree, second: PyTree) -> PyTree:
    """The sum of two gradients of one input; None stays None."""
    return jax.tree.map(jnp.add, first, second)


def any_stats(children: tuple[Layer, ...]) -> bool:
    """Whether a child has moving statistics."""
    return any(child.update_stats is not keep_stats for child in children)
