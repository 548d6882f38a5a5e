"""One layer in both directions of time."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Info, Layer, Static, describe, keep_stats, named

Merge = Literal["concat", "sum", "mean", "mul"]


class BidirectionalSaved(NamedTuple):
    """What `bidirectional` keeps for its backward."""

    children: tuple[Any, Any]
    outputs: Any  # (y_fwd, y_bwd), which merge="mul" needs; None otherwise
    axes: Static  # the time axis of x, and that of y: None where the copies reduce time away
    mask: Any


def bidirectional(layer: Layer, merge: Merge = "concat") -> Layer:
    """Two copies of a layer, one of which reads the sequence from its end.

    Formula: a = f(params[0], x), b = reverse(f(params[1], reverse(x))), reverse(x)_t = x_{T+1−t};
    y = [a, b] along the last axis (concat), a + b (sum), (a + b)/2 (mean) or a ⊙ b (mul).

    The second copy reads all of x and of the mask from the end, the padding too. A recurrence holds its state through
    masked steps, so that it does not matter where they are: padding on either side, and gaps, are right
    as they are, and stay where they are in y.

    Derivation: each copy's own backward gives (dparams_i, dx_i) from its part of dy, and reverse is its own
    inverse, so

        da = db = dy (sum), dy/2 (mean);  [da, db] = dy (concat);  da = dy ⊙ b, db = dy ⊙ a (mul)
        dparams[0], dx_0 = f.backward(da)
        dparams[1], dx_1 = f.backward(reverse(db))
        dx = dx_0 + reverse(dx_1)

    Args:
      layer: a layer or network over time. A `serial` of recurrences gives each direction its own stack; a
        `serial` of `bidirectional` makes every layer bidirectional on the joined output of the one below.
      merge: "concat", "sum", "mean" or "mul".

    Returns:
      A `Layer`; params are a tuple of two, of the copy forward in time and of the one backward, with the keys
      `fold_in(key, 0)` and `fold_in(key, 1)`. x is (…, T, D) floats or (…, T) integers (not time first), the mask (…, T). y is
      (…, T, 2H), or (…, T, H); a layer that reduces time away, such as a `serial` that ends in `fn.last()`, gives
      (…, 2H): what each copy had read at its end. What is observed inside the second copy is in its own time,
      the last step of x first.

    Raises:
      TypeError: a carry is given: half of y comes from the end of the sequence, so there is nothing to hand on.
      ValueError: x has no time axis; the layer changes it; the mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.bidirectional(fn.dense(3))
      >>> x = jnp.ones((4, 7, 2))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 7, 6)

    References:
      Schuster & Paliwal, Bidirectional recurrent neural networks, IEEE Trans. Signal Processing 45 (1997),
      section II.

    Differences: concat is the default as in Keras, flax and PyTorch (which has no other); Keras calls the mean
    "ave". flax flips only the valid part, by lengths: the same where a recurrence holds its state.
    """
    checks.layers("bidirectional", (layer,), Layer)
    checks.choice("bidirectional", "merge", merge, ("concat", "sum", "mean", "mul"))
    info = describe(bidirectional, children=(layer,), merge=merge)
    return of_two(
        (layer, layer), dataclasses.replace(info, children=(layer, layer), reversed_children=(1,)), merge
    )


def of_two(copies: tuple[Layer, Layer], info: Info, merge: Merge) -> Layer:
    """A layer forward in time and one backward, as one."""

    def init(key: Any, x: Any) -> tuple[Any, Any]:
        masks.time_axis(info, x)
        params = []
        for i, child in enumerate(copies):
            with recording.child(info, i, child):
                params.append(child.init(c.child_key(key, i), x))
        return tuple(params)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        checks.count(info, "params", params, 2)
        a, b = (
            c.apply_child(
                info, i, copies[i], params[i], way, key=c.child_key(key, i), train=train, mask=valid
            )
            for i, (way, valid) in enumerate(both_ways(info, x, mask))
        )
        return merged(merge, a, flip_time(b, output_axis(info, x, b)))

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, None, BidirectionalSaved]:
        no_carry(info, "carry", carry)
        checks.count(info, "params", params, 2)
        (a, _, saved_a), (b, _, saved_b) = (
            c.forward_child(
                info, i, copies[i], params[i], way, None, key=c.child_key(key, i), train=train, mask=valid
            )
            for i, (way, valid) in enumerate(both_ways(info, x, mask))
        )
        axes = Static((masks.time_axis(info, x), output_axis(info, x, b)))
        b = flip_time(b, axes.value[1])
        kept = (a, b) if merge == "mul" else None
        return merged(merge, a, b), None, BidirectionalSaved((saved_a, saved_b), kept, axes, mask)

    def backward(
        params: Any, saved: BidirectionalSaved, dy: Any, dcarry: Any = None
    ) -> tuple[Any, Any, None]:
        no_carry(info, "dcarry", dcarry)
        x_axis, y_axis = saved.axes.value
        da, db = unmerged(merge, saved.outputs, dy)
        dparams_a, dx_a, _ = c.backward_child(info, 0, copies[0], params[0], saved.children[0], da, None)
        db = flip_time(db, y_axis)
        dparams_b, dx_b, _ = c.backward_child(info, 1, copies[1], params[1], saved.children[1], db, None)
        dx = c.add(dx_a, flip_time(dx_b, x_axis))
        return (dparams_a, dparams_b), masks.hide_gradient(dx, saved.mask), None

    def update_stats(params: Any, saved: BidirectionalSaved) -> Any:
        return tuple(copies[i].update_stats(params[i], saved.children[i]) for i in range(2))

    return named(
        Layer(init, apply, forward, backward, update_stats if c.any_stats(copies) else keep_stats, info)
    )


def both_ways(who: Any, x: Any, mask: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """x without its padding and its mask, as they are and in the other direction of time."""
    axis, x = masks.time_axis(who, x), masks.zero_padding(who, x, mask)
    return (x, mask), (flip_time(x, axis), flip_time(mask, -1))


def merged(merge: Merge, a: Any, b: Any) -> Any:
    """The outputs of both directions as one."""
    if merge == "concat":
        return jnp.concatenate([a, b], -1)
    if merge == "mul":
        return a * b
    return a + b if merge == "sum" else (a + b) / 2


def unmerged(merge: Merge, outputs: Any, dy: Any) -> tuple[Any, Any]:
    """(da, db), the gradients of what `merged` was given."""
    if merge == "concat":
        da, db = jnp.split(dy, 2, -1)
        return da, db
    if merge == "mul":
        a, b = outputs
        return dy * b, dy * a
    return (dy, dy) if merge == "sum" else (dy / 2, dy / 2)


def flip_time(array: Any, axis: int | None) -> Any:
    """An array in the other direction of time; itself where it has no time. None stays None."""
    return array if array is None or axis is None else jnp.flip(array, axis)


def output_axis(who: Any, x: Any, y: Any) -> int | None:
    """The time axis of y; None where the layer reduced time away."""
    steps = masks.mask_shape(x)
    if y.shape[:-1] == steps:
        return -2
    if y.shape[:-1] == steps[:-1]:
        return None
    raise ValueError(
        f"{who}: the layer's output must have shape {checks.shape_text((*steps, ...))} or, without time, "
        f"{checks.shape_text((*steps[:-1], ...))}, got {checks.shape_text(y.shape)}; only the last axis may change."
    )


def no_carry(who: Any, name: str, carry: Any) -> None:
    """Refuses a carry, which has one direction only."""
    if carry is not None:
        raise TypeError(
            f"{who}: takes no {name}, got one of {type(carry).__name__}: one of its directions starts at the end "
            "of the sequence; give whole sequences, with padding under a mask."
        )
