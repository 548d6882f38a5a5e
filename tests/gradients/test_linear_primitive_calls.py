"""Calls of a network made by `by_hand`: under a set precision, with Python numbers, and inside jit."""

import jax
import jax.numpy as jnp
import numpy as np

import fnnets as fn

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
XS = jnp.stack([X, -X])
NET = fn.by_hand(fn.serial(fn.dense(3), fn.tanh(), fn.dense(2)))
PARAMS = NET.init(jax.random.key(0), X)


def test_matrix_products_have_the_precision_set_at_the_call():
    """The functions of the primitive run later: when the program is lowered or differentiated."""

    def imprecise(transform):
        def of(params, x):
            with jax.default_matmul_precision("highest"):
                return jnp.sum(NET.apply(params, x) ** 2)

        program = jax.jit(lambda *point: transform(of, point)).lower(PARAMS, X).as_text()
        return [line for line in program.splitlines() if "dot_general" in line and "HIGHEST" not in line]

    assert not imprecise(lambda of, point: jax.jvp(of, point, point))
    assert not imprecise(lambda of, point: jax.grad(of)(*point))
    assert not imprecise(lambda of, point: jax.jvp(jax.grad(of), point, point))
    assert not imprecise(
        lambda of, point: jax.grad(lambda params: jax.vmap(of, (None, 0))(params, XS).sum())(PARAMS)
    )


def test_python_numbers_have_tangents():
    scaled = fn.layer(
        lambda key, x: 1.0,
        lambda a, x: a * x,
        lambda a, x: (a * x, x),
        lambda a, x, dy: ((dy * x).sum(), dy * a),
    )
    run = lambda a: jnp.sum(fn.by_hand(scaled).apply(a, X[0]) ** 2)
    np.testing.assert_allclose(jax.jvp(run, (3.0,), (1.0,))[1], 6 * jnp.sum(X[0] ** 2), rtol=1e-6)


def test_a_jitted_network_is_traced_again_inside_an_outer_by_hand():
    """Inside an outer by_hand, an inner one runs its plain equations; an earlier trace must not be reused."""
    plain = fn.serial(fn.dense(3), fn.tanh())
    inner = fn.by_hand(plain)
    forward = jax.jit(inner.forward, static_argnames="train")
    inner = inner._replace(apply=jax.jit(inner.apply, static_argnames="train"), forward=forward)
    params = plain.init(jax.random.key(0), X)
    jax.eval_shape(lambda params: forward(params, X, None, key=None, train=False, mask=None), params)

    def product(net):
        energy = lambda params: jnp.sum(net.apply(params, X) ** 2)
        return jax.jit(lambda params: jax.jvp(jax.grad(energy), (params,), (params,))[1])(params)

    for ours, theirs in zip(*map(jax.tree.leaves, (product(fn.by_hand(inner)), product(plain))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
