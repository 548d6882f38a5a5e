"""One training step of a feed-forward network: by hand, by autodiff, and in flax, equinox, haiku and PyTorch.

Run `python examples/benchmarks/feedforward.py`; `--quick` only shows that it runs. All take the same step:
forward, mean softmax cross entropy of integer labels, its gradient, params − 0.1·gradient, in float32, with the
params' buffers donated to the step (PyTorch, shown for comparison, updates in place and compiles nothing).
Frameworks that are not installed are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from harness import Benchmark, Claim, arguments, main
from processes import Built, Contender, jitted

import fnnets as fn

RATE = 0.1


class Settings(NamedTuple):
    """The sizes."""

    batch: int = 256
    widths: tuple[int, ...] = (784, 512, 512, 10)


def data(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """A batch of inputs and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((settings.batch, settings.widths[0]), dtype=np.float32)
    return x, rng.integers(settings.widths[-1], size=settings.batch).astype(np.int32)


def trained(value_and_grad: Callable[..., tuple[Any, Any]], params: Any, settings: Settings) -> Built:
    """The training step around `value_and_grad(params, x, labels)`."""

    def step(params: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        value, grads = value_and_grad(params, x, labels)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), value

    return jitted(step, params, *map(jax.numpy.asarray, data(settings)))


def differentiated(predict: Callable[..., jax.Array], params: Any, settings: Settings) -> Built:
    """The step of another framework: `jax.value_and_grad` through `predict(params, x)` and optax's loss."""
    import optax

    def loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), labels).mean()

    return trained(jax.value_and_grad(loss), params, settings)


def network(settings: Settings) -> tuple[fn.Layer, Any]:
    """The network in fnnets and its params."""
    _, *hidden, last = settings.widths
    layers = [layer for width in hidden for layer in (fn.dense(width), fn.relu())]
    net = fn.serial(*layers, fn.dense(last))
    return net, net.init(jax.random.key(0), data(settings)[0])


def by_hand(settings: Settings) -> Built:
    """`jax.value_and_grad` through `fn.by_hand`, which installs the layers' own backward."""
    net, params = network(settings)
    net, loss = fn.by_hand(net), fn.losses.softmax_cross_entropy()
    return trained(
        jax.value_and_grad(lambda params, x, t: loss.apply(net.apply(params, x), t)), params, settings
    )


def no_autodiff(settings: Settings) -> Built:
    """`fn.value_and_grad_by_hand`."""
    net, params = network(settings)
    value_and_grad = fn.value_and_grad_by_hand(net, fn.losses.softmax_cross_entropy())

    def value_alone(params: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        (value, _), grads = value_and_grad(params, x, labels)
        return value, grads

    return trained(value_alone, params, settings)


def autodiff(settings: Settings) -> Built:
    """`jax.value_and_grad` of the plain equations."""
    net, params = network(settings)
    loss = fn.losses.softmax_cross_entropy()
    return trained(
        jax.value_and_grad(lambda params, x, t: loss.apply(net.apply(params, x), t)), params, settings
    )


def flax(settings: Settings) -> Built:
    """A linen module."""
    from flax import linen

    layers = [layer for width in settings.widths[1:] for layer in (linen.Dense(width), linen.relu)][:-1]
    net = linen.Sequential(layers)
    return differentiated(net.apply, net.init(jax.random.key(0), data(settings)[0]), settings)


def equinox(settings: Settings) -> Built:
    """`equinox.nn.MLP`, with its arrays separated from the rest, so that they are an ordinary argument of the step."""
    import equinox as eqx

    inputs, *hidden, outputs = settings.widths
    net = eqx.nn.MLP(inputs, outputs, hidden[0], len(hidden), jax.nn.relu, key=jax.random.key(0))
    params, rest = eqx.partition(net, eqx.is_array)
    return differentiated(lambda params, x: jax.vmap(eqx.combine(params, rest))(x), params, settings)


def haiku(settings: Settings) -> Built:
    """`haiku.nets.MLP`, transformed."""
    import haiku as hk

    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP(settings.widths[1:])(x)))
    return differentiated(net.apply, net.init(jax.random.key(0), data(settings)[0]), settings)


def pytorch(settings: Settings) -> Built:
    """Eager PyTorch on the CPU."""
    import torch

    pairs = zip(settings.widths, settings.widths[1:], strict=False)
    layers = [layer for pair in pairs for layer in (torch.nn.Linear(*pair), torch.nn.ReLU())][:-1]
    net = torch.nn.Sequential(*layers)
    x, labels = (torch.from_numpy(array) for array in data(settings))
    labels = labels.long()

    def step() -> None:
        grads = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), labels), list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), grads, strict=True):
                p.sub_(g, alpha=RATE)

    for _ in range(3):
        step()
    return Built(step, {}, "cpu")


RIVALS = ("jax.grad", "flax", "equinox", "haiku")

BENCHMARK = Benchmark(
    "feed-forward training step",
    (
        Contender("by_hand", by_hand),
        Contender("value_and_grad_by_hand", no_autodiff),
        Contender("jax.grad", autodiff),
        Contender("flax", flax, "flax"),
        Contender("equinox", equinox, "equinox"),
        Contender("haiku", haiku, "dm-haiku"),
        Contender("pytorch", pytorch, "torch"),
    ),
    (Claim("by_hand", RIVALS), Claim("value_and_grad_by_hand", RIVALS)),
    settings=Settings(),
    quick=Settings(batch=64, widths=(32, 32, 32, 10)),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, arguments(__doc__).parse_args()))
