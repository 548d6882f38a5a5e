"""Logistic regression on breast cancer data: Newton's dozen steps, and how many the rules of first order take.

The loss is the mean cross entropy with an L2 penalty, 569 tumours by 30 features (z-scores) and a bias, in
float64. Every updater starts from zeros and runs until the gradient's norm is 1e-10; those of first order run
at each rate of a grid, and the fastest one counts.

    python examples/newton_logistic.py [--quick] [--out DIR]
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer
from tqdm import tqdm

import fnnets as fn

TARGET = 1e-10  # of the gradient's norm
PENALTY = 1e-2
FIRST_ORDER = {
    "sgd": fn.updaters.sgd,
    "momentum": fn.updaters.momentum,
    "nesterov": fn.updaters.nesterov,
    "adagrad": lambda rate: fn.updaters.adagrad(rate, initial_accumulator=0.0, eps=1e-30),
    "adadelta": fn.updaters.adadelta,
    "rmsprop": fn.updaters.rmsprop,
    "adam": fn.updaters.adam,
    "adamw": lambda rate: fn.updaters.adamw(rate, weight_decay=0.0),
}
NEWTON = {
    "newton": fn.updaters.newton(),
    "newton, conjugate gradients": fn.updaters.newton(solver="cg", tolerance=1e-10),
}


def problem():
    """The loss of the network's parameters, and where they start."""
    data = load_breast_cancer()
    x = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0, ddof=1))
    target = jnp.asarray(data.target, x.dtype)[:, None]
    net, cross_entropy = fn.dense(1), fn.losses.sigmoid_cross_entropy()

    def loss(params):
        return cross_entropy.apply(net.apply(params, x), target) + PENALTY / 2 * (params.w**2).sum()

    return loss, fn.Dense(jnp.zeros((x.shape[1], 1)), jnp.zeros(1))


def steps_to_target(updater, loss, start, limit):
    """The steps until the gradient's norm is TARGET (limit where it is not), and the norm reached."""

    def going(carry):
        _, _, grads, steps = carry
        return (optax.tree.norm(grads) > TARGET) & (steps < limit)

    def step(carry):
        params, state, grads, steps = carry
        updates, state = updater.update(grads, state, params, value_fn=loss)
        params = optax.apply_updates(params, updates)
        return params, state, jax.grad(loss)(params), steps + 1

    first = (start, updater.init(start), jax.grad(loss)(start), 0)
    _, _, grads, steps = jax.lax.while_loop(going, step, first)
    return steps, optax.tree.norm(grads)


def norms(updater, loss, start, steps):
    """The gradient's norm before each step."""

    def step(carry, _):
        params, state = carry
        grads = jax.grad(loss)(params)
        updates, state = updater.update(grads, state, params, value_fn=loss)
        return (optax.apply_updates(params, updates), state), (optax.tree.norm(grads), state)

    return jax.lax.scan(step, (start, updater.init(start)), length=steps)[1]


def show_newton(loss, start):
    """Prints Newton's steps one by one; returns how many it took with each solver."""
    counts = {}
    for name, updater in NEWTON.items():
        path, state = jax.jit(lambda updater=updater: norms(updater, loss, start, 13))()
        counts[name] = int(np.argmax(np.asarray(path) <= TARGET)) if path.min() <= TARGET else 13
        print(f"\n{name}\n step  gradient norm  damping  step length  CG iterations")
        for i in range(counts[name]):
            print(
                f"{i:5d} {path[i]:14.2e} {state.damping[i]:8.1e} {state.step_length[i]:12.3f} {state.iterations[i]:14d}"
            )
        print(f"{counts[name]:5d} {path[counts[name]]:14.2e}")
    return counts


def race(loss, start, limit, rates):
    """For each first-order updater the fastest rate's (steps, norm, rate)."""
    fastest = {}
    for name, make in tqdm(FIRST_ORDER.items(), disable=None):
        run = jax.jit(jax.vmap(lambda rate, make=make: steps_to_target(make(rate), loss, start, limit)))
        steps, norm = (np.asarray(part) for part in run(rates))
        best = np.lexsort((np.nan_to_num(norm, nan=np.inf), steps))[0]
        fastest[name] = (int(steps[best]), float(norm[best]), float(rates[best]))
    return fastest


def show_race(counts, fastest, limit):
    """Prints the table of all updaters."""
    print(f"\nsteps to a gradient norm of {TARGET:g}\n{'updater':30s} {'steps':>8s}   rate     norm reached")
    for name, count in counts.items():
        print(f"{name:30s} {count:8d}   -")
    for name, (steps, norm, rate) in sorted(fastest.items(), key=lambda item: item[1]):
        count = f"{steps:8d}" if norm <= TARGET else f"> {limit:6d}"
        print(f"{name:30s} {count}   {rate:<8.3g} {norm:.1e}")


def draw(loss, start, fastest, steps, path):
    """The gradient's norm along each run, on two scales of steps."""
    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    runs = {name: updater for name, updater in NEWTON.items() if name == "newton"}
    runs |= {name: FIRST_ORDER[name](rate) for name, (_, _, rate) in fastest.items()}
    colours = plt.get_cmap("tab10").colors
    for (name, updater), colour in zip(runs.items(), colours, strict=False):
        length = 9 if name == "newton" else steps
        values = np.asarray(jax.jit(lambda u=updater, n=length: norms(u, loss, start, n))()[0])
        label = name if name == "newton" else f"{name}, rate {fastest[name][2]:.3g}"
        width = 3 if name == "newton" else 1.4
        axes.loglog(np.arange(length) + 1, values, color=colour, linewidth=width, label=label, zorder=width)
    axes.axhline(TARGET, color="0.4", linewidth=0.8, linestyle="--")
    axes.text(steps, TARGET * 1.3, "the target", ha="right", color="0.4")
    axes.set(
        xlabel="step (logarithmic)",
        ylabel="norm of the gradient",
        title="Logistic regression on breast cancer data: Newton, and first order at its best rate",
        ylim=(1e-13, 10),
    )
    axes.legend(loc="lower left", fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    """Counts, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rates and steps")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("pictures"), help="where pictures go"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    limit, count = (2_000, 5) if options.quick else (20_000, 13)
    with jax.enable_x64(True):
        loss, start = problem()
        counts = show_newton(loss, start)
        fastest = race(loss, start, limit, jnp.logspace(-3, 1, count))
        show_race(counts, fastest, limit)
        draw(loss, start, fastest, limit, options.out / "newton_logistic.png")
    print(f"\n{options.out / 'newton_logistic.png'}")


if __name__ == "__main__":
    main()
