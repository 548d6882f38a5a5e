"""First-order rules: three steps by hand, and trajectories of optax, PyTorch and Keras."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updater_cases import PROBLEMS, REFERENCE, STARTS, dropping, quadratic, step_of, trajectory, worst

from fnnets import updaters

# ---------------------------------------------------------------- three steps by hand

ROOT3 = math.sqrt(3)
TABLES = [
    # η = 0.1: −η·g
    (updaters.sgd(0.1), (1.0, 2.0, -1.0), (-0.1, -0.2, 0.1)),
    # ρ = ½: −0.1; −0.05 − 0.2; −0.125 + 0.1
    (updaters.momentum(0.1, 0.5), (1.0, 2.0, -1.0), (-0.1, -0.25, -0.025)),
    (updaters.momentum(0.1, 0.5, rate_place="outside"), (1.0, 2.0, -1.0), (-0.1, -0.25, -0.025)),
    # η = 0.1, then 0.2: −0.05 − 0.4 = −0.45 inside, −0.2·(½ + 2) = −0.5 outside; then η = 0.3
    (updaters.momentum(lambda t: 0.1 * (t + 1), 0.5), (1.0, 2.0, -1.0), (-0.1, -0.45, 0.075)),
    (
        updaters.momentum(lambda t: 0.1 * (t + 1), 0.5, rate_place="outside"),
        (1.0, 2.0, -1.0),
        (-0.1, -0.5, -0.075),
    ),
    # v = −0.1, −0.25, −0.025; Δ = v/2 − 0.1·g
    (updaters.nesterov(0.1, 0.5), (1.0, 2.0, -1.0), (-0.15, -0.325, 0.0875)),
    (updaters.nesterov(0.1, 0.5, rate_place="outside"), (1.0, 2.0, -1.0), (-0.15, -0.325, 0.0875)),
    # roots of the sums: 3, 5, 13; outside with ε = 1: 4, 6, 14; inside with s₀ = 3, ε = 4: 4, √32, √176
    (updaters.adagrad(1.0, eps=0.0, initial_accumulator=0.0), (3.0, 4.0, 12.0), (-1.0, -0.8, -12 / 13)),
    (
        updaters.adagrad(1.0, eps=1.0, eps_place="outside", initial_accumulator=0.0),
        (3.0, 4.0, 12.0),
        (-0.75, -2 / 3, -6 / 7),
    ),
    (
        updaters.adagrad(1.0, eps=4.0, initial_accumulator=3.0),
        (3.0, 4.0, 12.0),
        (-0.75, -4 / math.sqrt(32), -12 / math.sqrt(176)),
    ),
    # ρ = ½, ε = 1: E[g²] = 1, 1, 1; E[Δ²] = 0, ½, ⅝, so Δ = −√1/√2·√2, +√1.5/√2, −√1.625/√2
    (
        updaters.adadelta(rho=0.5, eps=1.0),
        (math.sqrt(2), -1.0, 1.0),
        (-1.0, math.sqrt(1.5 / 2), -math.sqrt(1.625 / 2)),
    ),
    # ρ = ¾: E[g²] = 1, 1, 1
    (updaters.rmsprop(0.1, 0.75, eps=0.0), (2.0, 1.0, -1.0), (-0.2, -0.1, 0.1)),
    (updaters.rmsprop(0.1, 0.75, eps=3.0), (2.0, 1.0, -1.0), (-0.1, -0.05, 0.05)),
    (updaters.rmsprop(0.1, 0.75, eps=1.0, eps_place="outside"), (2.0, 1.0, -1.0), (-0.1, -0.05, 0.05)),
    # E[g] = ½, ⅝, 7/32: v = ¾, 39/64, 975/1024
    (
        updaters.rmsprop(0.1, 0.75, eps=0.0, centered=True),
        (2.0, 1.0, -1.0),
        (-0.2 / math.sqrt(0.75), -0.8 / math.sqrt(39), 3.2 / math.sqrt(975)),
    ),
    # β = ½: m̂ = 1, 5/3, 1/7; v̂ = 1, 3, 13/7
    (
        updaters.adam(0.1, 0.5, 0.5, eps=0.0),
        (1.0, 2.0, -1.0),
        (-0.1, -0.5 / (3 * ROOT3), -0.1 / math.sqrt(91)),
    ),
    (
        updaters.adam(0.1, 0.5, 0.5, eps=1.0),
        (1.0, 2.0, -1.0),
        (-0.05, -0.5 / 3 / (ROOT3 + 1), -0.1 / 7 / (math.sqrt(13 / 7) + 1)),
    ),
    (
        updaters.adam(0.1, 0.5, 0.5, eps=1.0, eps_place="inside"),
        (1.0, 2.0, -1.0),
        (-0.1 / math.sqrt(2), -0.25 / 3, -0.1 / math.sqrt(140)),
    ),
    # m = ½, 5/4, 1/8; v = ½, 9/4, 13/8; √mass/mass = √2, √(4/3), √(8/7)
    (
        updaters.adam(0.1, 0.5, 0.5, eps=1.0, eps_place="uncorrected"),
        (1.0, 2.0, -1.0),
        (
            -0.1 * math.sqrt(2) * 0.5 / (math.sqrt(0.5) + 1),
            -0.1 * math.sqrt(4 / 3) * 1.25 / 2.5,
            -0.1 * math.sqrt(8 / 7) * 0.125 / (math.sqrt(13 / 8) + 1),
        ),
    ),
    # adam's steps plus −0.1·0.5·θ; here θ = 10 at each step
    (
        updaters.adamw(0.1, 0.5, 0.5, eps=0.0, weight_decay=0.5),
        (1.0, 2.0, -1.0),
        (-0.6, -0.5 - 0.5 / (3 * ROOT3), -0.5 - 0.1 / math.sqrt(91)),
    ),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.quick
@pytest.mark.parametrize("row", range(len(TABLES)))
def test_three_steps_by_hand(row):
    updater, gradients, expected = TABLES[row]
    theta = jnp.array(10.0)
    state = updater.init(theta)
    steps = []
    for g in gradients:
        update, state = updater.update(jnp.array(g), state, theta)
        steps.append(float(update))
    np.testing.assert_allclose(steps, expected, rtol=1e-14)
    assert int(state.count) == 3


@pytest.mark.usefixtures("x64")
def test_newton_by_hand():
    """Three steps of Newton on x⁴: Δ = −4x³/12x² = −x/3."""
    updater = updaters.newton(adapt_damping=False, line_search=False)
    step = step_of(updater, lambda x: x**4)
    x, state = jnp.array(27.0), updater.init(jnp.array(27.0))
    for expected in (18.0, 12.0, 8.0):
        x, state = step(x, state)
        np.testing.assert_allclose(float(x), expected, rtol=1e-14)


# ---------------------------------------------------------------- optax, PyTorch, Keras

SLOW, EVEN, QUICK = (2e-4, 1e-4, 0.05), (2e-3, 1e-3, 2e-3), (0.02, 0.01, 0.02)  # for each problem
OPTAX = {
    "sgd": (lambda rate: updaters.sgd(rate), lambda rate: optax.sgd(rate), SLOW),
    "momentum": (lambda rate: updaters.momentum(rate), lambda rate: optax.sgd(rate, 0.9), SLOW),
    "nesterov": (
        lambda rate: updaters.nesterov(rate),
        lambda rate: optax.sgd(rate, 0.9, nesterov=True),
        SLOW,
    ),
    "momentum scheduled": (
        lambda rate: updaters.momentum(dropping(rate), rate_place="outside"),
        lambda rate: optax.sgd(dropping(rate), 0.9),
        SLOW,
    ),
    "nesterov scheduled": (
        lambda rate: updaters.nesterov(dropping(rate), rate_place="outside"),
        lambda rate: optax.sgd(dropping(rate), 0.9, nesterov=True),
        SLOW,
    ),
    "adagrad": (lambda rate: updaters.adagrad(rate), lambda rate: optax.adagrad(rate), QUICK),
    "adadelta": (
        lambda rate: updaters.adadelta(0.1, eps=1e-4),
        lambda rate: optax.adadelta(0.1, eps=1e-4),
        SLOW,
    ),
    "rmsprop": (
        lambda rate: updaters.rmsprop(rate, eps=1.0),
        lambda rate: optax.rmsprop(rate, eps=1.0),
        EVEN,
    ),
    "rmsprop outside": (
        lambda rate: updaters.rmsprop(rate, eps=1.0, eps_place="outside"),
        lambda rate: optax.rmsprop(rate, eps=1.0, eps_in_sqrt=False),
        EVEN,
    ),
    "rmsprop centered": (
        lambda rate: updaters.rmsprop(rate, eps=1.0, centered=True),
        lambda rate: optax.rmsprop(rate, eps=1.0, centered=True),
        EVEN,
    ),
    "rmsprop with momentum": (
        lambda rate: optax.chain(updaters.rmsprop(rate, eps=1.0), optax.trace(0.9)),
        lambda rate: optax.rmsprop(rate, eps=1.0, momentum=0.9),
        SLOW,
    ),
    "adam": (lambda rate: updaters.adam(rate), lambda rate: optax.adam(rate), QUICK),
    "adam scheduled": (
        lambda rate: updaters.adam(dropping(rate)),
        lambda rate: optax.adam(dropping(rate)),
        QUICK,
    ),
    "adam inside": (
        lambda rate: updaters.adam(rate, eps=0.01, eps_place="inside"),
        lambda rate: optax.adam(rate, eps=0.0, eps_root=0.01),
        QUICK,
    ),
    "adamw": (
        lambda rate: updaters.adamw(rate, weight_decay=0.1),
        lambda rate: optax.adamw(rate, weight_decay=0.1),
        QUICK,
    ),
    "adamax": (lambda rate: updaters.adamax(rate), lambda rate: optax.adamax(rate), QUICK),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OPTAX)
def test_two_hundred_steps_equal_optax(name):
    ours, theirs, rates = OPTAX[name]

    @jax.jit
    def run():
        return {
            problem: [trajectory(make(rate), loss, STARTS[problem]) for make in (ours, theirs)]
            for (problem, loss), rate in zip(PROBLEMS.items(), rates, strict=True)
        }

    for problem, (mine, other) in run().items():
        assert worst(mine, other) < 1e-12, problem
        assert np.abs(np.asarray(other)[-1] - np.array(STARTS[problem])).max() > 0.01  # the params did move


FRAMEWORK_CASES = [
    (lib, case) for lib in ("torch", "keras") for case in {r["case"]: None for r in REFERENCE[lib]}
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("library", "case"), FRAMEWORK_CASES)
def test_each_convention_matches_its_framework(library, case):
    runs = [run for run in REFERENCE[library] if run["case"] == case]

    @jax.jit
    def paths():
        return [
            trajectory(
                getattr(updaters, run["updater"])(
                    dropping(run["rate"]) if run["scheduled"] else run["rate"], **run["settings"]
                ),
                PROBLEMS[run["problem"]],
                STARTS[run["problem"]],
            )
            for run in runs
        ]

    rows = np.array(REFERENCE["steps"]) - 1
    for run, path in zip(runs, paths(), strict=True):
        assert worst(np.asarray(path)[rows], run["path"]) < 1e-12, run["problem"]


def test_the_conventions_differ():
    """Both places of the rate agree until a schedule changes it, then differ."""
    ours, other = (
        np.asarray(
            trajectory(
                updaters.momentum(dropping(1e-4, at=10), rate_place=place), quadratic, STARTS["quadratic"], 12
            )
        )
        for place in ("inside", "outside")
    )
    np.testing.assert_allclose(ours[:10], other[:10], rtol=1e-5)
    assert np.abs(ours[11] - other[11]).max() > 1e-3
