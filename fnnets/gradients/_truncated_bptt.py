"""Truncated backpropagation through time: long streams, cut into windows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks, masks
from fnnets.core import children as c
from fnnets.core.layer import Array, Carry, Key, Layer, Mask, Params, PyTree
from fnnets.core.parameters import zero_carry
from fnnets.gradients._by_hand import Aux, value_and_grad_by_hand
from fnnets.losses.loss import Loss

Gradient = tuple[tuple[jax.Array, Aux], Any]


class Window(NamedTuple):
    """One window of a stream, or all of them, stacked on a new first axis of every array."""

    x: jax.Array  # (…, steps, D) floats or (…, steps) integers
    target: jax.Array  # (…, steps, …)
    mask: jax.Array | None  # (…, steps), for the network
    loss_mask: jax.Array | None  # (…, steps), for the loss
    reset: Array | None  # (…), True for the rows where a new sequence begins with this window


class TruncatedBPTT(NamedTuple):
    """The functions of `truncated_bptt`: cut a stream into windows, and take the gradient of one or of all.

    Attributes:
      windows: `(x, target, *, mask=None, loss_mask=None, reset=None) -> Window`, with the windows on a new
        first axis of every array. If T is not a multiple of steps, the last window is padded and both masks
        exclude the padding.
      value_and_grad: `(params, window, carry=None, *, key=None, train=False) -> ((value, Aux(y, carry,
        saved)), dparams)` of one window. The next window starts from aux.carry.
      whole: `(params, x, target, carry=None, *, key=None, train=False, mask=None, loss_mask=None,
        reset=None) -> ((value, Aux(y, carry, saved)), dparams)` of the whole stream at fixed params.
    """

    windows: Callable[..., Window]
    value_and_grad: Callable[..., Gradient]
    whole: Callable[..., Gradient]


def truncated_bptt(net: Layer, loss: Loss, steps: int) -> TruncatedBPTT:
    """Truncated backpropagation through time: the state passes from window to window, the gradient does not.

    Formula: window w covers the steps wS … wS + S − 1. (y_w, s_{w+1}) = net(x_w) from the carry s_w; s_w = 0 in
    rows where a new sequence begins. E_w = loss(y_w, target_w).

    Derivation: the gradient within a window is exact. s_w counts as a constant: backward starts from dcarry = 0,
    and its gradient for s_w is dropped,

        dparams_w, dx_w, _ = net.backward(saved_w, dy_w, dcarry = None)

    so an error at step t reaches back to the start of its window: between 1 and S steps, not min(t, S). With S ≥ T
    the gradient is that of BPTT.

    Args:
      net: a network with a carry, and an output for each step.
      loss: a `Loss`, such as `fn.losses.mse()`.
      steps: S, the length of a window.

    Returns:
      A `TruncatedBPTT(windows, value_and_grad, whole)`.

      Use `windows` and `value_and_grad` for training, where params change from window to window. All windows
      have the same shape, so a step compiles once, in a Python loop or a `lax.scan`. Start with `fn.zero_carry`:
      None makes the first call compile separately.

      Use `whole` to compare with the full gradient. It returns the loss of the whole stream and the truncated
      gradient of this loss. If the loss is a sum over steps, it is the sum of the losses of the windows. If it
      is a mean, it is Σ_w N_w E_w / Σ_w N_w, where N_w is the number (or weight) of the steps that count in
      window w. The same holds for the gradients. Training uses the mean of each window.

      x is (…, T, D) floats or (…, T) integers; the masks are (…, T). reset is (…, n) bools, n = ⌈T/S⌉: True
      where a row begins a new sequence with that window. A sequence cannot begin inside a window: pad the one
      before it to a multiple of S, and mask the padding.

    Raises:
      TypeError: masks or reset do not hold bools.
      ValueError: steps is below 1; the leading axes of target, masks or reset do not match x; the rows of the
        carry do not match reset.

    Example:
      Training, window by window:

      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> x = jax.random.normal(jax.random.key(1), (4, 50, 2))
      >>> target = jnp.cumsum(x, 1)
      >>> net, loss = fn.serial(fn.elman(8), fn.dense(2)), fn.losses.mse()
      >>> params = net.init(jax.random.key(0), x)
      >>> bptt = fn.truncated_bptt(net, loss, 20)
      >>> def step(state, window):
      ...     params, carry = state
      ...     (value, aux), grads = bptt.value_and_grad(params, window, carry)
      ...     return (jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), aux.carry), value
      >>> start = params, fn.zero_carry(net, params, x)
      >>> state, values = jax.lax.scan(step, start, bptt.windows(x, target))
      >>> values.shape
      (3,)

      The error of the truncated gradient, relative to the full one; zero if one window covers the whole stream:

      >>> _, full = fn.value_and_grad_by_hand(net, loss)(params, x, target)
      >>> def error(steps):
      ...     _, grads = fn.truncated_bptt(net, loss, steps).whole(params, x, target)
      ...     return optax.tree.norm(optax.tree.sub(grads, full)) / optax.tree.norm(full)
      >>> bool(error(5) > 1e-3), bool(error(50) < 1e-6)
      (True, True)

    References:
      Williams & Peng, An efficient gradient-based algorithm for on-line training of recurrent network
      trajectories, Neural Computation 2 (1990), BPTT(h; h′) with h = h′ = S; Mikolov, Statistical language models
      based on neural networks (2012), section 3.3.

    Differences: in PyTorch and Keras the user cuts the windows (with `detach` on the state, or `stateful=True`,
    which resets all rows at once).
    """
    checks.positive("truncated_bptt", steps=steps)
    one, windows = value_and_grad_by_hand(net, loss), functools.partial(_windows, steps)

    def value_and_grad(
        params: Params, window: Window, carry: Carry = None, *, key: Key | None = None, train: bool = False
    ) -> Gradient:
        carry = _restarted(carry, window.reset)
        masks = {"mask": window.mask, "loss_mask": window.loss_mask}
        return one(params, window.x, window.target, carry=carry, key=key, train=train, **masks)

    def whole(
        params: Params,
        x: PyTree,
        target: PyTree,
        carry: Carry = None,
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Mask = None,
        loss_mask: Mask = None,
        reset: Array | None = None,
    ) -> Gradient:
        def run_forward(carry: Carry, scanned: Any) -> Any:
            i, window = scanned
            carry, mode = _restarted(carry, window.reset), {"key": c.child_key(key, i), "train": train}
            y, carry, saved = net.forward(params, window.x, carry, mask=window.mask, **mode)
            shape = (*masks.mask_shape(window.x), *y.shape[-1:])
            checks.same_shape(
                "truncated_bptt", "the network's output", y.shape, shape, "one row for each step."
            )
            return carry, (y, saved)

        def run_backward(total: Any, scanned: Any) -> Any:
            dparams, _, _ = net.backward(params, *scanned, None)
            return jax.tree.map(jnp.add, total, dparams), None

        parts = windows(x, target, mask=mask, reset=reset)
        start = zero_carry(net, params, parts.x[0]) if carry is None else carry
        carry, (y, saved) = jax.lax.scan(run_forward, start, (jnp.arange(len(parts.x)), parts))
        axis = _time_axis(x)
        y = _joined(y, axis, x.shape[axis])
        value, kept = loss.forward(y, target, loss_mask)
        dy = _in_windows(loss.backward(kept), axis, steps)
        dparams, _ = jax.lax.scan(run_backward, jax.tree.map(jnp.zeros_like, params), (saved, dy))
        return (value, Aux(y, carry, saved)), dparams

    return TruncatedBPTT(windows, value_and_grad, whole)


def _windows(
    steps: int,
    x: PyTree,
    target: PyTree,
    *,
    mask: Mask = None,
    loss_mask: Mask = None,
    reset: Array | None = None,
) -> Window:
    """The windows of a stream, on a new first axis."""
    x, target, mask, loss_mask, reset = _checked(Window(x, target, mask, loss_mask, reset), steps)
    axis = _time_axis(x)
    if x.shape[axis] % steps:  # the padding of the last window gets False in both masks
        everywhere = jnp.ones(masks.mask_shape(x), bool)
        mask, loss_mask = (everywhere if part is None else part for part in (mask, loss_mask))

    def divided(part: Any) -> Any:
        return None if part is None else _in_windows(part, axis, steps)

    starts = None if reset is None else jnp.moveaxis(reset, -1, 0)
    return Window(divided(x), divided(target), divided(mask), divided(loss_mask), starts)


def _time_axis(x: PyTree) -> int:
    """The time axis of x, and of target, masks and y, counted from the front."""
    return len(masks.mask_shape(x)) - 1


def _checked(stream: Window, steps: int) -> Window:
    """The parts of the stream as arrays, checked to have the same leading axes."""
    who = f"truncated_bptt with steps={steps}"
    x = checks.array(who, stream.x)
    masks.time_axis(who, x)
    shape = masks.mask_shape(x)
    target = checks.array(who, stream.target, "target")
    checks.same_shape(
        who, "target's leading axes", target.shape[: len(shape)], shape, "one target for each step."
    )
    bools = []
    n = -(-shape[-1] // steps)
    for name, part, expected, remedy in (
        ("mask", stream.mask, shape, "one bool for each step of x."),
        ("loss_mask", stream.loss_mask, shape, "one bool for each step of x."),
        ("reset", stream.reset, (*shape[:-1], n), f"one bool for each of the {n} windows."),
    ):
        if part is not None:
            part = checks.bools(who, part, name)
            checks.same_shape(who, name, part.shape, expected, remedy)
        bools.append(part)
    return Window(x, target, *bools)


def _in_windows(array: Any, axis: int, steps: int) -> Any:
    """Splits the time axis into windows, on a new first axis; zeros (False) pad the last window."""
    padding = [(0, -array.shape[axis] % steps if k == axis else 0) for k in range(array.ndim)]
    array = jnp.pad(array, padding)
    shape = (*array.shape[:axis], -1, steps, *array.shape[axis + 1 :])
    return jnp.moveaxis(array.reshape(shape), axis, 0)


def _joined(windows: Any, axis: int, length: int) -> Any:
    """Undoes `_in_windows`, and removes the padding of the last window."""
    array = jnp.moveaxis(windows, 0, axis)
    array = array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])
    return jax.lax.slice_in_dim(array, 0, length, axis=axis)


def _restarted(carry: Carry, reset: Any) -> Carry:
    """The carry, with zeros in the rows where a new sequence begins."""

    def restarted(leaf: Any) -> Any:
        rows = jnp.shape(leaf)[-1 - reset.ndim : -1]
        remedy = "give arrays of shape (…, H), with the batch axes of reset before H."
        checks.same_shape("truncated_bptt", "the carry's batch axes", rows, reset.shape, remedy)
        return jnp.where(reset[..., None], jnp.zeros((), leaf.dtype), leaf)

    return carry if reset is None else jax.tree.map(restarted, carry)
