"""A cell run over time: the scan, the scan back, masks, carries and memory, once for all cells."""

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
from fnnets.rnn.step_records import Gates, Stepped, Traced, blocks_of, moved


class RecurrentSaved(NamedTuple):
    """What a recurrent layer keeps for its backward."""

    steps: Steps  # time first; where segments are computed again, as the layer has it
    noise: Any  # what dropout's factors are made of
    first: Any  # the carry before the first step, or before each segment
    after: Any  # the carry after each step, time first; None where segments are computed again
    cell: Any  # what the cell saved of each step; None likewise
    like: Static  # the dtype of x; the given carry's structure and dtypes


def recurrent(cell: Cell, **run: Unpack[RunOptions]) -> Layer:
    """A cell run over time, trained by backpropagation through time (BPTT).

    Formula: s_t = step(s_{t−1}, x_t), y_t = s_t, or its first field h_t; where the mask is False the
    state is held, s_t = s_{t−1}, and y_t = 0.

    Derivation: with E a scalar and ds_t = ∂E/∂s_t, counting all later steps, the chain rule backward in time is

        ds_t     ← ds_t + dy_t                 the two ways in which s_t is used
        ds_{t−1}, dz_t = cell.backward(ds_t)   one step
        dparams, dx    = cell.collect(dz)      the sum over t, one matrix product for each weight

    from ds_T = dcarry, or 0, to the carry's gradient ds_0. A masked step hands ds on and has dz = 0. An autodiff
    of the same scan adds each weight's gradient T times inside the loop; outside of it one product does.

    Args:
      cell: a `Cell`.
      **run: how it is run; every recurrent layer takes these keywords:
        memory: what forward keeps: "all" steps (the default, and the fastest), or the state at the start of each
          segment of so many steps ("sqrt": √T), the rest of which is computed again on the way
          back: √T instead of T in memory, for one more forward in time. The gradients are the same.
        unroll: how many steps the compiled loop does at a time, 1 by default.
        time_major: if True, x, y and mask have time first: (T, …, D); it saves two transposed copies.
        recurrent_dropout: the rate of dropout on the hidden state that the products of the recurrence see, 0 by
          default.
        variational: one draw for all time steps (Gal & Ghahramani; the default), or, if False, one for each.

    Returns:
      A `Layer` on x (…, T, D), floats, with y (…, T, H) in the dtype of the params. The carry is the cell's,
      (…, H) each: forward takes one (None for zeros) and gives the last; backward takes and
      gives its gradient. mask (…, T), bools. saved is the layer's own.

    Raises:
      TypeError: x holds no floats; a carry of another structure; a keyword that is not one of these.
      ValueError: x has fewer than two axes; a mask or carry of another shape; training with dropout and no key.

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

    Differences: Keras takes masks too, but gives the last valid output again where the mask is False; flax takes
    lengths; PyTorch takes packed sequences, which have no gaps. There, padding is at the end alone.
    """
    options = options_of(recurrent, run)
    if not isinstance(cell, Cell):
        raise TypeError(f"recurrent: expected a Cell, got {type(cell).__name__}; make one with fn.Cell(…).")
    info = cell.info if isinstance(cell.info, Info) else Info(cell.info)
    return of_cell(cell, info, options)


def of_cell(cell: Cell, info: Info, options: Options) -> Layer:
    """The layer of a cell; its info says which cell it runs, and how."""
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
        """The steps (without padding, in the dtype of the params, time where it was), the first carry, the noise."""
        x = checks.floats(info, x)
        checks.rank(info, x, 2)
        axis = axis_of(x)
        if mask is not None:
            mask = checks.bools(info, mask)
            checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each step of x.")
            x = zero_where_masked(x, mask)
        first = _carry(info, "carry", carry, cell.start(params, x.shape[:axis] + x.shape[axis + 1 : -1]))
        first = varying_like(first, params, x, key, mask)
        noise = run.noise.start(info, key, train, output(first))
        return Steps(x.astype(output(first).dtype), jnp.arange(x.shape[axis]), mask), first, noise

    def axis_of(x: jax.Array) -> int:
        """Where time is, counted from the front: the same for x, its mask, and whatever else there is of each step."""
        return 0 if time_major else x.ndim - 2

    def time_first(steps: Steps) -> Steps:
        x, mask = moved((steps.x, steps.mask), axis_of(steps.x), back=True)
        return Steps(x, steps.t, mask)

    def show(params: Any, steps: Steps, after: Any, kept: Any, axis: int) -> None:
        """Hands the steps to those who ask for them."""
        if recording.collects("gates"):
            mask = moved(steps.mask, axis)
            recording.note("gates", Gates(moved(cell.gates(after, kept), axis), mask))
        if recording.collects("values"):
            z, gates, after = moved((cell.project(params, steps.x), cell.gates(after, kept), after), axis)
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
            # A comparison asks for the gradients inside all steps, and no backward of ours follows.
            length = None
        if length is None or recording.collects("gates", "values"):
            ordered = time_first(steps)
            last, after, kept = run.forward(params, first, ordered, noise)
            show(params, ordered, after, kept, axis)
        if length is None:
            saved = RecurrentSaved(ordered, noise, first, after, kept, like)
            return zero_where_masked(jnp.moveaxis(output(after), 0, axis), steps.mask), last, saved
        y, last, before = recomputed_segments.forward(run, params, first, steps, noise, length, axis)
        return zero_where_masked(y, steps.mask), last, RecurrentSaved(steps, noise, before, None, None, like)

    def backward(params: Any, saved: RecurrentSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        steps, noise, first, after, kept, like = saved
        axis, length = axis_of(dy), segment_length(options.memory, steps.t.size)
        last = _carry(info, "dcarry", dcarry, cell.start(params, dy.shape[:axis] + dy.shape[axis + 1 : -1]))
        last = varying_like(last, params, saved, dy)
        dy = dy.astype(output(last).dtype)
        if length is None:
            dy = jnp.moveaxis(dy, axis, 0)
            dparams, dx, dfirst, shown = run.backward(params, first, after, kept, steps, noise, dy, last)
        else:
            dparams, dx, dfirst, shown = recomputed_segments.backward(
                run, params, first, steps, noise, dy, last, length, axis
            )
        if shown is not None:
            traced = Traced(**moved(shown, axis), blocks=Static(blocks_of(params)), axis=Static(axis))
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
        steps, noise, first, after, kept, _ = saved
        axis = axis_of(dx)
        dx = jnp.moveaxis(dx.astype(output(first).dtype), axis, 0)
        dx = zero_where_masked(dx, steps.mask)
        start = _carry(info, "dcarry", dcarry, jax.tree.map(jnp.zeros_like, first))
        dy, last = run.tangent(params, first, after, kept, steps, noise, dparams, dx, start)
        return jnp.moveaxis(zero_where_masked(dy, steps.mask), 0, axis), last

    offered = tangent if cell.tangent is not None and options.memory == "all" else None
    return named(Layer(init, apply, forward, backward, keep_stats, info, offered))


def segment_length(memory: Memory, steps: int) -> int | None:
    """How many steps a segment has; None where there are no segments."""
    if memory == "all":
        return None
    if memory != "sqrt":
        return max(1, min(int(memory), steps))
    least = max(1, math.ceil(math.sqrt(steps)))
    # A length that divides the steps leaves nothing to be filled up.
    return next((length for length in range(least, min(2 * least, steps)) if steps % length == 0), least)


def _carry(info: Info, name: str, given: Any, zeros: Any) -> Any:
    """The carry as it is given, or zeros; refuses one of another structure or shape."""
    if given is None:
        return zeros
    structure: Any = jax.tree.structure(zeros)
    leaves = jax.tree.leaves(given)
    if len(leaves) != structure.num_leaves:
        what = type(zeros).__name__ if structure.num_leaves > 1 else "one array"
        raise TypeError(
            f"{info}: {name} must be {what}, got {jax.tree.structure(given)}; pass what forward gave, or None."
        )
    for leaf, zero in zip(leaves, jax.tree.leaves(zeros), strict=True):
        remedy = "one row for each sequence of x."
        checks.same_shape(info, name, jnp.shape(leaf), zero.shape, remedy)
    return jax.tree.map(lambda leaf, zero: jnp.asarray(leaf, zero.dtype), structure.unflatten(leaves), zeros)


def _check(info: Info, cell: Cell, options: Options) -> None:
    check_options(str(info), options)
    functions = (cell.step, cell.forward, cell.backward, cell.collect)
    if options.recurrent_dropout and not all(map(takes_noise, functions)):
        raise ValueError(
            f"{info}: recurrent_dropout needs a cell whose step, forward, backward and collect take `noise`."
        )
