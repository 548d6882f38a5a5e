"""The outputs of all layers inside a network."""

from __future__ import annotations

from typing import Any

import jax

from fnnets.core import recording
from fnnets.core.layer import Layer
from fnnets.gradients.custom_derivatives import plain_equations


def intermediates(
    layer: Layer, params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None
) -> dict[str, Any]:
    """The output of every child of a network, in the order of the calls.

    Formula: for serial(f₀, f₁, …), h_i = f_i(h_{i−1}); the result maps "i.name" to h_i.

    Args:
      layer: a network, or a layer without children, whose own output is returned under its name.
      params: its parameters.
      x: its input.
      key, train, mask: as in `layer.apply`.

    Returns:
      A dict from paths such as "2.residual/0.dense" to arrays. Inside a `stack` the first axis is the copy.
      It works under jit, vmap and `jax.eval_shape`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.serial(fn.dense(3), fn.tanh())
      >>> x = jnp.ones((4, 2))
      >>> {path: h.shape for path, h in fn.intermediates(net, net.init(jax.random.key(0), x), x).items()}
      {'0.dense': (4, 3), '1.tanh': (4, 3)}
    """

    def run(params: Any, x: Any, key: Any, mask: Any) -> Any:
        return layer.apply(params, x, key=key, train=train, mask=mask)

    with plain_equations():
        y, collected = recording.collect("outputs", run, params, x, key, mask)
    return (
        {path: values["y"] for path, values in collected.items()}
        if layer.info.children
        else {layer.info.name: y}
    )


def output_shapes(layer: Layer, params: Any, x: Any) -> dict[str, Any]:
    """The shapes of `intermediates`, without computing anything."""
    return jax.eval_shape(lambda params, x: intermediates(layer, params, x), params, x)
