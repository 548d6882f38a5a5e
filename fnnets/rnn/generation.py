"""Generation: a network draws ids and reads them as its next inputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core import children as c
from fnnets.core.arrays import at_least_float32
from fnnets.core.layer import Layer
from fnnets.core.parameters import zero_carry


def generate(
    net: Layer,
    params: Any,
    carry: Any,
    first: Any,
    length: int,
    key: Any = None,
    temperature: Any = 1.0,
) -> tuple[jax.Array, Any]:
    """Draws ids one after another; each is the input of the next step.

    Formula: z_t = net(i_{t−1}), i_0 = first, and i_t = argmax_v (z_tv + τ·g_tv) with g_tv standard Gumbel noise. So
    i_t has the distribution softmax(z_t/τ). At τ = 0 it is the index of the largest logit.

    Args:
      net: a network from ids (…, 1) to logits (…, 1, V), with its state in the carry.
      params: its parameters.
      carry: the carry to start from; None starts from zeros. Any tree with arrays of the shapes of net's carry, in
        the same order, will do, such as an encoder's carry for a decoder.
      first: (…) integers, the first inputs; they are not in the result.
      length: the number of ids to draw; static under jit, as is net.
      key: step t draws with fold_in(key, t), so a longer text begins as a shorter one does. Not needed at
        temperature 0.
      temperature: τ, a number or an array (); a small one prefers likely ids. It may be traced.

    Returns:
      (ids, carry): ids (…, length) integers, and the last carry. To continue, pass that carry, first = ids[…, −1] and
      another key.

    Raises:
      TypeError: first does not hold integers.
      ValueError: the temperature is negative, or above 0 without a key; the carry or the logits have a wrong shape.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.serial(fn.embedding(5, 4), fn.lstm(8), fn.dense(5))
      >>> params = net.init(jax.random.key(0), jnp.ones((1, 1), int))
      >>> ids, carry = fn.generate(net, params, None, jnp.array([1, 2]), 6, jax.random.key(1))
      >>> ids.shape
      (2, 6)

    References:
      Graves, Generating sequences with recurrent neural networks (2013), section 2; Gumbel, Statistical theory
      of extreme values (1954), for the noise.
    """
    checks.positive("generate", length=length)
    first = checks.integers("generate", first, "first")
    greedy = isinstance(temperature, int | float) and temperature == 0
    if isinstance(temperature, int | float) and temperature < 0:
        raise ValueError(f"generate: temperature must be at least 0, got {temperature}.")
    if key is None and not greedy:
        raise ValueError("generate: drawing needs a key, got key=None; pass one, or temperature=0.")
    zeros = zero_carry(net, params, first[..., None])
    carry = zeros if carry is None else c.fitted_carry("generate", carry, zeros, "carry")

    def step(state: Any, t: Any) -> Any:
        ids, carry = state
        y, carry, _ = net.forward(params, ids[..., None], carry)
        shape = (*ids.shape, 1, *y.shape[-1:])
        checks.same_shape("generate", "the network's output", y.shape, shape, "logits of one step.")
        logits = at_least_float32(y[..., 0, :])
        if not greedy:
            noise = jax.random.gumbel(jax.random.fold_in(key, t), logits.shape, logits.dtype)
            logits += temperature * noise
        ids = logits.argmax(-1).astype(ids.dtype)
        return (ids, carry), ids

    (_, carry), ids = jax.lax.scan(step, (first, carry), jnp.arange(length))
    return jnp.moveaxis(ids, 0, -1), carry
