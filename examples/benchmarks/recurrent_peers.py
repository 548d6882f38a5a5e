"""The recurrent layers of other frameworks, each in its fastest form, from the same weights. Not a program.

Each `place` arranges fnnets' weights in the framework's layout. The GRUs reset after the recurrent product, as
fnnets' does by default; only haiku's resets before it. Unrolling the scans made none of them faster.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from processes import Built
from recurrent_task import Settings, Weights, arrays, checked, contender


def split(a: Any, blocks: int) -> list[Any]:
    """The gates' parts of a weight."""
    return jnp.split(a, blocks, -1)


def flax(settings: Settings) -> Built:
    """`linen.RNN` over `OptimizedLSTMCell`, whose gates are one product, or `GRUCell`."""
    from flax import linen

    cell = linen.OptimizedLSTMCell if settings.cell == "lstm" else linen.GRUCell
    net = linen.RNN(cell(settings.features))

    def place(weights: Weights) -> Any:
        gates = "ifgo" if settings.cell == "lstm" else "rzn"
        w, u, b = (dict(zip(gates, split(leaf, len(gates)), strict=True)) for leaf in weights[:3])
        kernels = {f"i{gate}": {"kernel": w[gate]} for gate in gates}
        kernels |= {f"h{gate}": {"kernel": u[gate]} for gate in gates}
        for gate in gates:  # an LSTM has its biases in the recurrent part, a GRU in the input part
            kernels[f"{'h' if settings.cell == 'lstm' else 'i'}{gate}"]["bias"] = b[gate]
        if settings.cell == "gru":
            kernels["hn"]["bias"] = weights.b_n
        return {"params": {"cell": kernels}}

    return contender(net.apply, place, settings)


def haiku(settings: Settings) -> Built:
    """`haiku.LSTM` or `haiku.GRU` in `haiku.dynamic_unroll`."""
    import haiku as hk

    lstm = settings.cell == "lstm"

    def unrolled(x: Any) -> Any:
        core = hk.LSTM(settings.features) if lstm else hk.GRU(settings.features)
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)[0]

    def place(weights: Weights) -> Any:
        if lstm:
            w, u, b = ([i, g, f, o] for i, f, g, o in (split(leaf, 4) for leaf in weights[:3]))
            b[2] = b[2] - 1  # haiku adds it in the step
            kernel = jnp.concatenate([jnp.concatenate(w, -1), jnp.concatenate(u, -1)])
            return {"lstm/linear": {"w": kernel, "b": jnp.concatenate(b)}}
        leaves = zip(("w_i", "w_h", "b"), (split(leaf, 3) for leaf in weights[:3]), strict=True)
        return {"gru": {name: jnp.concatenate([z, r, n], -1) for name, (r, z, n) in leaves}}

    net = hk.without_apply_rng(hk.transform(unrolled))
    conventions = {} if lstm else {"reset": "before", "update": "new"}
    return contender(net.apply, place, settings, **conventions)


def equinox(settings: Settings) -> Built:
    """A cell in `lax.scan`, in `vmap` over the batch, as in equinox's documentation."""
    import equinox as eqx

    lstm, size = settings.cell == "lstm", settings.features
    cell = (eqx.nn.LSTMCell if lstm else eqx.nn.GRUCell)(size, size, key=jax.random.key(0))
    arrays, rest = eqx.partition(cell, eqx.is_array)

    def place(weights: Weights) -> Any:
        def leaves(cell: Any) -> list[Any]:
            return [cell.weight_ih, cell.weight_hh, cell.bias] + ([] if lstm else [cell.bias_n])

        given = [weights.w.T, weights.u.T, weights.b] + ([] if lstm else [weights.b_n])
        return eqx.tree_at(leaves, arrays, given)

    def predict(params: Any, x: Any) -> Any:
        cell = eqx.combine(params, rest)

        def step(carry: Any, x: Any) -> Any:
            carry = cell(x, carry)
            return carry, carry[0] if lstm else carry

        zeros = jnp.zeros(size)
        return jax.vmap(lambda x: jax.lax.scan(step, (zeros, zeros) if lstm else zeros, x)[1])(x)

    return contender(predict, place, settings)


def keras(settings: Settings) -> Built:
    """`keras.layers.LSTM` or `GRU` on the jax backend, by `stateless_call`."""
    os.environ["KERAS_BACKEND"] = "jax"  # this process is the contender's own
    import keras

    kind = keras.layers.LSTM if settings.cell == "lstm" else keras.layers.GRU
    net = kind(settings.features, return_sequences=True)
    net.build((settings.batch, settings.steps, settings.features))
    rest = [variable.value for variable in net.non_trainable_variables]

    def place(weights: Weights) -> Any:
        if settings.cell == "lstm":
            return list(weights[:3])
        w, u, b = (jnp.concatenate([z, r, n], -1) for r, z, n in (split(leaf, 3) for leaf in weights[:3]))
        recurrent = jnp.concatenate([jnp.zeros(2 * settings.features), weights.b_n])
        return [w, u, jnp.stack([b, recurrent])]

    return contender(lambda params, x: net.stateless_call(params, rest, x)[0], place, settings)


def pytorch(settings: Settings) -> Built:
    """`torch.nn.LSTM` or `torch.nn.GRU`, eager."""
    # Otherwise its threads wait for each other in a busy loop, for seconds on a busy machine. This slows PyTorch down:
    # a fair comparison needs its defaults on an idle machine.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    size = settings.features
    net = (torch.nn.LSTM if settings.cell == "lstm" else torch.nn.GRU)(size, size, batch_first=True)
    x, t, weights = arrays(settings)

    def place(weights: Weights) -> Any:
        recurrent = jnp.zeros_like(weights.b)
        if weights.b_n is not None:
            recurrent = recurrent.at[-size:].set(weights.b_n)
        return [weights.w.T, weights.u.T, weights.b, recurrent]

    params, pull = jax.vjp(place, jax.tree.map(jnp.asarray, weights))
    with torch.no_grad():
        for p, value in zip(net.parameters(), params, strict=True):
            p.copy_(torch.tensor(np.asarray(value)))
    x, t = torch.from_numpy(x).requires_grad_(), torch.from_numpy(t)
    inputs = [*net.parameters(), x]

    def step() -> Any:
        value = 0.5 * ((net(x)[0] - t) ** 2).sum()
        return value, torch.autograd.grad(value, inputs)

    value, grads = step()
    *dparams, dx = (jnp.asarray(grad.numpy()) for grad in grads)
    checked((float(value.detach()), (*pull(dparams), dx)), settings)

    def one() -> None:
        step()

    for _ in range(2):
        one()
    return Built(one, {}, "cpu")
