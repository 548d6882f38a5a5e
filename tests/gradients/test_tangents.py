"""Forward mode by hand: dense, tanh, the LSTM and chains of them, against jax.jvp and their own backward."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue

MASK = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
CHAIN = fn.serial(fn.lstm(3, peephole=True), fn.tanh(), fn.dense(2), fn.lstm(2, coupled=True))
ROWS = {
    "dense": (fn.dense(3), (4, 2), {}),
    "dense, no bias, over time": (fn.dense(3, use_bias=False), (3, 4, 2), {}),
    "tanh": (fn.tanh(), (4, 2), {}),
    "lstm": (fn.lstm(3), (3, 4, 2), {}),
    "lstm, no batch": (fn.lstm(2, use_bias=False), (4, 2), {}),
    "lstm, peephole, masked": (fn.lstm(3, peephole=True), (3, 4, 2), {"mask": MASK}),
    "lstm, coupled": (fn.lstm(3, coupled=True, time_major=True), (4, 3, 2), {}),
    "lstm, both": (fn.lstm(2, peephole=True, coupled=True), (3, 4, 2), {"mask": MASK}),
    "lstm, dropout": (fn.lstm(3, recurrent_dropout=0.4, variational=False), (3, 4, 2), {"train": True}),
    "a chain": (CHAIN, (3, 4, 2), {"mask": MASK}),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.quick) for name in ROWS])
def test_the_tangent_equals_jvp_and_is_the_transpose_of_the_backward(name, x64):
    layer, shape, settings = ROWS[name]
    settings = settings | ({"key": jax.random.key(3)} if settings.get("train") else {})
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    params = catalogue.random_params(layer, rng, x)
    carry = catalogue.random_like(fn.zero_carry(layer, params, x), rng)
    point = (params, x, carry)
    change = catalogue.random_like(point, rng)

    def run(point, change, dout):
        def forward(params, x, carry):
            y, carry, _ = layer.forward(params, x, carry, **settings)
            return y, carry

        _, _, saved = layer.forward(*point, **settings)
        true = jax.jvp(forward, point, change)[1]
        hand = layer.tangent(point[0], saved, *change)
        return hand, true, layer.backward(point[0], saved, *dout)

    dout = jax.eval_shape(lambda: layer.forward(*point, **settings)[:2])
    dout = catalogue.random_like(dout, rng)
    hand, true, gradient = jax.jit(run)(point, change, dout)
    chex.assert_trees_all_close(hand, true, rtol=1e-12, atol=1e-12)
    inner = lambda a, b: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b)))
    np.testing.assert_allclose(inner(dout, hand), inner(gradient, change), rtol=1e-12)


def test_a_chain_has_a_tangent_only_if_all_its_layers_do():
    with_tangent = (fn.serial(fn.dense(2), fn.tanh()), fn.serial(), CHAIN, fn.lstm(2))
    assert all(layer.tangent for layer in with_tangent)
    without = (fn.relu(), fn.serial(fn.dense(2), fn.relu()), fn.elman(2), fn.lstm(2, memory="sqrt"))
    assert not any(layer.tangent for layer in without)


def test_a_custom_layer_may_define_its_tangent():
    double = fn.layer(
        lambda key, x: (), lambda params, x: 2 * x, lambda params, x: (2 * x, None),
        lambda params, saved, dy: ((), 2 * dy), tangent=lambda params, saved, dparams, dx: 2 * dx,
    )  # fmt: skip
    net = fn.serial(double, fn.tanh())
    x = jnp.array([0.5, 0.0])
    _, _, saved = net.forward(((), ()), x)
    dy, dcarry = net.tangent(((), ()), saved, ((), ()), jnp.ones(2))
    np.testing.assert_allclose(dy, 2 * (1 - np.tanh([1.0, 0.0]) ** 2), rtol=1e-6)
    assert dcarry is None
    with pytest.raises(TypeError, match="has no carry"):
        double.tangent((), None, (), x, x)


def test_tangents_keep_the_dtypes(x64):
    for layer in (fn.dense(2), fn.tanh(), fn.lstm(2)):
        x = jax.ShapeDtypeStruct((2, 3, 2), jnp.float32)
        params = jax.eval_shape(layer.init, jax.random.key(0), x)
        params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), params)
        y, carry, saved = jax.eval_shape(layer.forward, params, x)
        change = jax.eval_shape(layer.tangent, params, saved, params, x)
        chex.assert_trees_all_equal_dtypes((y, carry), change)
