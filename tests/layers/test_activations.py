"""Activations, the dense layer and the embedding compared with PyTorch's numbers."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue

CASES = json.loads((Path(__file__).parents[1] / "references" / "losses.json").read_text())["activations"]


def close(got, expected):
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['layer']}-{case['options']}")
def test_value_and_gradients_equal_pytorchs(case):
    with jax.enable_x64(True):
        net, x = getattr(fn, case["layer"])(**case["options"]), jnp.asarray(case["x"])
        like, tree = jax.tree.flatten(jax.eval_shape(net.init, jax.random.key(0), x))
        params = tree.unflatten(
            jnp.reshape(jnp.asarray(values), leaf.shape)
            for values, leaf in zip(case["params"], like, strict=True)
        )
        y, _, saved = net.forward(params, x)
        dparams, dx, _ = net.backward(params, saved, jnp.asarray(case["dy"]))
        close(net.apply(params, x), case["y"])
        close(y, case["y"])
        for got, expected in zip(jax.tree.leaves(dparams), case["dparams"], strict=True):
            close(np.ravel(got), np.ravel(expected))
        if case["dx"] is None:
            assert dx is None
        else:
            close(dx, case["dx"])


def test_every_activation_has_a_reference():
    missing = {case.layer.info.name for case in catalogue.activation_cases()} - {
        case["layer"] for case in CASES
    }
    assert not missing, (
        f"no PyTorch numbers for {missing}: add them in tests/references/make_losses.py and run it"
    )
