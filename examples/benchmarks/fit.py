"""`fn.train.fit` against a hand-written loop of the same steps: `python examples/benchmarks/fit.py`.

Both train the same network for the same number of epochs, from the initial params to the losses in NumPy. In the
hand-written loop an epoch is a compiled `lax.scan` over batches in an order of `jax.random.permutation`, with donated
buffers and nothing else. `fit` shuffles in its own way, checks that losses are finite, keeps a history and handles
Ctrl-C. Everything is compiled beforehand. The claim: at most 1.05 × the loop's time, within the interval.

Options: those of every benchmark (`--quick`, `--rounds`, `--json`, `--check`).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import Benchmark, Claim, arguments, main
from processes import Built, Contender

import fnnets as fn

LOSS, UPDATER = fn.losses.softmax_cross_entropy(), optax.adam(1e-3)
MOST = 1.05


class Settings(NamedTuple):
    """The sizes."""

    examples: int = 8192
    batch: int = 128
    widths: tuple[int, ...] = (64, 128, 128, 10)
    epochs: int = 10


def problem(settings: Settings) -> tuple[fn.Layer, jax.Array, jax.Array]:
    """A network, inputs and labels."""
    first, *hidden, last = settings.widths
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((settings.examples, first), dtype=np.float32))
    labels = jnp.asarray(rng.integers(last, size=settings.examples).astype(np.int32))
    layers = [layer for width in hidden for layer in (fn.dense(width), fn.relu())]
    return fn.serial(*layers, fn.dense(last)), x, labels


def by_fit(settings: Settings) -> Built:
    """`fn.train.fit`."""
    net, x, labels = problem(settings)

    def once() -> None:
        fitted = fn.train.fit(
            net, LOSS, UPDATER, (x, labels),
            epochs=settings.epochs, key=jax.random.key(0), batch_size=settings.batch,
        )  # fmt: skip
        jax.block_until_ready(fitted.params)

    once()
    return Built(once, {}, jax.devices()[0].device_kind)


def by_loop(settings: Settings) -> Built:
    """The loop written by hand."""
    net, x, labels = problem(settings)
    value_and_grad, init = fn.value_and_grad_by_hand(net, LOSS), jax.jit(net.init)

    def step(state: Any, batch: Any) -> Any:
        (params, memory), (x, labels) = state, batch
        (value, _), grads = value_and_grad(params, x, labels)
        updates, memory = UPDATER.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: Any, key: Any, x: Any, labels: Any) -> Any:
        rows = jax.random.permutation(key, settings.examples).reshape(-1, settings.batch)
        return jax.lax.scan(lambda state, rows: step(state, (x[rows], labels[rows])), state, rows)

    def once() -> None:
        key, losses = jax.random.key(0), []
        params = init(key, x[:1])
        state = params, UPDATER.init(params)
        for i in range(settings.epochs):
            state, values = epoch(state, jax.random.fold_in(key, i), x, labels)
            losses.append(np.asarray(values))
        jax.block_until_ready(state)

    once()
    return Built(once, {}, jax.devices()[0].device_kind)


BENCHMARK = Benchmark(
    title="a training of whole epochs",
    contenders=(Contender("loop by hand", by_loop), Contender("fit", by_fit)),
    claims=(Claim("fit", ("loop by hand",), figures=(), times=MOST),),
    settings=Settings(),
    quick=Settings(256, 32, (8, 16, 4), 2),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, arguments(__doc__).parse_args()))
