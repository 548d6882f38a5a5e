"""Backpropagation by the numbers: `python examples/studies/worked_example.py`.

A network with 2 inputs, 2 hidden units and 2 outputs, all with sigmoids, is small enough to follow with a pencil. The
study prints its first training step, and its error after 10,000 steps, beside the numbers of the well-known worked
example; all agree to the last published digit. The names of the weights are those of the example:

    i1, i2 ── w1 w2 (into h1), w3 w4 (into h2) ──> h1, h2 ── w5 w6 (into o1), w7 w8 (into o2) ──> o1, o2

For w5, for example, the chain rule gives ∂E/∂w5 = (o1 − t1) · o1(1 − o1) · h1: the error, the slope of the sigmoid, and
the weight's input. All units of a layer share one bias, which is not trained: `fn.freeze` trains only the weights.

Then XOR, which no network without a hidden layer can learn: 5 hidden units, random weights, one random example per
step, trained until the sum of the four errors is below 0.001.

`--quick` trains XOR for fewer steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREEN, GREY, ORANGE, options, picture, progress, run, table

import fnnets as fn

STEPS = 10_000
CHUNK, CHUNKS = 5_000, 40  # steps of XOR between two checks of its error, and the most checks
LOSS = fn.losses.half_squared_error()

# The published numbers of the example, with all their digits.
FIRST_STEP = {
    "output o1": "0.75136507",
    "output o2": "0.77292847",
    "error E": "0.298371109",
    "∂E/∂w5": "0.082167041",
    "w5 after one step": "0.35891648",
    "w1 after one step": "0.14978072",
}
ERRORS = {(0.01, 0.99): "3.510188e-05", (0.01, 0.09): "1.810245e-05"}  # by targets, after 10,000 steps

XOR = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)), ((0.0,), (1.0,), (1.0,), (0.0,))


def network(hidden: int, outputs: int) -> fn.Layer:
    """Two dense layers, each followed by a sigmoid."""
    return fn.serial(fn.dense(hidden), fn.sigmoid(), fn.dense(outputs), fn.sigmoid())


def only_weights(updater: Any) -> Any:
    """The updater for weights alone; biases stay fixed."""
    return fn.freeze(updater, lambda params: jax.tree.map(lambda kernel: not kernel, fn.kernels(params)))


UPDATER = only_weights(optax.sgd(0.5))


def stepper(net: fn.Layer) -> Any:
    """One step of training: `((params, memory), (x, target)) -> ((params, memory), error before it)`."""
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)

    def step(state: Any, example: Any) -> tuple[Any, jax.Array]:
        params, memory = state
        (error, _), grads = value_and_grad(params, *example)
        updates, memory = UPDATER.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), error

    return step


def worked_example(targets: tuple[float, float]) -> tuple[dict[str, float], np.ndarray]:
    """The numbers of the first step, and the errors before every step and after the last one."""
    x, target = jnp.array([0.05, 0.10]), jnp.array(targets)
    params = (
        fn.Dense(w=jnp.array([[0.15, 0.25], [0.20, 0.30]]), b=jnp.full(2, 0.35)),  # w1 w3, w2 w4
        (),
        fn.Dense(w=jnp.array([[0.40, 0.50], [0.45, 0.55]]), b=jnp.full(2, 0.60)),  # w5 w7, w6 w8
        (),
    )
    net = network(2, 2)
    (error, aux), grads = fn.value_and_grad_by_hand(net, LOSS)(params, x, target)

    @jax.jit
    def train(params: Any) -> tuple[Any, Any, jax.Array]:
        step, start = stepper(net), (params, UPDATER.init(params))
        (first, _), _ = step(start, (x, target))
        (last, _), errors = jax.lax.scan(lambda state, _: step(state, (x, target)), start, length=STEPS)
        return first, last, errors

    first, last, errors = train(params)
    after = LOSS.apply(net.apply(last, x), target)
    numbers = (*aux.y, error, grads[2].w[0, 0], first[2].w[0, 0], first[0].w[0, 0])
    return dict(zip(FIRST_STEP, map(float, numbers), strict=True)), np.append(errors, after)


def as_written(value: float, like: str) -> str:
    """The value with as many digits as `like` has."""
    digits = len(like.partition(".")[2].partition("e")[0])
    return f"{value:.{digits}{'e' if 'e' in like else 'f'}}"


def xor(enough: float) -> tuple[fn.Layer, Any, np.ndarray]:
    """The network trained until its error is below `enough`, its params, and its errors during training."""
    net, step, (x, target) = network(5, 1), stepper(network(5, 1)), map(jnp.array, XOR)
    *keys, order_key = jax.random.split(jax.random.key(0), 5)
    draws = [
        jax.random.uniform(key, shape) for key, shape in zip(keys, ((2, 5), (), (5, 1), ()), strict=True)
    ]
    params = (fn.Dense(draws[0], jnp.full(5, draws[1])), (), fn.Dense(draws[2], jnp.full(1, draws[3])), ())

    def one(state: Any, i: jax.Array) -> tuple[Any, jax.Array]:
        state, _ = step(state, (x[i], target[i]))
        return state, LOSS.apply(net.apply(state[0], x), target)

    @jax.jit
    def chunk(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(one, state, jax.random.randint(key, (CHUNK,), 0, len(x)))

    state, errors = (params, UPDATER.init(params)), []
    for i in progress(range(CHUNKS), "XOR"):
        state, values = chunk(state, jax.random.fold_in(order_key, i))
        errors.append(np.asarray(values))
        if values[-1] < enough:
            break
    return net, state[0], np.concatenate(errors)


def draw(figure: Any, errors: dict[Any, np.ndarray], solved: tuple[fn.Layer, Any, np.ndarray]) -> None:
    """The errors of the worked example and of XOR, and the output of XOR's network over the square."""
    net, params, xor_errors = solved
    curves, xor_curve, square = figure.subplots(1, 3, width_ratios=(1, 1, 1.05))
    for (targets, values), color in zip(errors.items(), (BLUE, ORANGE), strict=True):
        curves.loglog(np.arange(1, len(values) + 1), values, color=color, label=f"targets {targets}")
    curves.set(title="The worked example", xlabel="step", ylabel="error E")
    curves.legend()

    xor_curve.semilogy(np.arange(1, len(xor_errors) + 1) / 1000, xor_errors, color=GREEN, linewidth=1)
    xor_curve.set(title="XOR, one example per step", xlabel="steps / 1000", ylabel="error of all four")

    ticks = np.linspace(-0.25, 1.25, 121)
    y = net.apply(params, jnp.stack(jnp.meshgrid(ticks, ticks), axis=-1))[..., 0]
    shades = square.contourf(ticks, ticks, y, levels=np.linspace(0, 1, 21), cmap="RdBu_r")
    square.contour(ticks, ticks, y, levels=[0.5], colors="black", linewidths=1)
    for (a, b), (target,) in zip(*XOR, strict=True):
        square.plot(a, b, "o", markersize=18, color="white", markeredgecolor=GREY)
        square.text(a, b, f"{target:.0f}", ha="center", va="center", weight="bold")
    square.set(title="Its output (black: ½)", xlabel="x₁", ylabel="x₂", aspect="equal")
    square.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    square.grid(False)
    figure.colorbar(shades, ax=square, ticks=(0, 0.5, 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the published numbers beside the computed ones, then XOR."""
    chosen = options(__doc__, argv)
    with jax.enable_x64(True):
        results = {targets: worked_example(targets) for targets in progress(ERRORS, "worked example")}
        numbers, _ = results[0.01, 0.99]
        rows = [
            (name, expected, as_written(numbers[name], expected)) for name, expected in FIRST_STEP.items()
        ]
        rows += [
            (
                f"E after {STEPS:,} steps, targets {targets}",
                expected,
                as_written(results[targets][1][-1], expected),
            )
            for targets, expected in ERRORS.items()
        ]
        print(table(("", "expected", "computed"), rows))
        same = [expected == computed for _, expected, computed in rows]
        print(f"\n{sum(same)} of {len(same)} agree in every digit")

        net, params, errors = xor(0.01 if chosen.quick else 0.001)
        print(f"\nXOR with 5 hidden units: E = {errors[-1]:.6f} after {len(errors):,} steps\n")
        answers = net.apply(params, jnp.array(XOR[0]))
        lines = zip(*XOR, answers.tolist(), strict=True)
        print(
            table(
                ("input", "target", "output"),
                [(f"{a:.0f}, {b:.0f}", f"{t:.0f}", f"{y:.4f}") for (a, b), (t,), (y,) in lines],
            )
        )
        with picture(chosen.out / "worked_example.png", 13, 4) as figure:
            draw(figure, {targets: errors for targets, (_, errors) in results.items()}, (net, params, errors))
    return 0 if all(same) else 1


if __name__ == "__main__":
    run(main)
