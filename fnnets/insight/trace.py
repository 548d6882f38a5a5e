"""Every intermediate of a backward pass, by name and time step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import recording
from fnnets.core.layer import Layer
from fnnets.gradients.custom_derivatives import plain_equations
from fnnets.insight.layer_paths import backward_order
from fnnets.rnn.step_records import Traced


def trace_backward(
    layer: Layer,
    params: Any,
    x: Any,
    dy: Any,
    *,
    key: Any = None,
    train: bool = False,
    mask: Any = None,
    carry: Any = None,
    dcarry: Any = None,
) -> dict[str, dict[str, Any]]:
    """Every intermediate of the backward pass, by name and time step.

    Formula: with E a scalar and d∗ = ∂E/∂∗, the gradient dy of every child's output; for a recurrent layer with the
    carry s_t = (h_t, c_t) also, in the order in which BPTT computes them, the gradients

        dh, dc                  of the carry after step t: dy_t and what step t+1 returns
        dz_i, dz_f, dz_g, dz_o  of the gates before their activations
        dh_before, dc_before    that step t returns to the carry before it: dh_{t−1} = dy_{t−1} + dh_before_t

    dc_t leaves out the path through h_t, which is inside step t.

    Args:
      layer: any layer or network; a layer without children appears under its own name.
      params: its parameters.
      x: its input.
      dy: the gradient of its output.
      key, train, mask, carry: as in `layer.forward`.
      dcarry: the gradient of the last carry; None for zeros.

    Returns:
      A dict from paths such as "2.residual/0.lstm" to dicts from names to arrays, in the order of the backward pass.
      Arrays have the layer's own axes, (…, T, H), so `dz_f[..., t, :]` is step t. The names are d and the carry's field
      (dh for a carry of one array), and d and the field or key of the cell's dz (dz for one array), split into blocks
      where the params name them. Inside a `stack` the first axis is the copy. In a layer that reads x from its end,
      t counts from the end. It works under jit and vmap.

    Raises:
      TypeError, ValueError: the layers refuse their input.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.serial(fn.lstm(3), fn.dense(2)), jnp.ones((4, 7, 2))
      >>> trace = fn.trace_backward(net, net.init(jax.random.key(0), x), x, jnp.ones((4, 7, 2)))
      >>> list(trace), list(trace["0.lstm"])[:4]
      (['1.dense', '0.lstm'], ['dy', 'dh', 'dc', 'dz_i'])
      >>> trace["0.lstm"]["dz_f"].shape
      (4, 7, 3)

    References:
      Werbos, Backpropagation through time, Proc. IEEE 78 (1990).
    """

    def back(params: Any, saved: Any, dy: Any, dcarry: Any) -> Any:
        return layer.backward(params, saved, recording.note("dy", dy), dcarry)

    with plain_equations():
        _, _, saved = layer.forward(params, x, carry, key=key, train=train, mask=mask)
        _, collected = recording.collect("gradients", back, params, saved, dy, dcarry)
    return named(layer, collected)


def named(layer: Layer, collected: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The collected values by path and name, in the order of the backward pass, without a network's own dy."""
    if layer.info.children:
        collected = {path: values for path, values in collected.items() if path}
    trace = {}
    for path in sorted(collected, key=backward_order):
        values = collected[path]
        stages = stages_of(values["steps"]).values() if "steps" in values else ()
        steps = {name: leaf for stage in stages for name, leaf in stage.items()}
        trace[path or layer.info.name] = {"dy": values["dy"]} | steps
    return trace


def stages_of(steps: Traced) -> dict[str, dict[str, jax.Array]]:
    """The quantities of a recurrent layer's steps, by stage and name: after the step, inside it, and before it."""
    blocks = dict(steps.blocks.value)
    inside: dict[str, jax.Array] = {}
    after = {f"d{name}": leaf for name, leaf in leaves(steps.after, "h").items()}
    before = {f"d{name}_before": leaf for name, leaf in leaves(steps.before, "h").items()}
    for name, leaf in leaves(steps.dz, "z").items():
        own = f"dz.{name}" if f"d{name}" in ("dy", *after) else f"d{name}"
        inside |= in_blocks(own, leaf, blocks)
    return {"after": after, "dz": inside, "before": before}


def in_blocks(name: str, leaf: jax.Array, blocks: dict[int, tuple[str, ...]]) -> dict[str, jax.Array]:
    """An array split into the named blocks for its length; whole if there are none."""
    if (parts := blocks.get(leaf.shape[-1])) is None:
        return {name: leaf}
    pieces = zip(parts, jnp.split(leaf, len(parts), -1), strict=True)
    return {f"{name}_{part}": piece for part, piece in pieces}


def leaves(tree: Any, alone: str) -> dict[str, jax.Array]:
    """The leaves of a tree by field, key or index; by the name `alone` if the tree is one array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="_") or alone: leaf for path, leaf in leaves}
