"""Programs count as linear only if JAX can transpose them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnets.gradients.linear_programs import transposable

DY = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3)), jnp.float32)
ROWS = jnp.array([2, 0, 2])


def over_time(dy):
    """Like the backward of a recurrence: one carry starts at zeros, one counts the steps."""

    def step(state, row):
        n, dh = state
        dh = (dh + row) @ W * n
        return (n + 1, dh), dh

    return jax.lax.scan(step, (jnp.ones(()), jnp.zeros(3)), dy, reverse=True)


def powers(dy):
    """Not linear from the second step on: the carry then depends on dy, and is multiplied by it."""
    return jax.lax.scan(lambda product, row: (product * row, None), jnp.ones(3), dy)[0]


LINEAR = {
    "products": lambda dy: (dy @ W, W.T @ dy.T, dy * 2 - dy / 3),
    "sums and layout": lambda dy: jnp.concatenate([dy.sum(0)[None], jnp.flip(dy.reshape(3, 4).T, 0)[1:]]),
    "rows": lambda dy: (dy[ROWS], jnp.zeros((5, 3)).at[ROWS].add(dy[:3]), jax.lax.dynamic_slice_in_dim(dy, 1, 2)),
    "where": lambda dy: jnp.where(W[:1] > 0, dy, 0),
    "jit": jax.jit(lambda dy: (dy @ W, W)),
    "scan": over_time,
    "lower precision": lambda dy: dy.astype(jnp.bfloat16),
}  # fmt: skip
OTHERS = {
    "product": lambda dy: dy * dy,
    "matrix product": lambda dy: dy.T @ dy,
    "quotient": lambda dy: 1 / dy,
    "comparison": lambda dy: jnp.where(dy > 0, dy, 0),
    "rows chosen by dy": lambda dy: W[dy[:, 0].argsort()],
    "rounding to integers": lambda dy: dy.astype(int).astype(float),
    "function": jnp.tanh,
    "inside jit": jax.jit(lambda dy: dy * dy),
    "inside scan": powers,
    "custom derivative": jax.nn.relu,
    "while": lambda dy: jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, 2 * s[1]), (0, dy)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_jax_transposes_every_program_that_counts_as_linear(name):
    assert transposable(jax.make_jaxpr(LINEAR[name])(DY), [True])
    outputs = lambda dy: [leaf for leaf in jax.tree.leaves(LINEAR[name](dy)) if leaf.shape]
    shapes = jax.eval_shape(outputs, DY)
    jax.eval_shape(lambda t: jax.linear_transpose(outputs, DY)(t), shapes)


@pytest.mark.parametrize("name", OTHERS)
def test_a_program_not_known_to_be_linear_is_refused(name):
    assert not transposable(jax.make_jaxpr(OTHERS[name])(DY), [True])


def test_a_program_may_be_nonlinear_in_the_other_inputs():
    program = jax.make_jaxpr(lambda r, dy: jnp.where(r > 0, jnp.tanh(r) * dy, 0) / r)(DY, DY)
    assert transposable(program, [False, True])
    assert not transposable(program, [True, True])
    assert not transposable(program, [True, False])
