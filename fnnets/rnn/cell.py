"""The contract of a recurrent cell: the equations of one step, and the gradient of one step derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnnets.core import checks
from fnnets.core.layer import Carry, Info, Params, Saved


def _ready_is_saved(params: Params, carry: Carry, saved: Saved) -> Saved:
    del params, carry
    return saved


def _no_gates(carry: Carry, saved: Saved) -> dict[str, jax.Array]:
    del carry, saved
    return {}


def _unchanged(dz: Any) -> Any:
    return dz


class Cell(NamedTuple):
    """A recurrent cell: one step and its gradient. `fn.recurrent(cell)` turns it into a `Layer`.

    Formula: with the carry s and the input x, z_t = project(x_t), s_t = step(s_{t−1}, z_t). The
    output y_t is the carry, or its first field if it has several: h of (h, c).

    Derivation: all paths to the parameters lead through the steps, so one step's gradient is enough.
    ds_t is the sum of what step t+1 passes back and of dy_t. From it, `backward` computes ds_{t−1} and dz_t.
    When all dz are known, `collect` computes dx and the gradients of the weights. Each of these is a sum over time,
    and one matrix product over all steps: dw = Σ_t x_tᵀdz_t = xᵀ·dz with the steps as rows. `fn.recurrent` adds the
    scans in both directions, masks, carries, chunks and memory.

    Attributes:
      init: `(key, x) -> params`; x (…, D) is one step's input.
      start: `(params, batch) -> carry`: the zeros before the first step, each (*batch, H).
      project: `(params, x) -> z`: the part of a step that does not depend on the carry, for all steps at once.
        x is (T, …, D); z is any tree whose leaves have T as their first axis.
      step: `(params, carry, z) -> carry`: the textbook equation of one step, which `apply` scans.
      forward: `(params, carry, z) -> (carry, saved)`: the same, and the values that backward needs.
      backward: `(params, carry, saved, dcarry) -> (dcarry, dz)`: one step back. The carry is the one
        *before* the step. dcarry goes in as the gradient of the carry after the step, and comes out as that of the
        carry before it. dz is any tree.
      collect: `(params, x, carry, saved, dz) -> (dparams, dx)`: all steps at once. Every argument except
        params has T as its first axis. x is what project received.
      info: an `Info` with name and settings, or a name.
      ready: optional: `(params, carry, saved) -> ready`: all steps at once, before the backward loop. `backward`
        receives its result instead of saved; `collect` still receives saved. Compute here what does not depend on
        dcarry: all steps at once are faster than one by one. By default it returns saved.
      gates: optional, for monitoring: `(carry, saved) -> {name: values}`: the squashed values of all steps at once,
        scaled to the range from 0 to 1: σ(z), or ½·tanh(z) + ½. The carry is the one *after* each step.
      shown: optional, for monitoring: `(dz) -> tree`: dz as a trace shows it. If the tree, or its field `z`, has the
        structure of z, comparisons take it as the gradient of z. By default it returns dz.
      spread: optional, for forward mode: `(params, x, carry, saved, dparams, dx) -> dz`: the change of z due to dparams
        and dx with a fixed carry, for all steps at once. The carry is the one before each step. It mirrors collect.
      tangent: optional, for forward mode: `(params, carry, ready, dcarry, dz) -> dcarry`: the change of the carry after
        a step due to the changes of z and of the carry before the step. It mirrors backward.

    step, forward, backward, collect, ready, spread and tangent may take a keyword argument `noise`: the factors by
    which dropout multiplies the hidden state before a product, or None without dropout. A cell without it does not
    support recurrent dropout.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> def flat(a): return a.reshape(-1, a.shape[-1])
      >>> leaky = fn.Cell(  # h_t = a·h_{t−1} + x_t·w
      ...     init=lambda key, x: {"a": jnp.full(3, 0.5), "w": jax.random.normal(key, (x.shape[-1], 3))},
      ...     start=lambda p, batch: jnp.zeros((*batch, 3)),
      ...     project=lambda p, x: x @ p["w"],
      ...     step=lambda p, h, z: p["a"] * h + z,
      ...     forward=lambda p, h, z: (p["a"] * h + z, None),
      ...     backward=lambda p, h, saved, dh: (p["a"] * dh, dh),
      ...     collect=lambda p, x, h, saved, dz: (
      ...         {"a": flat(h * dz).sum(0), "w": flat(x).T @ flat(dz)}, dz @ p["w"].T
      ...     ),
      ...     info="leaky",
      ... )
      >>> net, x = fn.recurrent(leaky), jax.random.normal(jax.random.key(1), (4, 6, 2))
      >>> fn.compare(net, net.init(jax.random.key(0), x), x).ok
      True
    """

    init: Callable[[Any, Any], Params]
    start: Callable[[Params, tuple[int, ...]], Carry]
    project: Callable[[Params, Any], Any]
    step: Callable[..., Carry]
    forward: Callable[..., tuple[Carry, Saved]]
    backward: Callable[..., tuple[Carry, Any]]
    collect: Callable[..., tuple[Params, Any]]
    info: Info | str = "cell"
    ready: Callable[..., Any] = _ready_is_saved
    gates: Callable[[Carry, Saved], dict[str, jax.Array]] = _no_gates
    shown: Callable[[Any], Any] = _unchanged
    spread: Callable[..., Any] | None = None
    tangent: Callable[..., Carry] | None = None


checks.not_a_function(Cell, "fn.recurrent(cell), a Layer that runs it over time")
