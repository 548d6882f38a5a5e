"""Shared by the tests of the updaters: problems, and the catalogue's rows."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnnets as fn
from fnnets import catalogue

REFERENCE = json.loads((pathlib.Path(__file__).parents[1] / "references" / "updaters.json").read_text())
INPUTS, TARGETS = np.array(REFERENCE["inputs"]), np.array(REFERENCE["targets"])


def quadratic(p):
    """A quadratic with condition number 2000, not along the axes."""
    a, b, c = p[0] + p[1] + p[2], p[0] - p[1], p[0] + p[1] - 2 * p[2]
    return 0.5 * (a**2 + 30 * b**2 + 1000 * c**2) / 6


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def network(p):
    net = fn.serial(fn.dense(3), fn.tanh(), fn.dense(1))
    params = (fn.Dense(p[:6].reshape(2, 3), p[6:9]), (), fn.Dense(p[9:12].reshape(3, 1), p[12:]))
    return jnp.mean((net.apply(params, jnp.asarray(INPUTS))[:, 0] - TARGETS) ** 2)


PROBLEMS = {"quadratic": quadratic, "rosenbrock": rosenbrock, "network": network}
STARTS = REFERENCE["starts"]


def trajectory(updater, loss, start, steps=200):
    """The parameters after each step."""

    def step(carry, _):
        params, state = carry
        updates, state = updater.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = jnp.array(start)
    return jax.lax.scan(step, (start, updater.init(start)), length=steps)[1]


def dropping(rate, at=REFERENCE["drop"]):
    """A schedule that drops to a tenth."""
    return lambda count: jnp.where(count < at, rate, rate / 10)


def worst(ours, theirs):
    """The largest difference, relative to the largest parameter of the run."""
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max() / np.abs(np.asarray(theirs)).max()


RULES = {case.name: case for case in catalogue.updater_cases()}
FIRST_ORDER = [name for name, case in RULES.items() if case.order == 1]


def step_of(updater, loss, traces=None):
    @jax.jit
    def step(params, state):
        if traces is not None:
            traces.append(1)
        updates, state = updater.update(jax.grad(loss)(params), state, params, value_fn=loss)
        return optax.apply_updates(params, updates), state

    return step
