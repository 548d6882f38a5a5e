"""Normalisations and pools compared with PyTorch, flax and haiku: outputs, gradients, moving statistics."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

CASES = json.loads((Path(__file__).parents[1] / "references" / "normalisation.json").read_text())


def named(case):
    settings = [f"{name}={value}" for name, value in case["settings"].items()]
    return "-".join([case["kind"], case.get("source", "torch"), *settings])


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def close(got, expected):
    np.testing.assert_allclose(got, np.array(expected), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", [pytest.param(case, id=named(case)) for case in CASES])
def test_numbers_equal_those_of_other_libraries(case, x64):
    net = getattr(fn, case["kind"])(**{name: tuples(value) for name, value in case["settings"].items()})
    x, source = jnp.array(case["x"]), case.get("source")
    forward, backward = jax.jit(net.forward, static_argnames="train"), jax.jit(net.backward)
    update_stats = jax.jit(net.update_stats)
    params = net.init(jax.random.key(0), x)
    for name in ("scale", "b"):
        if name in case:
            params = params._replace(**{name: jnp.array(case[name])})
    if source == "inference":
        params = params._replace(stats=fn.Stats(jnp.array(case["mean"]), jnp.array(case["var"])))
    elif source in (
        "torch",
        "flax",
    ):  # without a weight, statistics start from 0 and 1 and are updated at a fixed rate
        params = params._replace(stats=params.stats._replace(weight=None))
    for before in case.get("before", ()):
        params = update_stats(params, forward(params, jnp.array(before), train=True)[2])
    y, _, saved = forward(params, x, train=source != "inference")
    if source is not None:
        stats = update_stats(params, saved).stats
        close(stats.mean, case["mean"])
        close(stats.var, case["var"])
    if "y" in case:
        dparams, dx, _ = backward(params, saved, jnp.array(case["dy"]))
        close(y, case["y"])
        close(dx, case["dx"])
        for name in ("scale", "b"):
            if name in case:
                close(getattr(dparams, name), case[f"d{name}"])


def test_every_kind_and_source_has_references():
    assert {case["kind"] for case in CASES} == {
        "batch_norm", "layer_norm", "group_norm", "rms_norm", "max_pool", "avg_pool",
    }  # fmt: skip
    assert {case.get("source") for case in CASES} == {None, "torch", "inference", "flax", "haiku"}
