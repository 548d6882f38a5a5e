"""The contract of a recurrent cell: the equations of one step, and the gradient of one step derived by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnnets.core import checks
from fnnets.core.layer import Carry, Info, Params, Saved


def _as_saved(params: Params, carry: Carry, saved: Saved) -> Saved:
    del params, carry
    return saved


def _no_gates(carry: Carry, saved: Saved) -> dict[str, jax.Array]:
    del carry, saved
    return {}


def _as_it_is(dz: Any) -> Any:
    return dz


class Cell(NamedTuple):
    """A recurrent cell: one step and its gradient. `fn.recurrent(cell)` makes a `Layer` of it.

    Formula: with the carry s and the input x, z_t = project(x_t), s_t = step(s_{t−1}, z_t). The
    output y_t is the carry, or its first field where it has several: h of (h, c).

    Derivation: all paths to the parameters lead through the steps, so one step's gradient is enough.
    From ds_t, which holds what came back from step t+1 and dy_t, `backward` gives ds_{t−1} and dz_t.
    When all dz are known, `collect` gives the gradients of the weights, each the sum over time that is one
    matrix product over all steps (dw = Σ_t x_tᵀdz_t = Xᵀ·dZ with the steps as rows), and dx. Scanning in
    both directions, masks, carries, chunks and memory are `fn.recurrent`'s.

    Attributes:
      init: `(key, x) -> params`; x (…, D) is one step's input.
      start: `(params, batch) -> carry`: the zeros before the first step, (*batch, H) each.
      project: `(params, x) -> z`: the part of a step that does not see the carry, for all steps at once,
        x (T, …, D); z is any tree with T as first axis of its leaves.
      step: `(params, carry, z) -> carry`: the textbook equation of one step; `apply` scans it.
      forward: `(params, carry, z) -> (carry, saved)`: the same, keeping what backward needs.
      backward: `(params, carry, saved, dcarry) -> (dcarry, dz)`: one step back; the first carry is the one
        *before* the step, dcarry goes in for after it and comes out for before it. dz is any tree.
      collect: `(params, x, carry, saved, dz) -> (dparams, dx)`: all steps at once, each argument but params with
        T as first axis; x as project saw it.
      info: name and settings, or a name.
      ready: `(params, carry, saved) -> ready`: all steps at once, before the loop back. What it gives takes the
        place of saved in `backward` (collect gets saved itself): a place for whatever does not depend on
        dcarry, which is quicker at once than step by step. By default it gives saved.
      gates: optional, for those who look inside: `(carry, saved) -> {name: values}` of what squashes, all steps
        at once, with the carry *after* each; from 0 to 1, the ends of its range: σ(z), or ½·tanh(z) + ½.
      shown: optional, likewise: `(dz) -> tree`, dz as a trace is to show it. One like z, or the field `z` of one, is
        taken for the gradient of z where a comparison looks inside. By default it gives dz.
      spread: optional, for forward mode: `(params, x, carry, saved, dparams, dx) -> dz`: all steps at once, with the carry
        before each; what changes dparams and dx make of z while the carry is held. The mirror image of collect.
      tangent: optional, likewise: `(params, carry, ready, dcarry, dz) -> dcarry`: one step; what the changes of the carry
        before it and of z make of the carry after it. The mirror image of backward.

    step, forward, backward, collect, ready, spread and tangent may name `noise` as a keyword argument: the factors by which dropout
    multiplies the hidden state where a product sees it (None without). A cell that does not cannot have
    dropout inside.

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
    ready: Callable[..., Any] = _as_saved
    gates: Callable[[Carry, Saved], dict[str, jax.Array]] = _no_gates
    shown: Callable[[Any], Any] = _as_it_is
    spread: Callable[..., Any] | None = None
    tangent: Callable[..., Carry] | None = None


checks.not_a_function(Cell, "fn.recurrent(cell), a Layer that runs it over time")
