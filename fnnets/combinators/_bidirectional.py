"""A layer that reads its sequence in both directions of time."""

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
    outputs: Any  # (a, b) for merge="mul"; None otherwise
    axes: Static  # the time axes of x and of y; None for y if the copies reduce time away
    mask: Any


def bidirectional(layer: Layer, merge: Merge = "concat") -> Layer:
    """Two copies of a layer: one reads the sequence from its start, the other from its end.

    Formula: a = f(params[0], x), b = reverse(f(params[1], reverse(x))), reverse(x)_t = x_{T+1−t};
    y = [a, b] along the last axis (concat), a + b (sum), (a + b)/2 (mean) or a ⊙ b (mul).

    The second copy reads all of x and the mask from the end, padding included. A recurrence holds its state through
    masked steps, so padding may stand on either side or in gaps. It stays in the same place in y.

    Derivation: each copy's own backward gives (dparams_i, dx_i) from its part of dy. reverse is its own inverse, so

        da = db = dy (sum), dy/2 (mean);  [da, db] = dy (concat);  da = dy ⊙ b, db = dy ⊙ a (mul)
        dparams[0], dx_0 = f.backward(da)
        dparams[1], dx_1 = f.backward(reverse(db))
        dx = dx_0 + reverse(dx_1)

    Args:
      layer: a layer or network over time. With a `serial` of recurrent layers, each direction has its own stack. In a
        `serial` of `bidirectional` layers, every layer reads the merged output of the one below.
      merge: "concat", "sum", "mean" or "mul".

    Returns:
      A `Layer`; params are a tuple of two: those of the copy that runs forward in time, and those of the copy that
      runs backward. Their keys are `fold_in(key, 0)` and `fold_in(key, 1)`. x is (…, T, D) floats or (…, T) integers
      (not time first), the mask (…, T). y is (…, T, 2H) for concat, (…, T, H) otherwise. If the layer reduces time
      away, such as a `serial` that ends in `fn.last()`, y is (…, 2H): the last output of each copy. Values observed
      inside the second copy are in its own time: the last step of x comes first.

    Raises:
      TypeError: forward gets a carry. The second copy starts at the end of the sequence, so it cannot continue from one.
      ValueError: x has no time axis, the layer changes its time axis, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.bidirectional(fn.dense(3))
      >>> x = jnp.ones((4, 7, 2))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 7, 6)

    References:
      Schuster & Paliwal, Bidirectional recurrent neural networks, IEEE Trans. Signal Processing 45 (1997),
      section II.

    Differences: concat is the default, as in Keras, flax and PyTorch (which has only this one). Keras calls the mean
    "ave". flax flips only the valid part, by lengths; for a recurrence that holds its state the result is the same.
    """
    checks.layers("bidirectional", (layer,), Layer)
    checks.choice("bidirectional", "merge", merge, ("concat", "sum", "mean", "mul"))
    info = describe(bidirectional, children=(layer,), merge=merge)
    return of_two(
        (layer, layer), dataclasses.replace(info, children=(layer, layer), reversed_children=(1,)), merge
    )


def of_two(copies: tuple[Layer, Layer], info: Info, merge: Merge) -> Layer:
    """Combines one copy that runs forward in time with one that runs backward."""

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
                info, i, copies[i], params[i], directed, key=c.child_key(key, i), train=train, mask=valid
            )
            for i, (directed, valid) in enumerate(both_directions(info, x, mask))
        )
        return merged(merge, a, flip_time(b, output_axis(info, x, b)))

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, None, BidirectionalSaved]:
        no_carry(info, "carry", carry)
        checks.count(info, "params", params, 2)
        (a, _, saved_a), (b, _, saved_b) = (
            c.forward_child(
                info,
                i,
                copies[i],
                params[i],
                directed,
                None,
                key=c.child_key(key, i),
                train=train,
                mask=valid,
            )
            for i, (directed, valid) in enumerate(both_directions(info, x, mask))
        )
        axes = Static((masks.time_axis(info, x), output_axis(info, x, b)))
        b = flip_time(b, axes.value[1])
        outputs = (a, b) if merge == "mul" else None
        return merged(merge, a, b), None, BidirectionalSaved((saved_a, saved_b), outputs, axes, mask)

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


def both_directions(who: Any, x: Any, mask: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(x, mask) in both directions of time, with x zeroed in the padding."""
    axis, x = masks.time_axis(who, x), masks.zero_padding(who, x, mask)
    return (x, mask), (flip_time(x, axis), flip_time(mask, -1))


def merged(merge: Merge, a: Any, b: Any) -> Any:
    """The outputs of both directions, merged."""
    if merge == "concat":
        return jnp.concatenate([a, b], -1)
    if merge == "mul":
        return a * b
    return a + b if merge == "sum" else (a + b) / 2


def unmerged(merge: Merge, outputs: Any, dy: Any) -> tuple[Any, Any]:
    """(da, db), the gradients of the arguments of `merged`."""
    if merge == "concat":
        da, db = jnp.split(dy, 2, -1)
        return da, db
    if merge == "mul":
        a, b = outputs
        return dy * b, dy * a
    return (dy, dy) if merge == "sum" else (dy / 2, dy / 2)


def flip_time(array: Any, axis: int | None) -> Any:
    """The array reversed along its time axis. Without a time axis it is unchanged, and None stays None."""
    return array if array is None or axis is None else jnp.flip(array, axis)


def output_axis(who: Any, x: Any, y: Any) -> int | None:
    """The time axis of y; None if the layer reduced time away."""
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
    """Refuses a carry: it moves in one direction of time only."""
    if carry is not None:
        raise TypeError(
            f"{who}: takes no {name}, got {type(carry).__name__}; one direction starts at the end of the sequence, "
            "so pass whole sequences, with a mask over the padding."
        )
