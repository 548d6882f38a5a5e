"""Combinators that users might write: copies in a scan, and a copy that reads from the end."""

import jax
import jax.numpy as jnp

import fnnets as fn
from fnnets.core import children as c


def piled(layer: fn.Layer, depth: int) -> fn.Layer:
    """`depth` copies of a layer in a scan, like `fn.stack`."""
    info = fn.Info("piled", children=(layer,), copies=depth, unwrapped=True)

    def init(key, x):
        return jax.vmap(lambda key: layer.init(key, x))(jax.random.split(key, depth))

    def apply(params, x, *, key=None, train=False, mask=None):
        def step(x, own):
            return c.apply_child(info, 0, layer, own, x, key=key, train=train, mask=mask), None

        return jax.lax.scan(step, x, params)[0]

    def forward(params, x, carry=None, *, key=None, train=False, mask=None):
        def step(x, scanned):
            own, carry = scanned
            y, *rest = c.forward_child(info, 0, layer, own, x, carry, key=key, train=train, mask=mask)
            return y, rest

        y, (carry, saved) = jax.lax.scan(step, x, (params, carry))
        return y, carry, saved

    def backward(params, saved, dy, dcarry=None):
        def step(dy, scanned):
            dparams, dx, dcarry = c.backward_child(info, 0, layer, *scanned[:2], dy, scanned[2])
            return dx, (dparams, dcarry)

        dx, (dparams, dcarry) = jax.lax.scan(step, dy, (params, saved, dcarry), reverse=True)
        return dparams, dx, dcarry

    def update_stats(params, saved):
        return jax.vmap(layer.update_stats)(params, saved)

    return fn.Layer(init, apply, forward, backward, update_stats, info)


def met(layer: fn.Layer) -> fn.Layer:
    """The sum of a layer and of a copy that reads from the end, like `fn.bidirectional`."""
    info = fn.Info("met", children=(layer, layer), reversed_children=(1,))

    def flip_time(a):
        return jnp.flip(a, -2)

    def init(key, x):
        return tuple(layer.init(key, x) for key in jax.random.split(key))

    def apply(params, x, *, key=None, train=False):
        mode = {"key": key, "train": train, "mask": None}
        a = c.apply_child(info, 0, layer, params[0], x, **mode)
        return a + flip_time(c.apply_child(info, 1, layer, params[1], flip_time(x), **mode))

    def forward(params, x, *, key=None, train=False):
        mode = {"key": key, "train": train, "mask": None}
        a, _, saved_a = c.forward_child(info, 0, layer, params[0], x, None, **mode)
        b, _, saved_b = c.forward_child(info, 1, layer, params[1], flip_time(x), None, **mode)
        return a + flip_time(b), (saved_a, saved_b)

    def backward(params, saved, dy):
        da, dx_a, _ = c.backward_child(info, 0, layer, params[0], saved[0], dy, None)
        db, dx_b, _ = c.backward_child(info, 1, layer, params[1], saved[1], flip_time(dy), None)
        return (da, db), dx_a + flip_time(dx_b)

    return fn.layer(init, apply, forward, backward, name=info)
