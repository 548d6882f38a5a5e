"""What becomes of gradients on their way: through time, through depth, and in saturated gates."""

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

MARGIN = 0.05  # of the range of what squashes, at either end


class GradientFlow(NamedTuple):
    """What `gradient_flow` found. The fields over time are None where nothing is handed on in time."""

    through_time: jax.Array | None  # (T, T): at [t, k] the norm of ∂s_t/∂s_k, 0 for k > t
    singular: jax.Array | None  # (T,): the largest singular value of ∂s_t/∂s_{t−1}
    through_depth: dict[str, jax.Array]  # the norm of the gradient that reaches each child
    saturated: dict[str, jax.Array]  # the share of each gate's and activation's values that is saturated


def gradient_flow(layer: Layer, params: Any, x: Any, *, dy: Any = None, mask: Any = None) -> GradientFlow:
    """How gradients vanish or explode: through time, through depth, and where gates are saturated.

    Formula: with s_t the carry after step t (all of it: h, or h and c, of every layer) and J_t = ∂s_t/∂s_{t−1},

        through_time[t, k] = ‖∂s_t/∂s_k‖ = ‖J_t·J_{t−1}⋯J_{k+1}‖,  singular[t] = ‖J_t‖
        through_depth[i]   = ‖∂E/∂h_i‖, h_i the output of child i, E = Σ dy ⊙ y

    The norm of a matrix is its largest singular value, averaged over the examples. An error E_t of step t
    reaches step k with ‖∂E_t/∂s_k‖ ≤ ‖∂E_t/∂s_t‖·through_time[t, k], and some E_t reaches it with just that. Singular
    values below 1 at all steps make it vanish exponentially in t − k; it can explode only where some are above.
    A value is saturated within 5 % of either end of its range: σ below 0.05 or above 0.95, |tanh| above 0.9,
    where less than a fifth of the largest slope is left.

    Args:
      layer: any layer or network.
      params: its parameters.
      x: its input; one array where there is time.
      dy: the gradient of the output, for the depth; standard normal when it is not given: the norms are then those
        of the Jacobians ∂y/∂h_i, up to chance.
      mask: as in `layer.apply`; a masked step has J_t = 1 and no part in `saturated`.

    Returns:
      A `GradientFlow`. through_depth has a norm for each path, over all examples, in the order of the calls;
      saturated a share for each "path/gate", or "path" of an activation (without the path for a layer
      alone). A `stack` has one for each copy, (depth,). All at inference, and pure. The time of it grows with
      T²·S³ for a carry of S numbers: take a small network, or a few examples.

    Raises:
      TypeError, ValueError: what the layers raise on bad input.

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
    """The norms of the products of Jacobians, and of each Jacobian."""
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
        given = (row[None], None if valid is None else valid[None])
        jacobian = jax.jacrev(advance)(state, *given)
        products = (jacobian @ products).at[t].set(jnp.eye(state.size, dtype=state.dtype))
        return (advance(state, *given), products), (_norms(products), _norms(jacobian))

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
    found = {}
    for path, values in reversed(trace.items()):
        copies = place_of(layer, path).copies if layer.info.children else 0
        squares = [_over_all(jnp.square(leaf), copies, jnp.sum) for leaf in jax.tree.leaves(values["dy"])]
        found[path] = jnp.sqrt(sum(squares))
    return found


def _saturated(layer: Layer, params: Any, x: Any, mask: Any) -> dict[str, jax.Array]:
    """The shares of gates, and of the outputs of children that squash."""
    with plain_equations():
        _, kept = recording.collect("gates", lambda *at: layer.forward(*at[:2], mask=at[2]), params, x, mask)
    outputs = intermediates(layer, params, x, mask=mask)
    found = {}
    for path, y in outputs.items() if layer.info.children else [("", *outputs.values())]:
        place = place_of(layer, path)
        gates, valid = kept.get(path, {}).get("gates", ({}, None))
        for name, values in gates.items():
            found[f"{path}/{name}" if path else name] = _share(values, valid, place.copies)
        fits = mask is not None and y.shape[place.copies : -1] == mask.shape
        for name, values in squashed(place.layer, path or layer.info.name, y).items():
            found[name] = _share(values, mask if fits else None, place.copies)
    return found


def _share(values: jax.Array, mask: Any, copies: int) -> jax.Array:
    """The share of values that are near an end of their range, among the valid ones."""
    near = (values < MARGIN) | (values > 1 - MARGIN)
    if mask is None:
        return _over_all(near, copies, jnp.mean)
    valid = jnp.broadcast_to(mask[..., None], values.shape)
    number = _over_all(valid, copies, jnp.sum)
    return _over_all(near & valid, copies, jnp.sum) / jnp.maximum(number, 1)


def _over_all(values: jax.Array, copies: int, reduce: Any) -> jax.Array:
    """A sum or mean over all axes but those of copies."""
    found: jax.Array = reduce(values, axis=tuple(range(copies, values.ndim)))
    return found
