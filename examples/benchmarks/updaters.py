"""A step of each updater against optax's of the same name: `python examples/benchmarks/updaters.py`.

The step is updater.update and optax.apply_updates on float32 parameters in leaves of equal size, with fixed gradients
and donated buffers. Newton is left out: optax has no counterpart. The claim for each: no slower than optax's, and no
more temporary memory.

Options: those of every benchmark (`--quick`, `--rounds`, `--json`, `--check`), and `--only NAME` for one updater.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from harness import Benchmark, Claim, arguments, main
from processes import Built, Contender, jitted

from fnnets import updaters

# name: (ours, optax's), with settings that make the two rules equal
PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "sgd": (lambda: updaters.sgd(1e-3), lambda: optax.sgd(1e-3)),
    "momentum": (lambda: updaters.momentum(1e-3), lambda: optax.sgd(1e-3, 0.9)),
    "nesterov": (lambda: updaters.nesterov(1e-3), lambda: optax.sgd(1e-3, 0.9, nesterov=True)),
    "adagrad": (lambda: updaters.adagrad(1e-3), lambda: optax.adagrad(1e-3)),
    "adadelta": (lambda: updaters.adadelta(1.0), lambda: optax.adadelta(1.0)),
    "rmsprop": (lambda: updaters.rmsprop(1e-3), lambda: optax.rmsprop(1e-3)),
    "rmsprop centered": (
        lambda: updaters.rmsprop(1e-3, centered=True),
        lambda: optax.rmsprop(1e-3, centered=True),
    ),
    "adam": (lambda: updaters.adam(1e-3), lambda: optax.adam(1e-3)),
    "adamw": (lambda: updaters.adamw(1e-3), lambda: optax.adamw(1e-3)),
}


class Settings(NamedTuple):
    """The number of parameters and of leaves."""

    parameters: int = 10_000_000
    leaves: int = 50


def build(settings: Settings, name: str, which: int) -> Built:
    """One step of the updater, with its params and state."""
    updater = PAIRS[name][which]()
    size = settings.parameters // settings.leaves
    keys = jax.random.split(jax.random.key(0), settings.leaves)
    params = [jax.random.normal(key, (size,)) for key in keys]
    grads = [0.1 * jax.random.normal(jax.random.fold_in(key, 1), (size,)) for key in keys]

    def step(state: Any, grads: Any) -> tuple[Any, jax.Array]:
        params, inner = state
        updates, inner = updater.update(grads, inner, params)
        return (optax.apply_updates(params, updates), inner), jnp.zeros(())

    return jitted(step, (params, updater.init(params)), grads)


def benchmark(name: str) -> Benchmark:
    """The two contenders of one name."""
    ours, theirs = f"fnnets {name}", f"optax {name}"
    return Benchmark(
        title=name,
        contenders=(
            Contender(ours, partial(build, name=name, which=0)),
            Contender(theirs, partial(build, name=name, which=1), "optax"),
        ),
        claims=(Claim(ours, (theirs,), figures=("temp",)),),
        settings=Settings(),
        quick=Settings(100_000, 50),
    )


QUICK = ("sgd", "adam")

if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=PAIRS, help="measure only this updater")
    options = parser.parse_args()
    if options.json and not options.only:
        parser.error("--json writes one updater: name it with --only")
    failed = 0
    for name in [options.only] if options.only else QUICK if options.quick else PAIRS:
        failed |= main(benchmark(name), options)
        print(flush=True)
    sys.exit(failed)
