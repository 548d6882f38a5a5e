"""Real-time recurrent learning: computes the gradient of a recurrent network forward in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fnnets.core import checks, masks
from fnnets.core.arrays import float32_or_wider
from fnnets.core.layer import Carry, Layer, Mask, Params, PyTree, Saved
from fnnets.core.parameters import zero_carry
from fnnets.core.time_order import examples_first
from fnnets.gradients._by_hand import Aux
from fnnets.gradients.custom_derivatives import plain_equations
from fnnets.losses.loss import Kept, Loss, ratio
from fnnets.rnn.cell import Cell
from fnnets.rnn.recurrence import recurrent


class RTRLState(NamedTuple):
    """What `fn.rtrl` passes from step to step; its size does not depend on the number of steps."""

    carry: Carry  # as the network returns it
    influence: Any  # ds_t/dparams: (…, S, *leaf.shape) for each leaf that the carry depends on, else None
    value: jax.Array  # (), Σ_t N_t E_t
    dparams: Params  # its gradient
    weight: jax.Array  # (), Σ_t N_t; 1 where the loss is a sum


class RTRL(NamedTuple):
    """The functions of `fn.rtrl`: for one step of a stream, and for a whole sequence.

    Attributes:
      start: `(params, x, carry=None) -> state`; x is the input of one step, or its shape.
      step: `(params, state, x, target, *, mask=None, loss_mask=None) -> (state, ((value, y), dparams))`: the loss
        of one step, and the gradient of this loss through all steps before it.
      so_far: `(state) -> (value, dparams)`: the loss over all steps since the start, and its gradient.
      whole: `(params, x, target, carry=None, *, mask=None, loss_mask=None) -> ((value, Aux(y, carry, None)), dparams)`
        of a sequence, in one scan.
    """

    start: Callable[..., RTRLState]
    step: Callable[..., tuple[RTRLState, Any]]
    so_far: Callable[[RTRLState], tuple[jax.Array, Any]]
    whole: Callable[..., tuple[tuple[jax.Array, Aux], Any]]


def rtrl(net: Layer | Cell, loss: Loss) -> RTRL:
    """Real-time recurrent learning: the full gradient, computed forward in time.

    Formula: s_t, y_t = net(x_t, s_{t−1}); E_t = loss(y_t, target_t); E = Σ_t N_t E_t / Σ_t N_t if the loss is a mean,
    where N_t is its divisor at step t, and E = Σ_t E_t if it is a sum. E equals loss(y, target) of all steps at once.

    Derivation: M_t = ds_t/dparams is the total derivative of the state. The params act on s_t directly in step t,
    and through s_{t−1}:

        M_t = D_t·M_{t−1} + I_t,  M_0 = 0,  D_t = ∂s_t/∂s_{t−1},  I_t = ∂s_t/∂params at constant s_{t−1}

    They act on E_t in the same two ways. The backward of step t takes s_{t−1} as a constant, so

        dparams, ds_{t−1} = net.backward(dy_t)
        dE_t/dparams      = dparams + ds_{t−1}·M_{t−1}

    The same backward with dy = 0 and ds_t = e_k, the k-th unit vector, returns row k of D_t and of I_t.
    Backpropagation through time (BPTT) multiplies the same matrices from the left, ((ds_t·D_t)·D_{t−1})⋯, so it has
    to wait for the end of the sequence. RTRL multiplies from the right and does not wait.

    With S numbers in the carry and P in the params that it depends on, M has S·P numbers for each example, and a step
    takes S²·P products. BPTT takes P products per step, but stores all T steps. Params that act only after the last
    carry, such as those of a dense readout, do not count towards P.

    Args:
      net: a network with a carry and an output for each step, or a `Cell`.
      loss: one of `fn.losses`.

    Returns:
      An `RTRL(start, step, so_far, whole)`. x is (…, T, D) floats or (…, T) integers, the masks are (…, T), and
      y is (…, T, C). In `start` and `step`, x, target and the masks have no axis T.

      With constant params, value and dparams equal those of BPTT. In online learning the params change at each
      step and M_t lags behind: the error of the gradient is of the order of the learning rate.

      The network runs in inference mode, without dropout or batch statistics.

    Raises:
      TypeError: the network does not have a carry; the loss is not from `fn.losses`.
      ValueError: the network has time first, or does not have one output row for each step; shapes do not match.

    Example:
      One scan gives the gradient of BPTT:

      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, loss = fn.serial(fn.elman(3), fn.dense(2)), fn.losses.mse()
      >>> x, target = jax.random.normal(jax.random.key(1), (4, 7, 2)), jnp.ones((4, 7, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> rtrl = fn.rtrl(net, loss)
      >>> (value, aux), dparams = jax.jit(rtrl.whole)(params, x, target)
      >>> (same, _), grads = jax.jit(fn.value_and_grad_by_hand(net, loss))(params, x, target)
      >>> bool(abs(value - same) < 1e-6), bool(abs(dparams[0].u - grads[0].u).max() < 1e-6)
      (True, True)

      Online learning from a stream:

      >>> @jax.jit
      ... def learn(params, state, x, target):
      ...     state, ((value, y), dparams) = rtrl.step(params, state, x, target)
      ...     return jax.tree.map(lambda p, d: p - 0.1 * d, params, dparams), state, value
      >>> state = jax.jit(rtrl.start)(params, x[:, 0])
      >>> for t in range(7):
      ...     params, state, value = learn(params, state, x[:, t], target[:, t])
      >>> state.influence[0].u.shape, state.influence[1].w is None
      ((4, 3, 3, 3), True)

    References:
      Williams & Zipser, A learning algorithm for continually running fully recurrent neural networks, Neural
      Computation 1 (1989); Menick et al., Practical real time recurrent learning with a sparse approximation (ICLR 2021),
      eq. 2, whose J, I and D are M, I and D here.

    Differences: Williams & Zipser write p^k_ij for M, one unit at a time, for a fully connected network whose output
    is part of its state. Here net is any network, and its readout is not part of M.
    """
    net = recurrent(net) if isinstance(net, Cell) else net
    checks.layers("rtrl", (net,), Layer)
    examples_first("rtrl", net)
    return RTRL(partial(_start, net), partial(_step, net, loss), _so_far, partial(_whole, net, loss))


def _start(net: Layer, params: Params, x: PyTree, carry: Carry = None) -> RTRLState:
    """Returns the state before the first step."""
    batch, row = masks.mask_shape(x), _row(x)
    one = zero_carry(net, params, row)
    if not jax.tree.leaves(one):
        raise TypeError(f"rtrl: {net.info} must have a carry; give a network with a recurrent layer.")
    size = sum(leaf.size for leaf in jax.tree.leaves(one))
    reaching = _reaches_carry(net, params, row, one)
    influence = jax.tree.map(
        lambda leaf, reaches: jnp.zeros((*batch, size, *leaf.shape), leaf.dtype) if reaches else None,
        params,
        reaching,
    )
    rows = math.prod(batch)
    zeros = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), one)
    first = _examples_back(zeros, batch)
    if carry is not None:
        first = jax.tree.map(lambda leaf, zero: jnp.asarray(leaf, zero.dtype), carry, first)
    y, _, _ = jax.eval_shape(net.forward, params, row)
    nothing = jnp.zeros((), float32_or_wider(y.dtype))
    return RTRLState(first, influence, nothing, jax.tree.map(jnp.zeros_like, params), nothing)


def _step(
    net: Layer,
    loss: Loss,
    params: Params,
    state: RTRLState,
    x: PyTree,
    target: PyTree,
    *,
    mask: Mask = None,
    loss_mask: Mask = None,
) -> tuple[RTRLState, Any]:
    """Runs one step; returns its loss and the gradient of this loss through all steps before it."""
    batch = masks.mask_shape(x)
    rows = math.prod(batch)
    x = x.reshape(rows, *x.shape[len(batch) :])
    mask = None if mask is None else checks.bools("rtrl", mask).reshape(rows)

    def forward(x: PyTree, carry: Carry, mask: Mask) -> Any:
        return net.forward(params, x[None], carry, mask=None if mask is None else mask[None])

    y, carry, saved = jax.vmap(forward)(x, _examples_first(state.carry, batch), mask)
    shape = (rows, 1, *y.shape[2:])
    checks.same_shape("rtrl", "the network's output", y.shape, shape, "one row for each step.")
    y = y.reshape(*batch, *shape[2:])
    value, kept = _step_loss(loss, y, target, loss_mask)
    dy = loss.backward(kept).reshape(shape)
    derivatives = _derivatives(net, params, jax.tree.map(lambda leaf: leaf[0], carry))
    dparams, dbefore, immediate, dynamics = jax.vmap(derivatives)(saved, dy)

    def total(own: jax.Array, influence: Any) -> jax.Array:
        """dE_t/dparams: through this step, and through the carry before it."""
        if influence is None:
            return own.sum(0)
        return own.sum(0) + jnp.einsum(
            "bs,bs...->...", dbefore, influence.reshape(rows, *influence.shape[len(batch) :])
        )

    def advanced(immediate: jax.Array, influence: Any) -> Any:
        """M_t = D_t·M_{t−1} + I_t."""
        if influence is None:
            return None
        m = dynamics @ influence.reshape(rows, dynamics.shape[-1], -1)
        return (m + immediate.reshape(m.shape)).reshape(influence.shape)

    dparams = jax.tree.map(total, dparams, state.influence)
    influence = jax.tree.map(advanced, immediate, state.influence)
    n = kept.divisor if kept.mean.value else jnp.ones_like(state.weight)
    state = RTRLState(
        _examples_back(carry, batch),
        influence,
        state.value + n * value,
        jax.tree.map(lambda before, d: before + n.astype(d.dtype) * d, state.dparams, dparams),
        state.weight + n if kept.mean.value else n,
    )
    return state, ((value, y), dparams)


def _so_far(state: RTRLState) -> tuple[jax.Array, Any]:
    """Returns the loss over all steps since the start, and its gradient."""
    n = state.weight
    return ratio(state.value, n), jax.tree.map(lambda d: ratio(d, n.astype(d.dtype)), state.dparams)


def _whole(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: PyTree,
    carry: Carry = None,
    *,
    mask: Mask = None,
    loss_mask: Mask = None,
) -> tuple[tuple[jax.Array, Aux], Any]:
    """Runs a whole sequence in one scan."""
    x, target = checks.array("rtrl", x), checks.array("rtrl", target, "target")
    masks.time_axis("rtrl", x)
    axis = len(masks.mask_shape(x)) - 1

    def at(array: Any, t: Any) -> Any:
        """Slices step t in place; a scan over x would copy it with time first."""
        return None if array is None else jax.lax.dynamic_index_in_dim(array, t, axis, keepdims=False)

    def advance(loop: Any, _: None) -> Any:
        state, y, t = loop
        masks = {"mask": at(mask, t), "loss_mask": at(loss_mask, t)}
        state, ((_, row), _) = _step(net, loss, params, state, at(x, t), at(target, t), **masks)
        return (state, jax.lax.dynamic_update_index_in_dim(y, row, t, axis), t + 1), None

    shape = jax.eval_shape(lambda params, x: net.forward(params, x)[0], params, x)
    y = jnp.zeros(shape.shape, shape.dtype)
    state = _start(net, params, jax.eval_shape(lambda: at(x, 0)), carry)
    (state, y, _), _ = jax.lax.scan(advance, (state, y, jnp.int32(0)), length=x.shape[axis])
    value, dparams = _so_far(state)
    return (value, Aux(y, state.carry, None)), dparams


def _step_loss(loss: Loss, y: PyTree, target: PyTree, mask: Mask) -> tuple[jax.Array, Kept]:
    """Returns the loss of a step and its `Kept`, which tells whether the steps' losses are averaged or added."""
    value, kept = loss.forward(y, target, mask)
    if not isinstance(kept, Kept):
        raise TypeError(
            f"rtrl: the loss must be one of fn.losses, got {loss!r}; rtrl does not know how to combine the values "
            "of another loss over the steps."
        )
    return value, kept


def _row(x: PyTree) -> jax.ShapeDtypeStruct:
    """Returns the shape of one step of one example, as a sequence of length 1."""
    return jax.ShapeDtypeStruct((1, *x.shape[len(masks.mask_shape(x)) :]), x.dtype)


def _examples_first(carry: Carry, batch: tuple[int, ...]) -> Any:
    """Moves the batch axes of a carry, which come before its last axis, to one first axis."""

    def move(leaf: jax.Array) -> jax.Array:
        leaf = jnp.moveaxis(leaf, _batch_axes(leaf, batch), range(len(batch)))
        return leaf.reshape(math.prod(batch), *leaf.shape[len(batch) :])

    return jax.tree.map(move, carry)


def _examples_back(carry: Carry, batch: tuple[int, ...]) -> Any:
    """Undoes `_examples_first`."""

    def move(leaf: jax.Array) -> jax.Array:
        leaf = leaf.reshape(*batch, *leaf.shape[1:])
        return jnp.moveaxis(leaf, range(len(batch)), _batch_axes(leaf, batch))

    return jax.tree.map(move, carry)


def _batch_axes(leaf: jax.Array, batch: tuple[int, ...]) -> range:
    """Returns the batch axes of an array of the carry."""
    return range(leaf.ndim - 1 - len(batch), leaf.ndim - 1)


def _derivatives(net: Layer, params: Params, carry: Carry) -> Callable[[Any, jax.Array], Any]:
    """Returns the function `(saved, dy) -> (dparams, ds_{t−1}, I, D)` for one step of one example."""
    flat, unravel = ravel_pytree(carry)

    def backward(saved: Saved, dy: jax.Array, dcarry: jax.Array) -> tuple[Any, jax.Array]:
        dparams, _, dcarry = net.backward(params, saved, dy, unravel(dcarry))
        return dparams, ravel_pytree(dcarry)[0]

    def derivatives(saved: Saved, dy: jax.Array) -> Any:
        units = jnp.eye(flat.size, dtype=flat.dtype)
        rows = jax.vmap(lambda unit: backward(saved, jnp.zeros_like(dy), unit))(units)
        return *backward(saved, dy, jnp.zeros_like(flat)), *rows

    return derivatives


def _reaches_carry(net: Layer, params: Params, row: Any, carry: Carry) -> Any:
    """Returns a tree of bools: True for each leaf of the params that the next carry depends on.

    This reads the traced step, whose equations name their inputs and outputs. A derivative would not do: it can be 0
    at these params and not at others. An equation with a program inside, such as a scan, counts as using all its
    inputs. So a leaf may count although the carry does not depend on it, but none is missed.
    """
    step = jax.make_jaxpr(lambda params: net.forward(params, jnp.zeros(row.shape, row.dtype), carry)[1])
    with plain_equations():  # shows the equations inside a network made by `by_hand`
        program = step(params).jaxpr

    def variables(atoms: Any) -> set[Any]:
        return {atom for atom in atoms if not hasattr(atom, "val")}  # only a literal has a `val`

    used = variables(program.outvars)
    for equation in reversed(program.eqns):
        if used & set(equation.outvars):
            used |= variables(equation.invars)
    return jax.tree.unflatten(jax.tree.structure(params), [var in used for var in program.invars])
