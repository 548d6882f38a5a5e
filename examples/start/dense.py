"""One dense layer, its gradient by hand, and the verdict: `python examples/start/dense.py`."""

import jax
import jax.numpy as jnp

import fnnets as fn

# A layer is a named tuple of pure functions; its params are a named tuple of arrays.
layer = fn.dense(3)
x = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
params = layer.init(jax.random.key(0), x)
print("params:", jax.tree.map(jnp.shape, params))

# The equation is y = x·w + b.
y = layer.apply(params, x)
print("y:", y.shape)

# The derivation: from dy, the gradient of a scalar with respect to y, follow dw = xᵀ·dy, db = Σ dy and dx = dy·wᵀ.
y, _, saved = layer.forward(params, x)  # the same y, and what backward needs
dy = jnp.ones_like(y)
dparams, dx, _ = layer.backward(params, saved, dy)
print("dw:", dparams.w.tolist(), "db:", dparams.b.tolist())

# jax.grad differentiates plain equations by autodiff; by_hand installs the layer's backward for it.
installed = fn.by_hand(layer)
grads = jax.grad(lambda params: installed.apply(params, x).sum())(params)
print("the same through jax.grad:", bool(jnp.allclose(grads.w, dparams.w)))

# Do the gradients by hand, by autodiff and by differences agree?
print(fn.compare(layer, params, x))
