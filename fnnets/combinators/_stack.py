"""Copies of one layer on top of each other, scanned over depth."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Layer, Static, describe, keep_stats, named


class StackSaved(NamedTuple):
    """What `stack` keeps for its backward."""

    children: Any  # the child's saved, with depth as its first axis
    dtype: Static  # of x
    mask: Any


def stack(layer: Layer, depth: int) -> Layer:
    """Copies of one layer on top of each other, each with its own params.

    Formula: h_0 = x, h_{i+1} = f(params[i], h_i), y = h_depth; the same as `serial` of the copies.

    Derivation: the chain rule from the last copy to the first, as one reverse `lax.scan`. The layer's own backward
    gives (dparams[i], dh_i) from dh_{i+1}; dx = dh_0.

    Args:
      layer: a layer or network that keeps the shape of its input.
      depth: the number of copies. The layer is traced and compiled once, whatever the depth.

    Returns:
      A `Layer`; params, saved and carry are the layer's with a first axis of length depth. Copy i gets
      the key `fold_in(key, i)`, as in `serial`.

    Raises:
      TypeError: layer is not a Layer.
      ValueError: depth is not a whole number of at least 1, the layer changes the shape of its input, or the first
        axis of params is not depth.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.stack(fn.serial(fn.dense(2), fn.tanh()), 5)
      >>> x = jnp.ones((4, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> params[0].w.shape, net.apply(params, x).shape
      ((5, 2, 2), (4, 2))
    """
    checks.layers("stack", (layer,), Layer)
    checks.positive("stack", depth=depth)
    info = dataclasses.replace(describe(stack, children=(layer,), depth=depth), copies=depth, unwrapped=True)

    def init(key: Any, x: Any) -> Any:
        with recording.child(info, 0, layer):
            return jax.vmap(lambda i: layer.init(c.child_key(key, i), x))(jnp.arange(depth))

    def entrance(params: Any, x: Any, key: Any, train: bool, mask: Any) -> Any:
        """x with its padding zeroed, in the dtype of the layer's output: a scan keeps shape and dtype."""
        sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
        if sizes - {(depth,)}:
            raise ValueError(
                f"{info}: the leaves of params must have a first axis of length {depth}, one entry for each copy, "
                f"got {sorted(sizes)}; pass the params that this network's init returned."
            )
        x = masks.zero_padding(info, checks.floats(info, x), mask)
        first = jax.tree.map(lambda leaf: leaf[0], params)
        with recording.child(info, 0, layer):
            y = jax.eval_shape(
                lambda own, x: layer.apply(own, x, key=c.child_key(key, 0), train=train, mask=mask), first, x
            )
        checks.same_shape(
            info, "the layer's output", y.shape, x.shape, "a stacked layer must keep the shape of its input."
        )
        return x.astype(y.dtype)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        def step(x: Any, scanned: Any) -> Any:
            i, own = scanned
            return c.apply_child(
                info, 0, layer, own, x, key=c.child_key(key, i), train=train, mask=mask
            ), None

        x = entrance(params, x, key, train, mask)
        return jax.lax.scan(step, x, (jnp.arange(depth), params))[0]

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Any, StackSaved]:
        def step(x: Any, scanned: Any) -> Any:
            i, own, carry = scanned
            y, carry, kept = c.forward_child(
                info, 0, layer, own, x, carry, key=c.child_key(key, i), train=train, mask=mask
            )
            return y, (carry, kept)

        dtype = Static(jnp.result_type(x))
        x = entrance(params, x, key, train, mask)
        y, (carry, kept) = jax.lax.scan(step, x, (jnp.arange(depth), params, carry))
        return y, carry, StackSaved(kept, dtype, mask)

    def backward(params: Any, saved: StackSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        def step(dy: Any, scanned: Any) -> Any:
            own, kept, dcarry = scanned
            dparams, dx, dcarry = c.backward_child(info, 0, layer, own, kept, dy, dcarry)
            return dx, (dparams, dcarry)

        scanned = (params, saved.children, dcarry)
        dx, (dparams, dcarry) = jax.lax.scan(step, dy, scanned, length=depth, reverse=True)
        return dparams, masks.hide_gradient(dx.astype(saved.dtype.value), saved.mask), dcarry

    def update_stats(params: Any, saved: StackSaved) -> Any:
        return jax.vmap(layer.update_stats)(params, saved.children)

    return named(
        Layer(init, apply, forward, backward, update_stats if c.any_stats((layer,)) else keep_stats, info)
    )
