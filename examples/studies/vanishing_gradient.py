"""Why gradients vanish over time, and how gates help: `python examples/studies/vanishing_gradient.py`.

**One unit.** A network with one input, one recurrent unit and one output, s_t = f(w·s_{t−1} + x_t), y_t = s_t, gets 1 at
t = 0 and 0 afterwards. The study draws the effect of this input on y_t, and its gradient

    ∂y_t/∂x_0 = w^t · f'(z_0)·f'(z_1)···f'(z_t),  z_t = w·s_{t−1} + x_t

for |w| below, at and above 1. A product of t + 1 factors vanishes or explodes exponentially in t; with the identity and
with relu, w alone decides which. tanh and sigmoid have f' ≤ 1 and f' ≤ 1/4: with a large w they saturate, f' falls, and
the product vanishes as well.

**The adding problem.** Each of 100 steps has a number from [0, 1) and a mark, which is 1 at two steps (one in each half)
and 0 elsewhere. The target at the end is the sum of the two marked numbers, up to 100 steps back. Always answering 1
gives the error 1/6, the variance; a network solves the problem here if its mean squared error on 1000 new sequences is
below 0.01. Four kinds of cells are trained from 5 seeds, with and without clipping the gradient's global norm, all ten
networks of a kind in one vmapped program, with the gradient by hand alone:

- Elman's with tanh. Its gradient vanishes, and it learns nothing.
- Elman's with relu, and u = 1, the identity, at the start (the IRNN of Le et al.). At first it keeps the state and the
  gradient unchanged, but the gradient explodes as soon as u has an eigenvalue above 1. The network learns with clipping,
  but not without.
- LSTM and GRU. Before training their gradients vanish too, the GRU's fastest of all: gates do not keep the gradient,
  but they can learn to. After training it flows back through 100 steps undiminished.

`fn.gradient_flow` gives the flow of the gradient for the first seed, before and after training: the norm of
∂s_t/∂s_k, where s_k is the whole state after k steps.

`--quick` takes fewer seeds and steps; `--out DIR` is the folder for the pictures.

Hochreiter & Schmidhuber, Long short-term memory (1997), section 5.4, for the problem; Le, Jaitly & Hinton (2015) and Arjovsky,
Shah & Bengio (2016), section 5.3, for its form here; Pascanu, Mikolov & Bengio (2013), for the clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREEN, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

WEIGHTS = {0.5: BLUE, 0.9: GREEN, 1.0: GREY, 1.1: ORANGE, 2.0: RED}
ACTIVATIONS = {"identity": fn.identity(), "tanh": fn.tanh(), "sigmoid": fn.sigmoid(), "relu": fn.relu()}

LENGTH, UNITS, BATCH, SOLVED = 100, 16, 20, 0.01
CLIPPED = {"clipped at norm 1": 1.0, "not clipped": np.inf}


class Kind(NamedTuple):
    """A kind of cell."""

    cell: fn.Layer
    rate: float  # Adam's
    color: str


def identity(key: Any, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """A recurrent kernel that passes the state on unchanged."""
    del key
    return jnp.eye(*shape, dtype=dtype)


KINDS = {
    "Elman": Kind(fn.elman(UNITS), 0.01, RED),
    "Elman, relu, u = 1 at first": Kind(fn.elman(UNITS, fn.relu(), recurrent_init=identity), 0.003, ORANGE),
    "LSTM": Kind(fn.lstm(UNITS), 0.01, BLUE),
    "GRU": Kind(fn.gru(UNITS), 0.01, GREEN),
}
LOSS = fn.losses.mse()


class Unit(NamedTuple):
    """The effect of the input at t = 0 on one unit; W weights."""

    left: np.ndarray  # (W, T), y_t minus its value without the input
    effect: np.ndarray  # (W, T), ∂y_t/∂x_0
    product: np.ndarray  # (W, T), the same by the formula


def one_unit(activation: fn.Layer, steps: int) -> Unit:
    """The unit at every weight, with its gradient by the layer's own backward."""
    net, x = fn.elman(1, activation), jnp.zeros((steps, 1)).at[0].set(1)

    def at(w: jax.Array) -> Unit:
        params = fn.Elman(jnp.ones((1, 1)), w[None, None], None)
        y, _, saved = net.forward(params, x)

        def effect(t: jax.Array) -> jax.Array:
            _, dx, _ = net.backward(params, saved, jax.nn.one_hot(t, steps)[:, None])
            return dx[0, 0]

        z = w * jnp.concatenate([jnp.zeros((1, 1)), y[:-1]]) + x
        _, _, saved_slope = activation.forward((), z)
        _, slope, _ = activation.backward((), saved_slope, jnp.ones_like(z))
        product = w ** jnp.arange(steps) * jnp.cumprod(slope[:, 0])
        silent = net.apply(params, jnp.zeros_like(x))
        return Unit((y - silent)[:, 0], jax.vmap(effect)(jnp.arange(steps)), product)

    net = fn.elman(1, activation, use_bias=False)
    return jax.device_get(jax.jit(jax.vmap(at))(jnp.array(list(WEIGHTS))))


def adding(key: Any, batch: int) -> tuple[jax.Array, jax.Array]:
    """Sequences of numbers and marks, x (batch, T, 2), and the sums of the marked numbers (batch, 1)."""
    drawn = jax.random.uniform(key, (batch, LENGTH + 2))
    numbers, half = drawn[:, :LENGTH], LENGTH // 2
    first, second = jnp.floor(drawn[:, LENGTH:] * half).astype(int).T
    steps = jnp.arange(LENGTH)
    marked = (steps == first[:, None]) | (steps == half + second[:, None])
    total = jnp.where(marked, numbers, 0).sum(1, keepdims=True)
    return jnp.stack([numbers, marked.astype(numbers.dtype)], -1), total


class Runs(NamedTuple):
    """Training from S seeds, with and without clipping."""

    start: Any  # the params before training, (S, 2, …)
    params: Any  # the params after training
    losses: np.ndarray  # (S, 2, steps)
    norms: np.ndarray  # (S, 2, steps), of the gradient before it is clipped
    test: np.ndarray  # (S, 2), the mean squared error on new sequences


def network(cell: fn.Layer) -> fn.Layer:
    """A recurrent layer with a dense output at the end."""
    return fn.serial(cell, fn.last(), fn.dense(1))


def trained(name: str, seeds: int, steps: int, chunks: int = 10) -> Runs:
    """All runs of one kind of cell, in one program."""
    cell, rate, _ = KINDS[name]
    net = network(cell)
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)

    def updater(clip: Any) -> Any:
        return optax.chain(optax.clip_by_global_norm(clip), optax.adam(rate))

    def begin(key: Any, clip: Any) -> Any:
        params = net.init(key, jnp.zeros((1, LENGTH, 2)))
        return params, updater(clip).init(params)

    def chunk(state: Any, key: Any, clip: Any, steps: jax.Array) -> Any:
        def step(state: Any, i: jax.Array) -> Any:
            params, memory = state
            (value, _), grads = value_and_grad(params, *adding(jax.random.fold_in(key, i), BATCH))
            updates, memory = updater(clip).update(grads, memory)
            return (optax.apply_updates(params, updates), memory), (value, optax.tree.norm(grads))

        return jax.lax.scan(step, state, steps)

    def error(params: Any) -> jax.Array:
        x, t = adding(jax.random.key(99), 1000)
        return LOSS.apply(net.apply(params, x), t)

    def over_runs(function: Any, *axes: Any) -> Any:
        """The function over all seeds and clips."""
        inner = [{"key": None, "clip": 0}.get(axis, axis) for axis in axes]
        outer = [{"key": 0, "clip": None}.get(axis, axis) for axis in axes]
        return jax.jit(jax.vmap(jax.vmap(function, in_axes=inner), in_axes=outer))

    keys, clips = jax.random.split(jax.random.key(0), seeds), jnp.array(list(CLIPPED.values()))
    state = over_runs(begin, "key", "clip")(keys, clips)
    start, advance, found = state[0], over_runs(chunk, 0, "key", "clip", None), []
    for part in progress(np.arange(steps).reshape(chunks, -1), name):
        state, values = advance(state, keys, clips, part)
        found.append(jax.device_get(values))
    losses, norms = (np.concatenate(parts, -1) for parts in zip(*found, strict=True))
    test = over_runs(error, 0)(state[0])
    return Runs(start, state[0], losses, norms, np.asarray(test))


class Flow(NamedTuple):
    """The flow of the gradient for the first seed, before and after training."""

    before: Any
    after: Any


def flow(name: str, found: Runs, steps: int) -> Flow:
    """The flow of the gradient in the cell trained with clipping, on the first steps of a new sequence."""
    x = adding(jax.random.key(98), 1)[0][:, :steps]
    measure = jax.jit(partial(fn.gradient_flow, KINDS[name].cell))
    first = [jax.tree.map(lambda leaf: leaf[0, 0], params[0]) for params in (found.start, found.params)]
    return Flow(*(jax.device_get(measure(params, x)) for params in first))


def print_units(units: dict[str, Unit]) -> None:
    """Prints the gradient of the unit, and the difference of the formula from the layer's backward."""
    rows = [
        (f"{name}, w = {w}", *(f"{unit.effect[i, t]:.1e}" for t in (0, 10, 20, 40)))
        for name, unit in units.items()
        for i, w in enumerate(WEIGHTS)
    ]
    print("One unit: ∂y_t/∂x_0\n")
    print(table(("", "t = 0", "10", "20", "40"), rows))
    gaps = [np.abs(unit.effect - unit.product).max() / np.abs(unit.product).max() for unit in units.values()]
    print(f"\nThe formula and the layer's own backward differ by at most {max(gaps):.0e}.")


def print_runs(runs: dict[str, Runs], steps: int) -> None:
    """Prints which networks solved the adding problem."""
    rows = []
    for name, found in runs.items():
        for i, clipping in enumerate(CLIPPED):
            test = found.test[:, i]
            median = np.median(found.norms[:, i])
            rows.append(
                (
                    f"{name}, {clipping}",
                    f"{(test < SOLVED).sum()} of {len(test)}",
                    f"{np.median(test):.4f}",
                    f"{test.min():.4f}",
                    f"{test.max():.4f}",
                    f"{median:.2g}",
                    f"{found.norms[:, i].max():.3g}",
                )
            )
    print(
        f"\n\nThe adding problem, {LENGTH} steps, after {steps} batches of {BATCH}: test error below {SOLVED}\n"
    )
    head = ("", "solved", "test: median", "best", "worst", "gradient: median", "largest")
    print(table(head, rows))
    print(f"\nAlways answering 1 gives the error {1 / 6:.3f}.")


def draw_units(figure: Any, units: dict[str, Unit]) -> None:
    """Top: the effect of the input. Bottom: the gradient. A column for each activation."""
    rows = figure.subplots(2, len(units), sharex=True)
    for (above, below), (name, unit) in zip(rows.T, units.items(), strict=True):
        for i, (w, color) in enumerate(WEIGHTS.items()):
            above.plot(unit.left[i], color=color, label=f"w = {w}")
            below.semilogy(np.maximum(np.abs(unit.effect[i]), 1e-30), color=color)
        above.set(title=name, ylim=(-0.05, 1.6))
        below.set(xlabel="t", ylim=(1e-12, 1e6))
    rows[0, 0].set_ylabel("effect of the input on y_t")
    rows[1, 0].set_ylabel("∂y_t/∂x_0")
    handles, names = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def draw_runs(figure: Any, runs: dict[str, Runs], flows: dict[str, Flow]) -> None:
    """Top: the errors of every run. Bottom: the flow of the gradient before and after training."""
    errors, panels = figure.subplots(2, 2, sharey="row")
    for name, found in runs.items():
        color, window = KINDS[name].color, max(1, found.losses.shape[-1] // 60)
        smooth = found.losses.reshape(*found.losses.shape[:2], -1, window).mean(-1)
        at = (np.arange(smooth.shape[-1]) + 0.5) * window
        for i, axes in enumerate(errors):
            axes.semilogy(at, smooth[:, i].T, color=color, linewidth=1.2, alpha=0.8)
            axes.plot(
                [], [], color=color, label=f"{name}: {(found.test[:, i] < SOLVED).sum()} of {len(smooth)}"
            )
        for axes, one in zip(panels, flows[name], strict=True):
            norms = one.through_time[-1]
            axes.semilogy(np.arange(len(norms)) + 1, norms, color=color, label=name)
    for axes, clipping in zip(errors, CLIPPED, strict=True):
        axes.axhline(SOLVED, color=GREY, linestyle=":")
        axes.set(title=f"The adding problem, {clipping}", xlabel="batch", ylim=(1e-4, 3))
        axes.legend(title="solved", loc="lower left", fontsize=9)
    for axes, when in zip(panels, ("before training", "after training (clipped)"), strict=True):
        axes.set(title=f"The gradient on its way back, {when}", xlabel="k", ylim=(1e-15, 1e3))
    errors[0].set_ylabel("mean squared error")
    panels[0].set_ylabel("‖∂s_T/∂s_k‖")


def draw_flows(figure: Any, flows: dict[str, Flow]) -> None:
    """Every ∂s_t/∂s_k, before training (top) and after it (bottom); a column for each kind."""
    columns = figure.subplots(2, len(flows), squeeze=False).T
    for column, (name, found) in zip(columns, flows.items(), strict=True):
        for axes, one, when in zip(column, found, ("before", "after"), strict=True):
            fn.plots.gradient_flow(one, axes)
            axes.set_title(f"{name}, {when}")
            axes.grid(False)


def main(argv: Sequence[str] | None = None) -> int:
    """Studies one unit, then the adding problem."""
    chosen = options(__doc__, argv)
    names = list(ACTIVATIONS)[: 2 if chosen.quick else None]
    units = {name: one_unit(ACTIVATIONS[name], 50) for name in names}
    print_units(units)
    with picture(chosen.out / "vanishing_unit.png", 12, 6) as figure:
        draw_units(figure, units)

    seeds, steps, kinds = (2, 20, ["GRU"]) if chosen.quick else (5, 1500, list(KINDS))
    runs = {name: trained(name, seeds, steps) for name in kinds}
    print_runs(runs, steps)
    flows = {name: flow(name, found, 20 if chosen.quick else LENGTH) for name, found in runs.items()}
    with picture(chosen.out / "vanishing_gradient.png", 12, 8) as figure:
        draw_runs(figure, runs, flows)
    with picture(chosen.out / "vanishing_flow.png", 4.2 * len(flows), 7) as figure:
        draw_flows(figure, flows)
    return 0


if __name__ == "__main__":
    run(main)
