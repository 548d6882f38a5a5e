"""Penalties: numbers by hand, autodiff, dtypes, and the leaves they do not apply to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

draw = np.random.default_rng(0)


def close(got, expected, rtol=1e-12):
    np.testing.assert_allclose(got, np.asarray(expected), rtol=rtol, atol=1e-15)


PARAMS = (
    fn.Dense(w=jnp.array([[1.0, -2.0], [0.0, 3.0]]), b=jnp.array([7.0, 7.0])),
    (),
    {"u": jnp.array([-4.0], jnp.bfloat16), "w": jnp.array([5]), "stats": fn.Stats(jnp.ones(1), jnp.ones(1))},
    fn.Dense(w=jnp.array([[1.0]]), b=None),
)


@pytest.mark.parametrize(
    ("penalty", "value", "dw", "du"),
    [
        (fn.l1(0.5, n=4), 0.125 * 11, [[0.125, -0.125], [0.0, 0.125]], [-0.125]),
        (fn.l2(0.5, n=4), 0.0625 * 31, [[0.125, -0.25], [0.0, 0.375]], [-0.5]),
    ],
    ids=repr,
)
def test_penalties_apply_to_kernels_only(penalty, value, dw, du):
    got, saved = penalty.forward(PARAMS)
    dparams = jax.jit(penalty.backward)(saved, 2.0)
    assert penalty.apply(PARAMS) == got == value
    assert got.dtype == jnp.float32
    assert jax.tree.map(lambda g: (g.shape, g.dtype), dparams) == jax.tree.map(
        lambda p: (p.shape, p.dtype), PARAMS
    )
    assert dparams[0].w.tolist() == [[2 * g for g in row] for row in dw]
    assert dparams[2]["u"].tolist() == [2 * g for g in du]
    for untouched in (dparams[0].b, dparams[2]["w"], *jax.tree.leaves(dparams[2]["stats"])):
        assert not untouched.any()


@pytest.mark.parametrize("factory", [fn.l1, fn.l2])
@pytest.mark.parametrize("on", [fn.kernels, fn.trainable, lambda _: (False, True), True])
def test_penalty_gradients_agree_with_autodiff(factory, on):
    with jax.enable_x64(True):
        w = draw.normal(size=(3, 2))
        w[0, 0] = 0.0
        params = (fn.Dense(jnp.asarray(w), jnp.asarray(w[0])), fn.Dense(jnp.asarray(2 * w), None))
        penalty = factory(0.3, n=7, on=on)
        _, saved = penalty.forward(params)
        gradients = penalty.backward(saved, 1.3), jax.grad(lambda p: 1.3 * penalty.apply(p))(params)
        for got, expected in zip(*map(jax.tree.leaves, gradients), strict=True):
            close(got, expected)
        applies = [bool(leaf.any()) for leaf in jax.tree.leaves(gradients[0])]
        assert applies == jax.tree.leaves(jax.tree.broadcast(on(params) if callable(on) else on, params))


def test_penalty_dtypes_and_traced_rates():
    with jax.enable_x64(True):
        for dtype, wide in (("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")):
            params = fn.Dense(w=jnp.ones((2, 2), dtype), b=jnp.ones(2, dtype))
            value, saved = fn.l2(np.float64(0.5)).forward(params)
            assert value.dtype == wide
            assert fn.l2(np.float64(0.5)).backward(saved, np.float64(2)).w.dtype == dtype
    values = jax.vmap(lambda rate: fn.l1(rate).apply(PARAMS))(jnp.array([0.0, 0.5]))
    assert values.tolist() == [0.0, 5.5]
    assert fn.l1(0.5).apply(()) == 0


def test_a_step_of_descent_on_l2_shrinks_all_weights_by_the_same_factor():
    params = fn.Dense(w=jnp.array([[2.0, -4.0]]), b=jnp.array([1.0, 1.0]))
    penalty = fn.l2(0.5, n=2)
    _, saved = penalty.forward(params)
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, params, penalty.backward(saved))
    close(stepped.w, params.w * (1 - 0.1 * 0.5 / 2), rtol=1e-6)
    assert stepped.b.tolist() == params.b.tolist()
