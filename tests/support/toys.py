"""Small layers as users might write them: with a carry, with moving statistics, with named blocks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import fnnets as fn


def integrator() -> fn.Layer:
    """The smallest recurrent layer: h_t = tanh(a·h_{t−1} + x_t), y = h; x (…, T, D), carry h (…, D)."""

    def init(key: Any, x: Any) -> Any:
        return {"a": 0.5 + 0.1 * jax.random.normal(key, (x.shape[-1],))}

    def forward(params, x, carry=None, *, key=None, train=False, mask=None):
        h = jnp.zeros_like(x[..., 0, :]) if carry is None else carry
        keep = jnp.ones(x.shape[:-1], bool) if mask is None else mask
        hs = [h]
        for t in range(x.shape[-2]):
            new = jnp.tanh(params["a"] * hs[-1] + x[..., t, :])
            hs.append(jnp.where(keep[..., t, None], new, hs[-1]))
        y = jnp.where(keep[..., None], jnp.stack(hs[1:], -2), 0)
        return y, hs[-1], (jnp.stack(hs, -2), keep)

    def backward(params, saved, dy, dcarry=None):
        hs, keep = saved
        dh = jnp.zeros_like(hs[..., 0, :]) if dcarry is None else dcarry
        da, dx = jnp.zeros_like(params["a"]), []
        for t in reversed(range(dy.shape[-2])):
            here = keep[..., t, None]
            dz = jnp.where(here, (dh + dy[..., t, :]) * (1 - hs[..., t + 1, :] ** 2), 0)
            da = da + (dz * hs[..., t, :]).reshape(-1, dz.shape[-1]).sum(0)
            dx.append(dz)
            dh = jnp.where(here, params["a"] * dz, dh)
        return {"a": da}, jnp.stack(dx[::-1], -2), dh

    def apply(params, x, *, key=None, train=False, mask=None):
        return forward(params, x, mask=mask)[0]

    info = fn.Info("integrator", label="integrator()")
    return fn.Layer(init, apply, forward, backward, lambda params, saved: params, info)


class Centred(NamedTuple):
    """A scale, and the moving mean of past inputs."""

    w: jax.Array  # (D,)
    stats: fn.Stats


def centred() -> fn.Layer:
    """A layer with statistics, which are constants in its gradient: y = w·(x − moving mean)."""

    def init(key: Any, x: Any) -> Centred:
        del key
        return Centred(jnp.ones(x.shape[-1]), fn.Stats(jnp.zeros(x.shape[-1]), jnp.ones(x.shape[-1])))

    def apply(params, x, *, key=None, train=False, mask=None):
        return params.w * (x - jax.lax.stop_gradient(params.stats.mean))

    def forward(params, x, carry=None, *, key=None, train=False, mask=None):
        return apply(params, x), None, x

    def backward(params, x, dy, dcarry=None):
        rows = (dy * (x - params.stats.mean)).reshape(-1, dy.shape[-1])
        return Centred(rows.sum(0), jax.tree.map(jnp.zeros_like, params.stats)), dy * params.w, None

    def update_stats(params, x):
        mean = 0.9 * params.stats.mean + 0.1 * x.reshape(-1, x.shape[-1]).mean(0)
        return params._replace(stats=params.stats._replace(mean=mean))

    return fn.Layer(init, apply, forward, backward, update_stats, fn.Info("centred", label="centred()"))


class Gated(NamedTuple):
    """A kernel whose columns form two named blocks."""

    blocks = {"w": ("value", "gate")}

    w: jax.Array  # (D, 2H)


def gated(features: int) -> fn.Layer:
    """A layer with named blocks: y = v ⊙ σ(g), [v, g] = x·w."""

    def parts(params, x):
        v, g = jnp.split(x @ params.w, 2, -1)
        return v, jax.nn.sigmoid(g)

    def backward(params, saved, dy):
        x, v, s = saved
        dz = jnp.concatenate([dy * s, dy * v * s * (1 - s)], -1)
        return Gated(x.T @ dz), dz @ params.w.T

    def forward(params, x):
        v, s = parts(params, x)
        return v * s, (x, v, s)

    return fn.layer(
        lambda key, x: Gated(jax.random.normal(key, (x.shape[-1], 2 * features))),
        lambda params, x: forward(params, x)[0],
        forward,
        backward,
        name="gated",
    )


def with_backward(layer: fn.Layer, change: Any) -> fn.Layer:
    """The layer with `change(dparams, dx)` applied after its backward, usually to plant a mistake."""

    def backward(params, saved, dy, dcarry=None):
        dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
        return (*change(dparams, dx), dcarry)

    return layer._replace(backward=backward)
