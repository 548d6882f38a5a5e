"""Convolutions and upsampling compared with PyTorch's numbers: outputs and all gradients."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

CASES = json.loads((Path(__file__).parents[1] / "references" / "convolution.json").read_text())


def named(case):
    return "-".join([case["kind"], *[f"{name}={value}" for name, value in case["settings"].items()]])


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def close(got, expected):
    np.testing.assert_allclose(got, np.array(expected), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", [pytest.param(case, id=named(case)) for case in CASES])
def test_outputs_and_gradients_equal_pytorchs(case, x64):
    net = getattr(fn, case["kind"])(**{name: tuples(value) for name, value in case["settings"].items()})
    arrays = {name: jnp.array(case[name]) for name in ("w", "b", "x", "dy") if name in case}
    params = fn.Conv(arrays["w"], arrays.get("b")) if "w" in case else ()

    @jax.jit
    def both(params, x, dy):
        y, _, saved = net.forward(params, x)
        return y, *net.backward(params, saved, dy)[:2]

    y, dparams, dx = both(params, arrays["x"], arrays["dy"])
    close(y, case["y"])
    close(dx, case["dx"])
    for name in ("w", "b"):
        if name in case:
            close(getattr(dparams, name), case[f"d{name}"])
    if params and params.b is None:
        assert dparams.b is None


def test_every_kind_has_references():
    assert {case["kind"] for case in CASES} == {"conv", "conv_transpose", "upsample"}
    assert {len(case["settings"]["kernel_size"]) for case in CASES if case["kind"] == "conv"} == {1, 2, 3}
