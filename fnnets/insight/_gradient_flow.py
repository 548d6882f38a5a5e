"""How gradients vanish or explode: through time, through depth, and in saturated gates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from fnnets.core import checks, recording
from fnnets.core.arrays import at_least_float32
from fnnets.core.layer import Layer
from fnnets.core.parameters import zero_carry
from fnnets.core.time_order import time_first
from fnnets.gradients.custom_derivatives import plain_equations
from fnnets.insight._intermediates import intermediates
from fnnets.insight.layer_paths import place_of
from fnnets.insight.trace import trace_backward
from fnnets.rnn.step_records import squashed

MARGIN = 0.05  # the share of a squashing function's range that counts as saturated, at either end


class GradientFlow(NamedTuple):
    """The result of `gradient_flow`. The fields over time are None for a network without a carry."""

    through_time: jax.Array | None  # (T, T): at [t, k] the norm of ∂s_t/∂s_k, 0 for k > t
    singular: jax.Array | None  # (T,): the largest singular value of ∂s_t/∂s_{t−1}
    through_depth: dict[str, jax.Array]  # the norm of the gradient that reaches each child
    saturated: dict[str, jax.Array]  # the share of saturated values of each gate and activation


def gradient_flow(layer: Layer, params: Any, x: Any, *, dy: Any = None, mask: Any = None) -> GradientFlow:
    """Shows where gradients vanish or explode: through time, through depth, and in saturated gates.

    Formula: with s_t the carry after step t (h, or h and c, of all layers together) and J_t = ∂s_t/∂s_{t−1},

        through_time[t, k] = ‖∂s_t/∂s_k‖ = ‖J_t·J_{t−1}⋯J_{k+1}‖,  singular[t] = ‖J_t‖
        through_depth[i]   = ‖∂E/∂h_i‖, h_i the output of child i, E = Σ dy ⊙ y

    The norm of a matrix is its largest singular value, averaged over the examples. An error E_t of step t reaches
    step k with ‖∂E_t/∂s_k‖ ≤ ‖∂E_t/∂s_t‖·through_time[t, k]; this bound is tight. If the singular values of all steps
    are below 1, it vanishes exponentially in t − k; it can only explode if some are above 1. A value is saturated
    within 5 % of either end of its range: σ below 0.05 or above 0.95, |tanh| above 0.9. Less than a fifth of the
    largest slope is left there.

    Args:
      layer: any layer or network.
      params: its parameters.
      x: its input; a single array for a recurrent network.
      dy: the gradient of the output, for `through_depth`; standard normal by default.
      mask: as in `layer.apply`; a masked step has J_t = 1 and does not count in `saturated`.

    Returns:
      A `GradientFlow`, at inference. through_depth has a norm over all examples for each path, in the order of the
      calls. saturated has a share for each "path/gate" and for the "path" of each activation, without the path if the
      layer has no children. A `stack` has one value for each copy, (depth,). The run time grows with T²·S³ for a carry
      of S numbers: use a small network or few examples.

    Raises:
      TypeError, ValueError: the layers refuse their input.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.lstm(3), jax.random.normal(jax.random.key(1), (4, 7, 2))
      >>> flow = fn.gradient_flow(net, net.init(jax.random.key(0), x), x)
      >>> flow.through_time.shape, flow.singular.shape, sorted(flow.saturated)
      ((7, 7), (7,), ['f', 'g', 'i', 'o'])

    References:
      Bengio, Simard & Frasconi, Learning long-term dependencies with gradient descent is difficult (1994); Pascanu,
      Mikolov & Bengio, On the difficulty of training recurrent neural networks (2013), section 2; Glorot & Bengio,
      Understanding the difficulty of training deep feedforward neural networks (2010).
    """
    if dy is None:
        y = jax.eval_shape(lambda params, x: layer.apply(params, x, mask=mask), params, x)
        dy = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape, leaf.dtype), y)
    through_time, singular = _through_time(layer, params, x, mask)
    depth = _through_depth(layer, trace_backward(layer, params, x, dy, mask=mask))
    return GradientFlow(through_time, singular, depth, _saturated(layer, params, x, mask))


def _through_time(layer: Layer, params: Any, x: Any, mask: Any) -> tuple[Any, Any]:
    """The norms of the products of the Jacobians, and of each Jacobian."""
    if not hasattr(x, "shape"):
        return None, None
    x = checks.array(layer.info, x)
    trailing = 0 if jnp.issubdtype(x.dtype, jnp.integer) else 1
    if zero_carry(layer, params, x) is None:
        return None, None
    if time_first(layer):
        x = jnp.moveaxis(x, 0, x.ndim - 1 - trailing)
        mask = None if mask is None else jnp.moveaxis(mask, 0, -1)
    steps = x.shape[x.ndim - 1 - trailing]
    x = x.reshape(-1, *x.shape[x.ndim - 1 - trailing :])
    mask = None if mask is None else mask.reshape(-1, steps)
    start, unravel = ravel_pytree(zero_carry(layer, params, x[0, :1]))

    def advance(state: Any, row: Any, valid: Any) -> Any:
        _, carry, _ = layer.forward(params, row, unravel(state), mask=valid)
        return ravel_pytree(carry)[0]

    def step(now: Any, at: Any) -> Any:
        state, products = now
        t, row, valid = at
        inputs = (row[None], None if valid is None else valid[None])
        jacobian = jax.jacrev(advance)(state, *inputs)
        products = (jacobian @ products).at[t].set(jnp.eye(state.size, dtype=state.dtype))
        return (advance(state, *inputs), products), (_norms(products), _norms(jacobian))

    def example(at: Any) -> Any:
        products = jnp.zeros((steps, start.size, start.size), start.dtype)
        return jax.lax.scan(step, (start, products), (jnp.arange(steps), *at))[1]

    with plain_equations():
        norms, singular = jax.lax.map(example, (x, mask))
    return norms.mean(0), singular.mean(0)


def _norms(matrices: jax.Array) -> jax.Array:
    """The largest singular value of each matrix."""
    exact = at_least_float32(matrices)
    return jnp.linalg.svd(exact, compute_uv=False)[..., 0]


def _through_depth(layer: Layer, trace: dict[str, dict[str, Any]]) -> dict[str, jax.Array]:
    norms = {}
    for path, values in reversed(trace.items()):
        copies = place_of(layer, path).copies if layer.info.children else 0
        squares = [_over_all(jnp.square(leaf), copies, jnp.sum) for leaf in jax.tree.leaves(values["dy"])]
        norms[path] = jnp.sqrt(sum(squares))
    return norms


def _saturated(layer: Layer, params: Any, x: Any, mask: Any) -> dict[str, jax.Array]:
    """The saturated shares of gates, and of the outputs of squashing children."""
    with plain_equations():
        _, collected = recording.collect(
            "gates", lambda *at: layer.forward(*at[:2], mask=at[2]), params, x, mask
        )
    outputs = intermediates(layer, params, x, mask=mask)
    shares = {}
    for path, y in outputs.items() if layer.info.children else [("", *outputs.values())]:
        place = place_of(layer, path)
        gates, valid = collected.get(path, {}).get("gates", ({}, None))
        for name, values in gates.items():
            shares[f"{path}/{name}" if path else name] = _share(values, valid, place.copies)
        fits = mask is not None and y.shape[place.copies : -1] == mask.shape
        for name, values in squashed(place.layer, path or layer.info.name, y).items():
            shares[name] = _share(values, mask if fits else None, place.copies)
    return shares


def _share(values: jax.Array, mask: Any, copies: int) -> jax.Array:
    """The share of the valid values that are near an end of their range."""
    near = (values < MARGIN) | (values > 1 - MARGIN)
    if mask is None:
        return _over_all(near, copies, jnp.mean)
    valid = jnp.broadcast_to(mask[..., None], values.shape)
    number = _over_all(valid, copies, jnp.sum)
    return _over_all(near & valid, copies, jnp.sum) / jnp.maximum(number, 1)


def _over_all(values: jax.Array, copies: int, reduce: Any) -> jax.Array:
    """A sum or mean over all axes but those of copies."""
    reduced: jax.Array = reduce(values, axis=tuple(range(copies, values.ndim)))
    return reduced
