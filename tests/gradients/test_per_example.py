"""Per-example gradients, the empirical Fisher matrix and the gradient noise scale, against independent values."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnnets as fn
from fnnets.gradients.per_example import examples

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
WORDS = RNG.integers(0, 6, (3, 4))
MASK = np.arange(4) < np.array([4, 2, 3])[:, None]
CROSS, MSE = fn.losses.softmax_cross_entropy(), fn.losses.mse()
NETS = {
    "conv": (
        fn.serial(fn.conv(2, 3), fn.relu(), fn.max_pool(2), fn.flatten(3), fn.dense(2)),
        RNG.standard_normal((3, 4, 4, 1)), {},
    ),
    "lstm": (fn.serial(fn.embedding(6, 3), fn.lstm(3), fn.last(), fn.dense(2)), WORDS, {"mask": MASK}),
    "dropout": (
        fn.serial(fn.dense(4), fn.dropout(0.5), fn.dense(2)), RNG.standard_normal((3, 3)),
        {"key": jax.random.key(7), "train": True},
    ),
}  # fmt: skip
LABELS = np.array([0, 1, 1])


def start(net, x):
    params = net.init(jax.random.key(0), x)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) + 0.1, params)


def one_by_one(net, loss, params, x, target, *, key=None, train=False, mask=None):
    """Autodiff of the plain equations, in a loop."""

    @jax.jit
    def gradient(params, x, target, key, mask):
        return jax.grad(lambda p: loss.apply(net.apply(p, x, key=key, train=train, mask=mask), target))(
            params
        )

    keys = [None] * len(target) if key is None else jax.random.split(key, len(target))
    masks = [None] * len(target) if mask is None else mask[:, None]
    rows = zip(x[:, None], target[:, None], keys, masks, strict=True)
    return jax.tree.map(lambda *each: jnp.stack(each), *(gradient(params, *row) for row in rows))


@pytest.mark.quick
@pytest.mark.parametrize("name", NETS)
def test_per_example_gradients_equal_a_loop_over_the_examples(name):
    net, x, mode = NETS[name]
    params, x = start(net, x), jnp.asarray(x)

    @jax.jit
    def both(params):
        _, whole = fn.value_and_grad_by_hand(net, CROSS)(params, x, LABELS, **mode)
        return fn.per_example_gradients(net, CROSS)(params, x, LABELS, **mode), whole

    grads, whole = both(params)
    expected = one_by_one(net, CROSS, params, x, LABELS, **mode)
    chex.assert_trees_all_close(grads, expected, rtol=1e-10, atol=1e-12)
    if "key" not in mode:
        mean = jax.tree.map(lambda g: g.mean(0), grads)
        chex.assert_trees_all_close(mean, whole, rtol=1e-10, atol=1e-12)


def test_per_example_gradients_with_a_carry_and_a_loss_mask():
    net, x, target = (
        fn.serial(fn.gru(2), fn.dense(1)),
        RNG.standard_normal((3, 4, 2)),
        RNG.standard_normal((3, 4, 1)),
    )
    params, carry, mask = start(net, x), (jnp.asarray(RNG.standard_normal((3, 2))), None), MASK

    def value(params, i):
        y, _, _ = net.forward(params, x[i], (carry[0][i], None), mask=mask[i])
        return jnp.sum(jnp.where(mask[i], (y - target[i])[:, 0] ** 2, 0)) / mask[i].sum()

    @jax.jit
    def both(params):
        run = fn.per_example_gradients(net, MSE)
        each = jax.vmap(jax.grad(value), (None, 0))(params, jnp.arange(3))
        return run(params, x, target, carry=carry, mask=mask, loss_mask=mask), each

    x, target, mask = map(jnp.asarray, (x, target, mask))
    chex.assert_trees_all_close(*both(params), rtol=1e-9, atol=1e-12)


def test_the_carry_of_a_stack_is_split_behind_its_depth_axis():
    net, x = fn.serial(fn.stack(fn.elman(2), 3), fn.elman(2)), np.ones((2, 4, 2))
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    shapes = jax.eval_shape(lambda: fn.zero_carry(net, params, x))
    carry = jax.tree.map(lambda leaf: RNG.standard_normal(leaf.shape), shapes)
    each = jax.tree.map(np.asarray, jax.jit(examples)(x, x, carry).carry)
    for i in range(2):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i], each)
        chex.assert_trees_all_equal(alone, (carry[0][:, i : i + 1], carry[1][i : i + 1]))


@pytest.mark.parametrize("wrap", [lambda net: net, fn.by_hand], ids=["plain", "by_hand"])
def test_the_empirical_fisher_is_the_mean_of_outer_products(wrap):
    net, x, mode = NETS["dropout"]
    params, x = start(net, x), jnp.asarray(x)
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def matrix(params):
        product = fn.curvature.empirical_fisher(wrap(net), CROSS, params, x, LABELS, **mode)
        return jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size))

    grads = one_by_one(net, CROSS, params, x, LABELS, **mode)
    rows = jax.vmap(lambda g: ravel_pytree(g)[0])(grads)
    np.testing.assert_allclose(matrix(params), rows.T @ rows / len(rows), rtol=1e-9, atol=1e-12)
    diagonal = ravel_pytree(fn.curvature.empirical_fisher_diagonal(grads))[0]
    np.testing.assert_allclose(diagonal, (rows**2).mean(0), rtol=1e-9, atol=1e-12)


def test_the_fisher_product_does_not_store_the_examples_gradients():
    net, x = fn.by_hand(fn.dense(200, use_bias=False)), jnp.ones((100, 200))
    params, target = net.init(jax.random.key(0), x), jnp.ones((100, 200))
    run = lambda params: fn.curvature.empirical_fisher(net, MSE, params, x, target)(params)
    memory = jax.jit(run).lower(params).compile().memory_analysis().temp_size_in_bytes
    assert memory < 10 * params.w.nbytes


@pytest.mark.quick
def test_gradient_noise_scale_equals_the_papers_estimates():
    """The paper's formulas, with batches of 1 and of n."""
    grads = {"w": RNG.standard_normal((8, 3, 2)) + 1, "b": RNG.standard_normal((8, 2))}
    rows = np.concatenate([grads["w"].reshape(8, -1), grads["b"]], 1)
    small, big = (rows**2).sum(1).mean(), (rows.mean(0) ** 2).sum()
    square, trace = (8 * big - 1 * small) / (8 - 1), (small - big) / (1 / 1 - 1 / 8)
    noise = jax.jit(fn.gradient_noise_scale)(jax.tree.map(jnp.asarray, grads))
    np.testing.assert_allclose(noise, (trace / square, trace, square), rtol=1e-12)
    np.testing.assert_allclose(noise.trace, np.trace(np.cov(rows.T)), rtol=1e-12)


def test_gradient_noise_scale_is_unbiased_and_handles_edge_cases():
    """Gradients with known mean G and covariance Σ: |G|² = 6, tr(Σ) = 12."""
    batches = 1 + np.sqrt(2.0) * RNG.standard_normal((4000, 5, 6))
    noise = jax.jit(jax.vmap(fn.gradient_noise_scale))(batches)
    np.testing.assert_allclose(noise.trace.mean(), 12, rtol=0.02)
    np.testing.assert_allclose(noise.square.mean(), 6, rtol=0.03)
    hidden = fn.gradient_noise_scale(jnp.array([[1.0], [-1.0]]))
    assert np.isinf(hidden.scale)
    assert hidden.square < 0
    assert fn.gradient_noise_scale(jnp.ones((2, 3))).scale == 0
    assert fn.gradient_noise_scale(jnp.ones((2, 3), jnp.bfloat16)).trace.dtype == jnp.float32
    with pytest.raises(ValueError, match="at least 2 examples, got 1"):
        fn.gradient_noise_scale(jnp.ones((1, 3)))
