"""Logistic regression: the steps of Newton and of first-order updaters: `python examples/studies/newton_logistic.py`.

The loss is the mean cross entropy with an L2 penalty on scikit-learn's breast cancer data: 569 tumours with 30 features
(z-scores), and a bias, in float64. Every updater starts from zeros and runs until the gradient's norm is 1e-10.
First-order updaters run at every rate of a grid, in one vmapped `lax.while_loop`, and the fastest rate counts.

What to look for: near the end each step of Newton squares the gradient's norm, roughly: 1e-4, 1e-7, 1e-13. The others
gain a fixed factor per step at best. rmsprop never settles, because its step does not shrink with the gradient.

adamw runs without its decay, which would lead to another minimum; so it equals adam.

`--quick` tries fewer rates and steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import options, picture, progress, run, table

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
    "newton by conjugate gradients": fn.updaters.newton(solver="cg", tolerance=1e-10),
}


COLOURS = {
    "newton": "#c8373f",
    "sgd": "#8a8f98",
    "momentum": "#2f6db3",
    "nesterov": "#5fb4d9",
    "adagrad": "#b08d57",
    "adadelta": "#d6b35a",
    "rmsprop": "#2a9d6f",
    "adam": "#e08214",
    "adamw": "#222222",
}


def problem() -> tuple[Callable[[Any], jax.Array], fn.Dense]:
    """The loss as a function of the params, and the initial params."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = jnp.asarray((data.data - data.data.mean(0)) / data.data.std(0, ddof=1))
    target = jnp.asarray(data.target, x.dtype)[:, None]
    net, cross_entropy = fn.dense(1), fn.losses.sigmoid_cross_entropy()

    def loss(params: fn.Dense) -> jax.Array:
        return cross_entropy.apply(net.apply(params, x), target) + PENALTY / 2 * (params.w**2).sum()

    return loss, fn.Dense(jnp.zeros((x.shape[1], 1)), jnp.zeros(1))


def steps_to_target(updater: Any, loss: Any, start: Any, limit: int) -> tuple[jax.Array, jax.Array]:
    """The number of steps until the gradient's norm is TARGET (at most `limit`), and the norm reached."""

    def going(carry: Any) -> jax.Array:
        _, _, grads, steps = carry
        return (optax.tree.norm(grads) > TARGET) & (steps < limit)

    def step(carry: Any) -> Any:
        params, state, grads, steps = carry
        updates, state = updater.update(grads, state, params, value_fn=loss)
        params = optax.apply_updates(params, updates)
        return params, state, jax.grad(loss)(params), steps + 1

    first = (start, updater.init(start), jax.grad(loss)(start), 0)
    _, _, grads, steps = jax.lax.while_loop(going, step, first)
    return steps, optax.tree.norm(grads)


def norms(updater: Any, loss: Any, start: Any, steps: int) -> tuple[jax.Array, Any]:
    """The gradient's norm before each step, and the state after it."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params)
        updates, state = updater.update(grads, state, params, value_fn=loss)
        return (optax.apply_updates(params, updates), state), (optax.tree.norm(grads), state)

    return jax.lax.scan(step, (start, updater.init(start)), length=steps)[1]


def newtons(loss: Any, start: Any) -> dict[str, int]:
    """Prints each step of Newton; returns the number of steps with each solver."""
    counts = {}
    for name, updater in NEWTON.items():
        path, state = jax.device_get(jax.jit(lambda updater=updater: norms(updater, loss, start, 13))())
        counts[name] = int((path <= TARGET).argmax()) if path.min() <= TARGET else len(path) - 1
        rows = [
            (i, f"{path[i]:.2e}", f"{state.damping[i]:.0e}", state.step_length[i], state.iterations[i])
            for i in range(counts[name])
        ]
        rows.append((counts[name], f"{path[counts[name]]:.2e}", "", "", ""))
        print(
            f"{name}\n{table(('step', 'gradient norm', 'damping', 'step length', 'CG iterations'), rows)}\n"
        )
    return counts


def race(loss: Any, start: Any, limit: int, rates: jax.Array) -> dict[str, tuple[int, float, float]]:
    """For each first-order updater, the steps, the norm reached and the rate, at the fastest rate."""
    fastest = {}
    for name in progress(list(FIRST_ORDER), "updaters"):
        make = FIRST_ORDER[name]
        runs = jax.jit(jax.vmap(lambda rate, make=make: steps_to_target(make(rate), loss, start, limit)))
        steps, norm = (np.asarray(part) for part in runs(rates))
        best = np.lexsort((np.nan_to_num(norm, nan=np.inf), steps))[0]
        fastest[name] = (int(steps[best]), float(norm[best]), float(rates[best]))
    return fastest


def report(counts: dict[str, int], fastest: dict[str, tuple[int, float, float]], limit: int) -> str:
    """A table of all updaters and their steps."""
    rows = [(name, count, "", "") for name, count in counts.items()]
    for name, (steps, norm, rate) in sorted(fastest.items(), key=lambda item: item[1]):
        rows.append((name, steps if norm <= TARGET else f"> {limit}", f"{rate:.2g}", f"{norm:.1e}"))
    return table((f"steps to a gradient norm of {TARGET:g}", "steps", "rate", "norm reached"), rows)


def draw(
    figure: Any, loss: Any, start: Any, fastest: dict[str, tuple[int, float, float]], limit: int
) -> None:
    """The gradient's norm along each run, with logarithmic axes."""
    axes = figure.subplots()
    axes.axhline(TARGET, color="#555555", linewidth=0.9, linestyle="--")
    axes.text(1, TARGET / 2, "target", va="top", color="#555555")
    runs = [("newton", NEWTON["newton"], 9, 3.2)]
    for name, (steps, _, rate) in fastest.items():
        runs.append((f"{name}, rate {rate:.2g}", FIRST_ORDER[name](rate), min(limit, steps + 1), 1.5))
    for label, updater, length, width in runs:
        path, _ = jax.jit(lambda updater=updater, length=length: norms(updater, loss, start, length))()
        style = {"color": COLOURS[label.split(",")[0]], "linestyle": "--" if "adamw" in label else "-"}
        axes.loglog(np.arange(length) + 1, path, **style, linewidth=width, label=label, zorder=1 + width)
    axes.set(xlabel="step + 1", ylabel="norm of the gradient", ylim=(1e-13, 10))
    axes.set_title(
        "Logistic regression on breast cancer data: Newton, and first-order updaters at their best rates"
    )
    figure.legend(loc="outside right center", fontsize=9)


def main(argv: Sequence[str] | None = None) -> int:
    """Counts the steps, prints and draws them."""
    chosen = options(__doc__, argv)
    limit, count = (500, 3) if chosen.quick else (10_000, 13)
    with jax.enable_x64(True):
        loss, start = problem()
        counts = newtons(loss, start)
        fastest = race(loss, start, limit, jnp.logspace(-3, 1, count))
        print(report(counts, fastest, limit))
        with picture(chosen.out / "newton_logistic.png", 10.5, 5.4) as figure:
            draw(figure, loss, start, fastest, limit)
    return 0


if __name__ == "__main__":
    run(main)
