"""What every combinator does for its children: keys, masks, and sums over the paths of a gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets import checks, observe
from fnnets.contract import Layer, keep_stats


def child_key(key: Any, i: Any) -> Any:
    """Child i's key. By `fold_in`, so that appending a layer changes no earlier draw."""
    return None if key is None else jax.random.fold_in(key, i)


def apply_child(
    parent: Any, i: int, layer: Layer, params: Any, x: Any, *, key: Any, train: bool, mask: Any
) -> Any:
    """Child i's output, shown to whoever observes."""
    with observe.child(parent, i, layer):
        return observe.seen(layer, x, layer.apply(params, x, key=key, train=train, mask=mask), mask)


def forward_child(
    parent: Any, i: int, layer: Layer, params: Any, x: Any, carry: Any, *, key: Any, train: bool, mask: Any
) -> Any:
    """Child i's (y, carry, saved), y shown to whoever observes."""
    with observe.child(parent, i, layer):
        y, carry, saved = layer.forward(params, x, carry, key=key, train=train, mask=mask)
        return observe.seen(layer, x, y, mask), carry, saved


def backward_child(parent: Any, i: int, layer: Layer, params: Any, saved: Any, dy: Any, dcarry: Any) -> Any:
    """Child i's (dparams, dx, dcarry); its dy is shown to whoever observes."""
    with observe.child(parent, i, layer):
        if observe.records("gradients", "values"):
            observe.note("dy", dy)
        dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
        if observe.records("values"):
            observe.note("dx", dx)
        return dparams, dx, dcarry


def one_each(who: Any, carry: Any, n: int) -> list[Any]:
    """The carries of n children, in a list to be written to; None stands for one None each."""
    if carry is None:
        return [None] * n
    checks.count(who, "carry", carry, n)
    return list(carry)


def all_or_none(carries: list[Any]) -> Any:
    """The children's carries as one: None where no child has any."""
    return None if all(carry is None for carry in carries) else tuple(carries)


def fitted_carry(who: Any, carry: Any, like: Any, given: str) -> Any:
    """A carry in the structure and the dtypes of another: leaf by leaf, in their order.

    So an encoder's carry fits a decoder that has more layers, if those have no carry.
    """
    leaves, wanted = jax.tree.leaves(carry), jax.tree.leaves(like)
    shapes = [jnp.shape(leaf) for leaf in leaves], [leaf.shape for leaf in wanted]
    if shapes[0] != shapes[1]:
        got, expected = (", ".join(map(checks.shape_text, each)) or "none" for each in shapes)
        raise ValueError(
            f"{who}: {given} must hold arrays of the shapes {expected}, got {got}; the recurrent layers on both "
            "sides need the same kind, width and batch axes."
        )
    leaves = [jnp.asarray(leaf, target.dtype) for leaf, target in zip(leaves, wanted, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def mask_shape(x: Any) -> tuple[int, ...]:
    """The shape of a mask for x: without the features, which integers (ids) have not."""
    return x.shape if jnp.issubdtype(x.dtype, jnp.integer) else x.shape[:-1]


def time_axis(who: Any, x: Any, name: str = "x") -> int:
    """The time axis of x: its last, behind which floats have one of features."""
    x = checks.array(who, x, name)
    features = x.ndim - len(mask_shape(x))
    checks.rank(who, x, 1 + features, name)
    return -1 - features


def zero_padding(who: Any, x: Any, mask: Any) -> Any:
    """x with 0 wherever the mask is False, so that what stands there (NaN too) reaches no product."""
    if mask is None:
        return x
    if not same_structure(x, mask):
        raise ValueError(
            f"{who}: mask must have the structure of x, {jax.tree.structure(x)}, got {type(mask).__name__}; "
            "give each input its own mask, an array of bools."
        )

    def clean(x: Any, mask: Any) -> Any:
        mask = checks.bools(who, mask)
        checks.same_shape(who, "mask", mask.shape, mask_shape(x), "one bool for each step of x.")
        return hide(x, mask)

    return jax.tree.map(clean, x, mask)


def hide(x: Any, mask: Any) -> Any:
    """x where the mask (with as many axes, or fewer) is True, 0 elsewhere."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, jnp.zeros((), x.dtype))


def hide_gradient(dx: Any, mask: Any) -> Any:
    """dx behind `zero_padding`: what stood in the padding was not used. None (integers) stays None."""
    if mask is None or dx is None:
        return dx
    structure: Any = jax.tree.structure(mask)
    parts = structure.flatten_up_to(dx)
    return structure.unflatten(
        [None if dx is None else hide(dx, m) for dx, m in zip(parts, jax.tree.leaves(mask), strict=True)]
    )


def fitting_mask(who: Any, x: Any, mask: Any) -> Any:
    """The mask for the next child: itself while it fits x, None once its time axis (or its places) are reduced away."""
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
            f"{checks.shape_text(leaf.shape)}; a layer in between changed the time axis, so split the network there."
        )
    return mask


def same_structure(first: Any, second: Any) -> bool:
    """Whether two trees have the same structure."""
    structure: Any = jax.tree.structure(first)
    return bool(structure == jax.tree.structure(second))


def add(first: Any, second: Any) -> Any:
    """The sum of two gradients of one input; None stays None."""
    return jax.tree.map(jnp.add, first, second)


def any_stats(children: tuple[Layer, ...]) -> bool:
    """Whether a child has moving statistics."""
    return any(child.update_stats is not keep_stats for child in children)
