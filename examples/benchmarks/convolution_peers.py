"""The network of the convolution benchmark in flax, equinox, haiku and PyTorch. Not a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from convolution_task import RATE, Settings, compiled, data, descended
from processes import Built


def differentiated(
    predict: Callable[..., tuple[jax.Array, Any]],
    params: Any,
    stats: Any,
    settings: Settings,
    first: bool = False,
) -> Built:
    """The step by `jax.value_and_grad` through `predict(params, stats, x) -> (logits, stats)` and optax's loss.

    `first` gives the pictures with their channels first.
    """
    import optax

    def loss(params: Any, stats: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        logits, stats = predict(params, stats, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats

    def step(state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, stats = state
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats, x, labels)
        return (descended(params, grads), stats), value

    x, labels = data(settings)
    return compiled(step, (params, stats), settings, np.moveaxis(x, -1, 1).copy() if first else x, labels)


def flax(settings: Settings) -> Built:
    """A linen module."""
    from flax import linen

    def conv_norm(x: Any, width: int, kernel: int, strides: int = 1) -> Any:
        x = linen.Conv(width, (kernel, kernel), strides, use_bias=False)(x)
        return linen.BatchNorm(use_running_average=False, momentum=0.9)(x)

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(conv_norm(x, settings.widths[0], 3))
            for i, width in enumerate(settings.widths):
                strides = 1 if i == 0 else 2
                body = conv_norm(linen.relu(conv_norm(x, width, 3, strides)), width, 3)
                x = linen.relu(body + (x if strides == 1 else conv_norm(x, width, 1, strides)))
            return linen.Dense(settings.classes)(x.mean((1, 2)))

    net = Network()
    variables = net.init(jax.random.key(0), data(settings)[0])

    def predict(params: Any, stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        logits, moved = net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        return logits, moved["batch_stats"]

    return differentiated(predict, variables["params"], variables["batch_stats"], settings)


def equinox(settings: Settings) -> Built:
    """Equinox modules under vmap, channels first, with their arrays separated from the rest."""
    import equinox as eqx

    keys = iter(jax.random.split(jax.random.key(0), 3 * len(settings.widths) + 2))

    class ConvNorm(eqx.Module):
        conv: Any
        norm: Any

        def __init__(self, inputs: int, width: int, kernel: int, strides: int = 1) -> None:
            settings = {"padding": "SAME", "use_bias": False, "key": next(keys)}
            self.conv = eqx.nn.Conv2d(inputs, width, kernel, strides, **settings)
            self.norm = eqx.nn.BatchNorm(width, "batch", momentum=0.9, mode="batch")

        def __call__(self, x: Any, state: Any) -> Any:
            return self.norm(self.conv(x), state)

    class Block(eqx.Module):
        first: ConvNorm
        second: ConvNorm
        shortcut: Any

        def __init__(self, inputs: int, width: int, strides: int) -> None:
            self.first, self.second = ConvNorm(inputs, width, 3, strides), ConvNorm(width, width, 3)
            self.shortcut = None if strides == 1 else ConvNorm(inputs, width, 1, strides)

        def __call__(self, x: Any, state: Any) -> Any:
            y, state = self.first(x, state)
            y, state = self.second(jax.nn.relu(y), state)
            if self.shortcut is not None:
                x, state = self.shortcut(x, state)
            return jax.nn.relu(x + y), state

    class Network(eqx.Module):
        stem: ConvNorm
        blocks: list[Block]
        head: Any

        def __init__(self) -> None:
            inputs = (settings.widths[0], *settings.widths)
            self.stem = ConvNorm(settings.channels, inputs[0], 3)
            pairs = zip(inputs, settings.widths, strict=False)
            self.blocks = [Block(*pair, 1 if i == 0 else 2) for i, pair in enumerate(pairs)]
            self.head = eqx.nn.Linear(inputs[-1], settings.classes, key=next(keys))

        def __call__(self, x: Any, state: Any) -> Any:
            x, state = self.stem(x, state)
            x = jax.nn.relu(x)
            for block in self.blocks:
                x, state = block(x, state)
            return self.head(x.mean((1, 2))), state

    net, state = eqx.nn.make_with_state(Network)()
    params, rest = eqx.partition(net, eqx.is_inexact_array)

    def predict(params: Any, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        net = eqx.combine(params, rest)
        return jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    return differentiated(predict, params, state, settings, first=True)


def haiku(settings: Settings) -> Built:
    """A transformed function of haiku's modules."""
    import haiku as hk

    def conv_norm(x: Any, width: int, kernel: int, strides: int = 1) -> Any:
        x = hk.Conv2D(width, kernel, strides, with_bias=False)(x)
        return hk.BatchNorm(True, True, 0.9)(x, is_training=True)

    def network(x: Any) -> Any:
        x = jax.nn.relu(conv_norm(x, settings.widths[0], 3))
        for i, width in enumerate(settings.widths):
            strides = 1 if i == 0 else 2
            body = conv_norm(jax.nn.relu(conv_norm(x, width, 3, strides)), width, 3)
            x = jax.nn.relu(body + (x if strides == 1 else conv_norm(x, width, 1, strides)))
        return hk.Linear(settings.classes)(x.mean((1, 2)))

    net = hk.without_apply_rng(hk.transform_with_state(network))
    return differentiated(net.apply, *net.init(jax.random.key(0), data(settings)[0]), settings)


def pytorch(settings: Settings) -> Built:
    """Eager PyTorch on the CPU; channels are the second axis, and last in memory."""
    import torch
    from torch import nn

    def conv_norm(inputs: int, width: int, kernel: int, strides: int = 1) -> list[Any]:
        return [nn.Conv2d(inputs, width, kernel, strides, kernel // 2, bias=False), nn.BatchNorm2d(width)]

    class Block(nn.Module):
        def __init__(self, inputs: int, width: int, strides: int) -> None:
            super().__init__()
            first, second = conv_norm(inputs, width, 3, strides), conv_norm(width, width, 3)
            self.body = nn.Sequential(*first, nn.ReLU(), *second)
            shortcut = [] if strides == 1 else conv_norm(inputs, width, 1, strides)
            self.shortcut = nn.Sequential(*shortcut)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.shortcut(x))

    inputs = (settings.widths[0], *settings.widths)
    blocks = [
        Block(*pair, 1 if i == 0 else 2) for i, pair in enumerate(zip(inputs, settings.widths, strict=False))
    ]
    stem = [*conv_norm(settings.channels, inputs[0], 3), nn.ReLU()]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs[-1], settings.classes)]
    net = nn.Sequential(*stem, *blocks, *pooled).to(memory_format=torch.channels_last)
    x, labels = (torch.from_numpy(array) for array in data(settings))
    x, labels = x.movedim(-1, 1), labels.long()

    def step() -> None:
        grads = torch.autograd.grad(nn.functional.cross_entropy(net(x), labels), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p.sub_(g, alpha=RATE)

    for _ in range(3):
        step()
    return Built(step, {}, "cpu")
