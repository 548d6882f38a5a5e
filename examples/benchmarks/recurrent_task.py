"""The training step of the recurrent benchmark, in fnnets, and its matrix products alone. Not a program.

The step computes E = ½Σ(y − t)² over the outputs of one recurrent layer, and the gradients of E with respect to
the layer's params and to x, in float32, with x and y batch-major. Every contender starts from the same weights
in its own layout. Before it is timed, its E and its gradients must equal those that jax derives from fnnets'
textbook equations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from processes import Built, jitted

import fnnets as fn

TOLERANCE = 1e-3  # of the largest number of each gradient: float32 after hundreds of steps


class Settings(NamedTuple):
    """The sizes: H = D = features."""

    cell: str = "lstm"
    steps: int = 64
    batch: int = 32
    features: int = 128


class Weights(NamedTuple):
    """A layer's weights, in the order of fnnets: i, f, g, o or r, z, n."""

    w: Any  # (D, 4H) or (D, 3H)
    u: Any  # (H, 4H) or (H, 3H)
    b: Any  # (4H,) or (3H,)
    b_n: Any  # (H,) of a GRU that resets after the product; else None


def arrays(settings: Settings, b_n: bool = True) -> tuple[np.ndarray, np.ndarray, Weights]:
    """x, t and the weights."""
    cell, steps, batch, size = settings
    blocks = 4 if cell == "lstm" else 3
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    x, t = normal(batch, steps, size), normal(batch, steps, size)
    w, u = (normal(size, blocks * size) / np.sqrt(size, dtype=np.float32) for _ in range(2))
    b, of_candidate = 0.1 * normal(blocks * size), 0.1 * normal(size)
    return x, t, Weights(w, u, b, of_candidate if cell == "gru" and b_n else None)


def network(settings: Settings, reset: str = "after", update: str = "old", **options: Any) -> fn.Layer:
    """The layer in fnnets."""
    if settings.cell == "lstm":
        return fn.lstm(settings.features, **options)
    return fn.gru(settings.features, reset=reset, update=update, **options)


def own(net: fn.Layer, x: Any, weights: Weights) -> Any:
    """The weights as the layer's params."""
    like = jax.eval_shape(net.init, jax.random.key(0), x)
    return like._replace(**{k: v for k, v in weights._asdict().items() if v is not None})


Differentiated = Callable[[Any, Any, Any], tuple[Any, tuple[Any, Any]]]


def value_and_grad(predict: Callable[[Any, Any], Any]) -> Differentiated:
    """`(params, x, t) -> (E, (dparams, dx))` of `y = predict(params, x)`."""

    def error(params: Any, x: Any, t: Any) -> jax.Array:
        return 0.5 * jnp.sum((predict(params, x) - t) ** 2)

    return jax.value_and_grad(error, argnums=(0, 1))


def checked(got: Any, settings: Settings, **conventions: str) -> None:
    """Raises if E, or a gradient of the weights or x, is not that of the textbook equations."""
    net = network(settings, **conventions)
    x, t, weights = arrays(settings, conventions.get("reset") != "before")

    def predict(weights: Weights, x: Any) -> Any:
        return net.apply(own(net, x, weights), x)

    expected = jax.jit(value_and_grad(predict))(weights, x, t)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        error = float(jnp.abs(one - other).max() / jnp.abs(other).max())
        if not error < TOLERANCE:
            raise ValueError(f"{jax.tree_util.keystr(path)} is off by {error:.1e}")


def contender(
    predict: Callable[[Any, Any], Any],
    place: Callable[[Weights], Any],
    settings: Settings,
    **conventions: str,
) -> Built:
    """The step of `y = predict(place(weights), x)`, compiled.

    `place` is affine: its transpose brings the gradient back to fnnets' layout, to be checked.
    """
    x, t, weights = arrays(settings, conventions.get("reset") != "before")
    params, pull = jax.vjp(place, jax.tree.map(jnp.asarray, weights))
    differentiated = value_and_grad(predict)
    value, (dparams, dx) = jax.jit(differentiated)(params, x, t)
    checked((value, (*pull(dparams), dx)), settings, **conventions)
    return repeated(differentiated, params, x, t)


def repeated(step: Callable[..., Any], *inputs: Any) -> Built:
    """The step, without a state, on fixed inputs."""
    inputs = jax.tree.map(jnp.asarray, inputs)
    return jitted(lambda state, *inputs: (state, step(*inputs)), (), *inputs)


# ---------------------------------------------------------------- fnnets


def by_hand(settings: Settings) -> Built:
    """`jax.value_and_grad` through `fn.by_hand`, which installs the layer's own backward."""
    net = network(settings)
    x = arrays(settings)[0]
    return contender(fn.by_hand(net).apply, lambda weights: own(net, x, weights), settings)


def grad_of_apply(settings: Settings) -> Built:
    """`jax.value_and_grad` of the textbook equations."""
    net = network(settings)
    x = arrays(settings)[0]
    return contender(net.apply, lambda weights: own(net, x, weights), settings)


def grad_of_forward(settings: Settings) -> Built:
    """`jax.value_and_grad` of forward."""
    net = network(settings)
    x = arrays(settings)[0]
    return contender(lambda p, x: net.forward(p, x)[0], lambda weights: own(net, x, weights), settings)


def layer_alone(settings: Settings, memory: str, time_major: bool) -> Built:
    """forward, and backward of a given dy; y and the gradients are results, not temporary memory."""
    x, dy, weights = arrays(settings)
    if time_major:
        x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, dy))
    net = network(settings, memory=memory, time_major=time_major)

    def step(params: Any, x: Any, dy: Any) -> Any:
        y, _, saved = net.forward(params, x)
        return y, net.backward(params, saved, dy)

    return repeated(step, own(net, x, weights), x, dy)


def compilation(settings: Settings, steps: int) -> Built:
    """Tracing and compiling the step, over that many time steps."""
    settings = settings._replace(steps=steps)
    x, t, weights = arrays(settings)

    def compiled() -> None:
        net = network(settings)  # a new object, so that no cache knows it
        step = jax.jit(value_and_grad(fn.by_hand(net).apply))
        step.lower(own(net, x, weights), x, t).compile()

    compiled()
    return Built(compiled, {}, jax.devices()[0].device_kind)


# ---------------------------------------------------------------- the matrix products alone


def products(settings: Settings, columns: bool = False) -> Built:
    """The step's matrix products and nothing else: a lower bound for any implementation that uses them.

    x·w for all time steps at once, T products h·u one after another, T products dz·uᵀ one after
    another, then dw, du and dx as one product each, in this order. Each product of a loop waits for the one
    before: it takes a slice (H of the 4H or 3H columns), or updates H columns on the way back. The compiler
    does not know the place of the slice, and so computes all columns. The recurrent kernel has orthogonal
    blocks, so that the numbers neither overflow nor vanish. With `columns` the state is (H, B) in the loops.
    """
    x, t, weights = arrays(settings)
    size, blocks = settings.features, weights.u.shape[1] // settings.features
    u = np.concatenate([np.linalg.qr(u)[0] for u in np.split(weights.u, blocks, 1)], 1)
    axis = 0 if columns else 1

    def transposed(a: Any) -> Any:
        return a.T if columns else a

    def step(x: Any, t: Any, w: Any, w_t: Any, u: Any, u_t: Any, at: Any) -> Any:
        rows, targets = x.reshape(-1, size), t.reshape(-1, size)
        z = rows @ w

        def forward(_: Any, h: Any) -> Any:
            return jax.lax.dynamic_slice_in_dim(u_t @ h if columns else h @ u, at, size, axis)

        def backward(_: Any, dz: Any) -> Any:
            dh = u @ dz if columns else dz @ u_t
            return jax.lax.dynamic_update_slice_in_dim(dz, dh, at, axis)

        first = transposed(z[: settings.batch])
        h = jax.lax.fori_loop(0, settings.steps, forward, jax.lax.slice_in_dim(first, 0, size, axis=axis))
        dz = jax.lax.dynamic_update_slice_in_dim(first, h, at, axis)
        dz = jax.lax.fori_loop(0, settings.steps, backward, dz)
        dz = jax.lax.dynamic_update_slice_in_dim(z, transposed(dz), 0, 0)
        return rows.T @ dz, targets.T @ dz, dz @ w_t

    w = weights.w
    return repeated(step, x, t, w, w.T.copy(), u, u.T.copy(), np.int32(0))


def products_in_columns(settings: Settings) -> Built:
    """`products` with the state feature-major."""
    return products(settings, columns=True)
