"""Runs a cell over time: both scans, masks, carries and memory, once for all cells."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from fnnets.core import checks, recording
from fnnets.core.arrays import zero_where_masked
from fnnets.core.devices import varying_like
from fnnets.core.layer import Info, Layer, Recurrence, Static, keep_stats, named
from fnnets.rnn import recomputed_segments
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import Noise, takes_noise
from fnnets.rnn.run import Run, Steps, output
from fnnets.rnn.run_options import Memory, Options, RunOptions, check_options, options_of
from fnnets.rnn.step_records import Gates, Stepped, Traced, blocks_of, time_at, time_in_front


class RecurrentSaved(NamedTuple):
    """The values that a recurrent layer saves for its backward."""

    steps: Steps  # time first; with recomputed segments, in the layer's layout
    noise: Any  # the source of dropout's factors, see `Noise.start`
    first: Any  # the carry before the first step, or before each segment
    after: Any  # the carry after each step, time first; None with recomputed segments
    cell: Any  # what the cell saved at each step; None with recomputed segments
    like: Static  # the dtype of x, and the structure and dtypes of the carry passed in


def recurrent(cell: Cell, **run: Unpack[RunOptions]) -> Layer:
    """A layer that runs a cell over time, trained by backpropagation through time (BPTT).

    Formula: s_t = step(s_{t−1}, x_t), y_t = s_t, or its first field h_t. Where the mask is False,
    s_t = s_{t−1} and y_t = 0.

    Derivation: with E a scalar and ds_t = ∂E/∂s_t, including all later steps, the chain rule backward in time is

        ds_t     ← ds_t + dy_t                 s_t is used in y_t and in step t+1
        ds_{t−1}, dz_t = cell.backward(ds_t)   one step
        dparams, dx    = cell.collect(dz)      the sum over t, one matrix product for each weight

    from ds_T, which is dcarry or 0, to ds_0, the gradient of the first carry. A masked step passes ds on unchanged and
    has dz = 0. Autodiff of the same scan adds to each weight's gradient T times inside the loop. Here one product
    after the loop is enough.

    Args:
      cell: a `Cell`.
      **run: keywords that every recurrent layer takes:
        memory: "all" keeps every step, which is the fastest, and the default. A number n keeps only the carry at
          the start of each segment of n steps, and backward recomputes the rest. "sqrt" stands for n = √T: memory
          grows with √T instead of T, at the cost of one more forward pass. The gradients are the same.
        unroll: the number of steps in one iteration of the compiled loop, 1 by default.
        time_major: if True, x, y and mask have time first: (T, …, D). This saves two transposed copies.
        recurrent_dropout: the rate of dropout on the hidden state before the recurrent products, 0 by default.
        variational: if True, the default, one draw for all time steps (Gal & Ghahramani); if False, one for each.

    Returns:
      A `Layer` with the params of the cell, x (…, T, D) floats, y (…, T, H) in the dtype of the params, and mask (…, T)
      bools. The carry is that of the cell, (…, H) each. forward takes the first carry, or None for zeros, and returns
      the last one; backward takes the gradient of the last carry and returns that of the first.

    Raises:
      TypeError: cell is not a `Cell`; x is not floating point; a carry has a wrong structure; a keyword is unknown.
      ValueError: x has fewer than two axes; a mask or carry has a wrong shape; training with dropout has no key.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.lstm(3, memory="sqrt"), jnp.ones((4, 20, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> y, carry, saved = net.forward(params, x)
      >>> y.shape, carry.h.shape
      ((4, 20, 3), (4, 3))

    References:
      Werbos, Backpropagation through time, Proc. IEEE 78 (1990); Chen, Xu, Zhang & Guestrin, Training deep nets
      with sublinear memory cost (2016), for memory="sqrt"; Gal & Ghahramani, A theoretically grounded
      application of dropout in recurrent neural networks (2016).

    Differences: Keras also takes masks, but repeats the last valid output where the mask is False. flax takes lengths,
    and PyTorch packed sequences; both allow padding only at the end.
    """
    options = options_of(recurrent, run)
    if not isinstance(cell, Cell):
        raise TypeError(f"recurrent: expected a Cell, got {type(cell).__name__}; make one with fn.Cell(…).")
    info = cell.info if isinstance(cell.info, Info) else Info(cell.info)
    return of_cell(cell, info, options)


def of_cell(cell: Cell, info: Info, options: Options) -> Layer:
    """The layer that runs a cell; its info contains the cell and the options."""
    _check(info, cell, options)
    info = dataclasses.replace(info, recurrence=Recurrence(cell, options), time_major=options.time_major)
    run = Run(cell, Noise(options.recurrent_dropout, options.variational), options.unroll)
    time_major = options.time_major

    def init(key: Any, x: Any) -> Any:
        x = checks.floats(info, x)
        checks.rank(info, x, 2)
        one = x.shape[1:] if time_major else (*x.shape[:-2], x.shape[-1])
        return cell.init(key, jax.ShapeDtypeStruct(one, x.dtype))

    def enter(params: Any, x: Any, carry: Any, key: Any, train: bool, mask: Any) -> tuple[Steps, Any, Any]:
        """The steps (padding zeroed, in the dtype of the params and the layout of x), the first carry, the noise."""
        x = checks.floats(info, x)
        checks.rank(info, x, 2)
        axis = axis_of(x)
        if mask is not None:
            mask = checks.bools(info, mask)
            checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "give one bool for each step of x.")
            x = zero_where_masked(x, mask)
        first = _carry(info, "carry", carry, cell.start(params, x.shape[:axis] + x.shape[axis + 1 : -1]))
        first = varying_like(first, params, x, key, mask)
        noise = run.noise.start(info, key, train, output(first))
        return Steps(x.astype(output(first).dtype), jnp.arange(x.shape[axis]), mask), first, noise

    def axis_of(x: jax.Array) -> int:
        """The time axis of x, counted from the front; the mask has the same one."""
        return 0 if time_major else x.ndim - 2

    def time_first(steps: Steps) -> Steps:
        x, mask = time_in_front((steps.x, steps.mask), axis_of(steps.x))
        return Steps(x, steps.t, mask)

    def record(params: Any, steps: Steps, after: Any, cell_saved: Any, axis: int) -> None:
        """Records the gates or the steps, if a recording collects them."""
        if recording.collects("gates"):
            mask = time_at(steps.mask, axis)
            recording.note("gates", Gates(time_at(cell.gates(after, cell_saved), axis), mask))
        if recording.collects("values"):
            z, gates, after = time_at(
                (cell.project(params, steps.x), cell.gates(after, cell_saved), after), axis
            )
            recording.note("steps", Stepped(z, gates, after, Static(blocks_of(params)), Static(axis)))

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        steps, first, noise = enter(params, x, None, key, train, mask)
        y = run.plain(params, first, time_first(steps), noise)
        return zero_where_masked(jnp.moveaxis(y, 0, axis_of(steps.x)), steps.mask)

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Any, RecurrentSaved]:
        leaves, structure = jax.tree.flatten(carry)
        like = Static((jnp.result_type(x), structure, tuple(map(jnp.result_type, leaves))))
        steps, first, noise = enter(params, x, carry, key, train, mask)
        axis, length = axis_of(steps.x), segment_length(options.memory, steps.t.size)
        if recording.collects("probes"):
            # A comparison records gradients inside every step, and does not call this backward.
            length = None
        if length is None or recording.collects("gates", "values"):
            ordered = time_first(steps)
            last, after, cell_saved = run.forward(params, first, ordered, noise)
            record(params, ordered, after, cell_saved, axis)
        if length is None:
            saved = RecurrentSaved(ordered, noise, first, after, cell_saved, like)
            return zero_where_masked(jnp.moveaxis(output(after), 0, axis), steps.mask), last, saved
        y, last, before = recomputed_segments.forward(run, params, first, steps, noise, length, axis)
        return zero_where_masked(y, steps.mask), last, RecurrentSaved(steps, noise, before, None, None, like)

    def backward(params: Any, saved: RecurrentSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        steps, noise, first, after, cell_saved, like = saved
        axis, length = axis_of(dy), segment_length(options.memory, steps.t.size)
        last = _carry(info, "dcarry", dcarry, cell.start(params, dy.shape[:axis] + dy.shape[axis + 1 : -1]))
        last = varying_like(last, params, saved, dy)
        dy = dy.astype(output(last).dtype)
        if length is None:
            dy = jnp.moveaxis(dy, axis, 0)
            dparams, dx, dfirst, shown = run.backward(
                params, first, after, cell_saved, steps, noise, dy, last
            )
        else:
            dparams, dx, dfirst, shown = recomputed_segments.backward(
                run, params, first, steps, noise, dy, last, length, axis
            )
        if shown is not None:
            traced = Traced(**time_at(shown, axis), blocks=Static(blocks_of(params)), axis=Static(axis))
            recording.note("steps", traced)
        dx = zero_where_masked(dx, steps.mask)
        dx = dx if length else jnp.moveaxis(dx, 0, axis)
        x_dtype, structure, dtypes = like.value
        if dtypes:
            leaves = zip(jax.tree.leaves(dfirst), dtypes, strict=True)
            dfirst = structure.unflatten([leaf.astype(dtype) for leaf, dtype in leaves])
        return dparams, dx.astype(x_dtype), dfirst

    def tangent(
        params: Any, saved: RecurrentSaved, dparams: Any, dx: Any, dcarry: Any = None
    ) -> tuple[Any, Any]:
        steps, noise, first, after, cell_saved, _ = saved
        axis = axis_of(dx)
        dx = jnp.moveaxis(dx.astype(output(first).dtype), axis, 0)
        dx = zero_where_masked(dx, steps.mask)
        start = _carry(info, "dcarry", dcarry, jax.tree.map(jnp.zeros_like, first))
        dy, last = run.tangent(params, first, after, cell_saved, steps, noise, dparams, dx, start)
        return jnp.moveaxis(zero_where_masked(dy, steps.mask), 0, axis), last

    forward_mode = tangent if cell.tangent is not None and options.memory == "all" else None
    return named(Layer(init, apply, forward, backward, keep_stats, info, forward_mode))


def segment_length(memory: Memory, steps: int) -> int | None:
    """The number of steps in a segment; None without segments."""
    if memory == "all":
        return None
    if memory != "sqrt":
        return max(1, min(int(memory), steps))
    least = max(1, math.ceil(math.sqrt(steps)))
    # A length that divides the steps needs no padding.
    return next((length for length in range(least, min(2 * least, steps)) if steps % length == 0), least)


def _carry(info: Info, name: str, carry: Any, zeros: Any) -> Any:
    """The carry in the structure and dtypes of `zeros`, or zeros for None; refuses a wrong structure or shape."""
    if carry is None:
        return zeros
    structure: Any = jax.tree.structure(zeros)
    leaves = jax.tree.leaves(carry)
    if len(leaves) != structure.num_leaves:
        what = type(zeros).__name__ if structure.num_leaves > 1 else "one array"
        raise TypeError(
            f"{info}: {name} must be {what}, got {jax.tree.structure(carry)}; pass what forward returned, or None."
        )
    for leaf, zero in zip(leaves, jax.tree.leaves(zeros), strict=True):
        remedy = "give one row for each sequence of x."
        checks.same_shape(info, name, jnp.shape(leaf), zero.shape, remedy)
    return jax.tree.map(lambda leaf, zero: jnp.asarray(leaf, zero.dtype), structure.unflatten(leaves), zeros)


def _check(info: Info, cell: Cell, options: Options) -> None:
    check_options(str(info), options)
    functions = (cell.step, cell.forward, cell.backward, cell.collect)
    if options.recurrent_dropout and not all(map(takes_noise, functions)):
        raise ValueError(
            f"{info}: recurrent_dropout needs a cell whose step, forward, backward and collect take `noise`; add that "
            "argument to them, or leave recurrent_dropout out."
        )
