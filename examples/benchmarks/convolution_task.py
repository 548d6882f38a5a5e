"""The task of the convolution benchmark, and its network in fnnets. Not a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from processes import Built, jitted

import fnnets as fn

RATE = 0.1


class Settings(NamedTuple):
    """The sizes."""

    batch: int = 64
    size: int = 32  # height and width
    channels: int = 3
    widths: tuple[int, ...] = (16, 32, 64)  # of the residual blocks
    classes: int = 10
    steps: int = 1  # more than one: that many in a `lax.scan`, all on the same batch


def data(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """A batch of pictures (B, H, W, C) and labels."""
    rng = np.random.default_rng(0)
    shape = (settings.batch, settings.size, settings.size, settings.channels)
    labels = rng.integers(settings.classes, size=settings.batch).astype(np.int32)
    return rng.standard_normal(shape, dtype=np.float32), labels


def descended(params: Any, grads: Any) -> Any:
    """The params after a step of gradient descent."""
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def compiled(step: Callable[..., Any], state: Any, settings: Settings, *inputs: Any) -> Built:
    """`step(state, *inputs) -> (state, value)`, or `settings.steps` of them in one scan."""

    def several(state: Any, *inputs: Any) -> tuple[Any, Any]:
        return jax.lax.scan(lambda state, _: step(state, *inputs), state, length=settings.steps)

    return jitted(step if settings.steps == 1 else several, state, *map(jax.numpy.asarray, inputs))


def block(width: int, strides: int) -> fn.Layer:
    """A residual block; its shortcut is a projection where it changes the shape."""

    def conv_norm(kernel_size: tuple[int, int], strides: int) -> list[fn.Layer]:
        return [fn.conv(width, kernel_size, strides=strides, use_bias=False), fn.batch_norm()]

    body = fn.serial(*conv_norm((3, 3), strides), fn.relu(), *conv_norm((3, 3), 1))
    return fn.residual(body) if strides == 1 else fn.residual(body, fn.serial(*conv_norm((1, 1), strides)))


def network(settings: Settings) -> fn.Layer:
    """The network in fnnets."""
    first, *_ = settings.widths
    blocks = [block(width, 1 if i == 0 else 2) for i, width in enumerate(settings.widths)]
    rectified = [layer for each in blocks for layer in (each, fn.relu())]
    stem = [fn.conv(first, (3, 3), use_bias=False), fn.batch_norm(), fn.relu()]
    return fn.serial(*stem, *rectified, fn.global_avg_pool(), fn.dense(settings.classes))


def trained(net: fn.Layer, settings: Settings, gradient: Callable[..., Any]) -> Built:
    """The training step around `gradient(params, x, labels) -> ((value, saved), grads)`."""
    x, labels = data(settings)
    params = jax.jit(net.init)(jax.random.key(0), x)

    def step(params: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        (value, saved), grads = gradient(params, x, labels)
        return net.update_stats(descended(params, grads), saved), value

    return compiled(step, params, settings, x, labels)


def differentiated(net: fn.Layer, settings: Settings) -> Built:
    """The step by `jax.value_and_grad` through `net.forward`, which also returns what the statistics need."""
    loss = fn.losses.softmax_cross_entropy()

    def value(params: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        y, _, saved = net.forward(params, x, train=True)
        return loss.apply(y, labels), saved

    return trained(net, settings, jax.value_and_grad(value, has_aux=True))


def by_hand(settings: Settings) -> Built:
    """`jax.value_and_grad` through `fn.by_hand`, which installs the layers' own backward."""
    return differentiated(fn.by_hand(network(settings)), settings)


def autodiff(settings: Settings) -> Built:
    """`jax.value_and_grad` of the same network without a gradient by hand."""
    return differentiated(network(settings), settings)


def no_autodiff(settings: Settings) -> Built:
    """`fn.value_and_grad_by_hand`."""
    net = network(settings)
    gradient = fn.value_and_grad_by_hand(net, fn.losses.softmax_cross_entropy())

    def saved_alone(params: Any, x: jax.Array, labels: jax.Array) -> Any:
        (value, aux), grads = gradient(params, x, labels, train=True)
        return (value, aux.saved), grads

    return trained(net, settings, saved_alone)
