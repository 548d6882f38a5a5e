"""Your own layer, and a mistake in it that the report names: `python examples/start/own_layer.py`."""

import jax
import jax.numpy as jnp

import fnnets as fn


def init(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], 3)) / x.shape[-1] ** 0.5}


def apply(params, x):  # the equation: y = tanh(x·w)
    return jnp.tanh(x @ params["w"])


def forward(params, x):  # the same y, and what the derivation needs
    y = jnp.tanh(x @ params["w"])
    return y, (x, y)


def backward(params, saved, dy):  # the derivation: dz = dy·(1 − y²), dw = xᵀ·dz, dx = dz·wᵀ
    x, y = saved
    dz = dy * (1 - y**2)
    return {"w": x.T @ dz}, dz @ params["w"].T


def hasty(params, saved, dy):  # the same without the factor (1 − y²)
    x, _ = saved
    return {"w": x.T @ dy}, dy @ params["w"].T


layer = fn.layer(init, apply, forward, backward, name="mine")
broken = fn.layer(init, apply, forward, hasty, name="hasty")

if __name__ == "__main__":
    x = jax.random.normal(jax.random.key(0), (8, 2))
    params = layer.init(jax.random.key(1), x)
    print(fn.compare(layer, params, x), end="\n\n")
    print(fn.compare(broken, params, x), end="\n\n")

    # It works wherever a layer does. The gradient of a network with it needs no autodiff.
    net = fn.serial(layer, fn.dense(1))
    params = net.init(jax.random.key(2), x)
    (value, _), grads = fn.value_and_grad_by_hand(net, fn.losses.mse())(params, x, jnp.ones((8, 1)))
    print(f"loss {value:.3f}, gradients {jax.tree.map(jnp.shape, grads)}")
