"""Where gradients vanish, and what helps: `python examples/studies/saturation.py`.

**Behind a sigmoid.** One neuron, y = σ(z), z = w·1 + b, should answer 0 and starts at 0.98, confident in the wrong
answer. Its gradient is ∂E/∂z:

    squared error  E = ½(y − t)²                      ∂E/∂z = (y − t) · σ'(z),  σ'(z) = y(1 − y)
    cross entropy  E = −t·log y − (1 − t)·log(1 − y)  ∂E/∂z = y − t

The further the neuron is from its target, the flatter its sigmoid, and the less it learns from the squared error. In
the derivative of the cross entropy, σ' cancels.

**In depth.** On its way to the first of ten layers a gradient is multiplied by nine derivatives f'. For sigmoid f' is
at most 1/4, so little of the gradient remains, and the early layers hardly move. For relu f' is 1 where a unit is
active, and He's initial weights, of variance 2/D, compensate for the inactive units. A residual connection adds 1 to
every factor. The study shows the norms of the kernels' gradients on handwritten digits before training, for several
seeds, and how far the kernels have moved after some steps of gradient descent.

`--quick` takes fewer networks, seeds and steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from support.common import BLUE, GREEN, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

DEPTH, WIDTH, RATE = 10, 64, 0.1
LECUN, HE = jax.nn.initializers.lecun_uniform(), jax.nn.initializers.he_uniform()  # variance 1/D, 2/D
LOSS = fn.losses.softmax_cross_entropy()


class Neuron(NamedTuple):
    """The course of a neuron's training."""

    y: np.ndarray  # (steps,)
    dz: np.ndarray  # (steps,), |∂E/∂z|


class Depth(NamedTuple):
    """The gradient and the movement of each layer's kernel, for every seed."""

    gradient: np.ndarray  # (seeds, DEPTH), the norm of its gradient before training
    moved: np.ndarray  # (seeds, DEPTH), |w − w₀|/|w₀| after training
    loss: np.ndarray  # (seeds,), after training


def neuron(activation: fn.Layer, loss: Any, steps: int) -> Neuron:
    """A neuron that starts at σ(4) = 0.98, should answer 0, and learns with the rate 0.5."""
    net, x, t = fn.serial(fn.dense(1), activation), jnp.ones(1), jnp.zeros(1)
    value_and_grad = fn.value_and_grad_by_hand(net, loss)

    def step(params: Any, _: None) -> tuple[Any, Neuron]:
        _, grads = value_and_grad(params, x, t)
        z = params[0].w[0, 0] + params[0].b[0]
        dz = grads[0].b[0]  # z = w·x + b, so ∂E/∂b is ∂E/∂z
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), Neuron(jax.nn.sigmoid(z), jnp.abs(dz))

    start = (fn.Dense(w=jnp.full((1, 1), 2.0), b=jnp.full(1, 2.0)), ())
    _, found = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))(start)
    return jax.tree.map(np.asarray, found)


def deep(activation: fn.Layer, kernel_init: Any, *, skip: bool = False) -> fn.Layer:
    """Nine layers with an activation, each with a residual connection if `skip`, and an output layer."""
    hidden = fn.serial(fn.dense(WIDTH, kernel_init=kernel_init), activation)
    return fn.serial(fn.stack(fn.residual(hidden) if skip else hidden, DEPTH - 1), fn.dense(10))


NETS = {
    "sigmoid": deep(fn.sigmoid(), LECUN),
    "relu (He)": deep(fn.relu(), HE),
    "relu": deep(fn.relu(), LECUN),
    "residual sigmoid": deep(fn.sigmoid(), LECUN, skip=True),
}


def digits(n: int) -> tuple[jax.Array, jax.Array]:
    """Standardised digits and their labels; this study tests nothing, so none are held out."""
    from sklearn.datasets import load_digits

    x, t = load_digits(return_X_y=True)
    deviation = x.std(0)
    x = (x - x.mean(0)) / np.where(deviation == 0, 1, deviation)
    return jnp.asarray(x[:n]), jnp.asarray(t[:n])


def kernel_norms(params: Any) -> jax.Array:
    """The norm of every layer's kernel, (DEPTH,); a stack's kernels are one leaf, with the depth as its first axis."""
    chosen = zip(jax.tree.leaves(params), jax.tree.leaves(fn.kernels(params)), strict=True)
    norms = [jnp.linalg.norm(leaf, axis=(-2, -1)) for leaf, kernel in chosen if kernel]
    return jnp.concatenate([jnp.atleast_1d(norm) for norm in norms])


def depth(net: fn.Layer, seeds: int, steps: int) -> Depth:
    """The network before and after training, for every seed."""
    x, t = digits(256)
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)

    def step(params: Any, _: None) -> tuple[Any, None]:
        _, grads = value_and_grad(params, x, t)
        return jax.tree.map(lambda p, g: p - RATE * g, params, grads), None

    def one(key: jax.Array) -> Depth:
        start = net.init(key, x)
        _, grads = value_and_grad(start, x, t)
        last, _ = jax.lax.scan(step, start, length=steps)
        moved = kernel_norms(jax.tree.map(jnp.subtract, last, start)) / kernel_norms(start)
        return Depth(kernel_norms(grads), moved, LOSS.apply(net.apply(last, x), t))

    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.tree.map(np.asarray, jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def print_neurons(neurons: dict[str, Neuron]) -> None:
    """Prints the two neurons side by side."""
    squared, entropy = neurons.values()
    shown = [i for i in (0, 1, 5, 10, 20, 50, 100, 200, 299) if i < len(squared.y)]
    rows = [
        (i, f"{squared.y[i]:.3f}", f"{squared.dz[i]:.4f}", f"{entropy.y[i]:.3f}", f"{entropy.dz[i]:.4f}")
        for i in shown
    ]
    print("One neuron that starts on the wrong side of its sigmoid and should answer 0\n")
    print(table(("step", "y, squared error", "|∂E/∂z|", "y, cross entropy", "|∂E/∂z|"), rows))
    ratio = entropy.dz[0] / squared.dz[0]
    print(f"\nAt the start the gradient of the cross entropy is {ratio:.1f} times as large: 1/σ'(4).")
    first = {name: int(np.argmax(found.y < 0.5)) for name, found in neurons.items()}
    print("Steps until y < 1/2: " + ", ".join(f"{n} with {name}" for name, n in first.items()) + ".")


def print_depths(depths: dict[str, Depth], steps: int) -> None:
    """Prints the medians over the seeds, layer by layer."""
    for title, field in (
        ("Norm of the gradient of each layer's kernel before training", "gradient"),
        (f"|w − w₀|/|w₀| of each layer's kernel after {steps} steps", "moved"),
    ):
        medians = {name: np.median(getattr(found, field), axis=0) for name, found in depths.items()}
        rows = [(i + 1, *(f"{values[i]:.1e}" for values in medians.values())) for i in range(DEPTH)]
        rows.append(("first/last", *(f"{values[0] / values[-1]:.1e}" for values in medians.values())))
        print(f"\n{title}\n\n{table(('layer', *medians), rows)}")
    losses = [(name, f"{np.median(found.loss):.3f}") for name, found in depths.items()]
    print(
        f"\nAfter {steps} steps; a guess has loss log 10 = {np.log(10):.3f}\n\n{table(('', 'loss'), losses)}"
    )


def draw(figure: Any, neurons: dict[str, Neuron], depths: dict[str, Depth], steps: int) -> None:
    """Top: the neuron. Bottom: the deep networks."""
    (answer, slope), (gradient, moved) = figure.subplots(2, 2)
    for (name, found), color in zip(neurons.items(), (RED, GREEN), strict=True):
        answer.plot(found.y, color=color, label=name)
        slope.semilogy(found.dz, color=color, label=name)
    answer.set(title="One neuron, wrong at first: its answer", xlabel="step", ylim=(0, 1))
    answer.set(ylabel="y (0 is correct)")
    slope.set(title="Its gradient", xlabel="step", ylabel="|∂E/∂z|")
    answer.legend()

    layers, colors = np.arange(1, DEPTH + 1), (RED, BLUE, GREY, ORANGE)
    for axes, field in ((gradient, "gradient"), (moved, "moved")):
        for (name, found), color in zip(depths.items(), colors, strict=False):
            values = getattr(found, field)
            axes.semilogy(layers, np.median(values, axis=0), ".-", color=color, label=name)
            axes.fill_between(layers, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)
        axes.set(xlabel="layer", xticks=layers)
    gradient.set(title="Ten layers: gradient before training", ylabel="norm of ∂E/∂w")
    moved.set(title=f"How far kernels moved in {steps} steps", ylabel="|w − w₀| / |w₀|")
    gradient.legend(loc="lower right")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and draws both."""
    chosen = options(__doc__, argv)
    neurons = {
        "squared error": neuron(fn.sigmoid(), fn.losses.half_squared_error(), 300),
        "cross entropy": neuron(fn.identity(), fn.losses.sigmoid_cross_entropy(), 300),
    }
    print_neurons(neurons)
    nets, seeds, steps = (list(NETS)[:2], 3, 20) if chosen.quick else (list(NETS), 10, 200)
    depths = {name: depth(NETS[name], seeds, steps) for name in progress(nets, "networks")}
    print_depths(depths, steps)
    with picture(chosen.out / "saturation.png", 11, 8) as figure:
        draw(figure, neurons, depths, steps)
    return 0


if __name__ == "__main__":
    run(main)
