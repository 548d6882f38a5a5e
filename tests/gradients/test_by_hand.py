"""Gradients by hand inside JAX's transformations, and without autodiff."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

import fnnets as fn

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
NET = fn.serial(fn.dense(3), fn.tanh(), fn.dense(2))


def counting(layer):
    calls = []
    return toys.with_backward(layer, lambda dparams, dx: (calls.append(1), (dparams, dx))[1]), calls


@pytest.mark.quick
def test_grad_runs_the_backward_by_hand():
    layer, calls = counting(NET)
    params = layer.init(KEY, X)
    grads = jax.grad(lambda params: fn.by_hand(layer).apply(params, X).sum())(params)
    assert len(calls) == 1
    chex.assert_trees_all_close(grads, jax.grad(lambda params: NET.apply(params, X).sum())(params), rtol=1e-5)
    jax.grad(lambda params: layer.apply(params, X).sum())(params)
    assert len(calls) == 1, "autodiff differentiates the plain layer"


def test_a_wrong_backward_gives_a_wrong_gradient():
    wrong = fn.by_hand(
        toys.with_backward(NET, lambda dparams, dx: (jax.tree.map(jnp.zeros_like, dparams), dx))
    )
    grads = jax.grad(lambda params: wrong.apply(params, X).sum())(NET.init(KEY, X))
    assert not any(leaf.any() for leaf in jax.tree.leaves(grads))


@pytest.mark.full
def test_by_hand_equals_the_plain_layer_in_common_transformations():
    net, params = fn.by_hand(NET), NET.init(KEY, X)
    gradient = lambda layer: jax.grad(lambda params, x: jnp.sum(layer.apply(params, x) ** 2), argnums=(0, 1))
    chex.assert_trees_all_close(jax.jit(gradient(net))(params, X), gradient(NET)(params, X), rtol=1e-4)
    each = jax.vmap(gradient(net), (None, 0))(params, X)
    chex.assert_trees_all_close(each, jax.vmap(gradient(NET), (None, 0))(params, X), rtol=1e-4)
    chex.assert_trees_all_close(
        jax.jacrev(net.apply)(params, X), jax.jacrev(NET.apply)(params, X), rtol=1e-4, atol=1e-6
    )

    def loss(layer):
        step = lambda total, x: (total + jnp.sum(layer.apply(params, x) ** 2), None)
        return lambda xs: jax.lax.scan(step, 0.0, xs)[0]

    chex.assert_trees_all_close(jax.grad(loss(net))(X), jax.grad(loss(NET))(X), rtol=1e-4)
    remat = jax.checkpoint(net.apply)
    chex.assert_trees_all_close(
        jax.grad(lambda params: remat(params, X).sum())(params),
        jax.grad(lambda p: NET.apply(p, X).sum())(params),
        rtol=1e-4,
    )


def test_second_derivatives_are_not_silently_zero():
    with jax.enable_x64(True):
        x = jnp.array([0.3, -1.2])
        for layer in (fn.tanh(), fn.sigmoid(), fn.silu(), fn.gelu(), fn.softplus(), fn.elu()):
            slope = lambda layer: lambda x: jax.grad(lambda x: layer.apply((), x).sum())(x).sum()
            chex.assert_trees_all_close(
                jax.grad(slope(fn.by_hand(layer)))(x), jax.grad(slope(layer))(x), rtol=1e-10
            )
            assert jax.grad(slope(fn.by_hand(layer)))(x).any()


@pytest.mark.full
def test_integers_keys_masks_and_carries_through_by_hand():
    ids, mask = jnp.array([[1, 2, 0]]), jnp.array([[True, True, False]])
    net = fn.serial(fn.embedding(4, 3), fn.dropout(0.5), toys.integrator(), fn.dense(2))
    params, mode = net.init(KEY, ids), {"key": jax.random.key(5), "train": True, "mask": mask}
    carry = (None, None, jnp.full((1, 3), 0.2), None)

    def loss(layer, params, carry):
        y, carry, _ = layer.forward(params, ids, carry, **mode)
        return y.sum() + carry[2].sum()

    by_hand = jax.grad(lambda *point: loss(fn.by_hand(net), *point), argnums=(0, 1))(params, carry)
    chex.assert_trees_all_close(
        by_hand, jax.grad(lambda *point: loss(net, *point), argnums=(0, 1))(params, carry), rtol=1e-4
    )
    from_zero = jax.grad(lambda params: loss(fn.by_hand(net), params, None))(params)
    chex.assert_trees_all_close(
        from_zero, jax.grad(lambda params: loss(net, params, None))(params), rtol=1e-4
    )


def test_saved_carries_no_gradient():
    net = fn.by_hand(NET)
    dx = jax.grad(
        lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(net.forward(NET.init(KEY, X), x)[2]))
    )(X)
    assert not dx.any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda dparams, dx: (dparams[:2], dx), r"dparams\[2\].w as an array of shape \(3, 2\), got none"),
        (lambda dparams, dx: (dparams, dx[:1]), r"dx must have shape \(4, 5\), got \(1, 5\)"),
        (lambda dparams, dx: (dparams, None), r"dx as an array of shape \(4, 5\), got none"),
        (
            lambda dparams, dx: ((*dparams, dx), dx),
            r"backward returned dparams\[3\], which params does not have",
        ),
    ],
)
def test_gradients_of_another_structure_are_refused(change, says):
    net = fn.by_hand(toys.with_backward(NET, change))
    with pytest.raises(ValueError, match=says):
        jax.grad(lambda params, x: net.apply(params, x).sum(), argnums=(0, 1))(NET.init(KEY, X), X)


def test_train_must_be_static():
    with pytest.raises(TypeError, match="train must be a Python bool"):
        jax.jit(lambda train: fn.by_hand(NET).apply(NET.init(KEY, X), X, train=train))(True)


@pytest.mark.quick
def test_value_and_grad_by_hand_equals_value_and_grad():
    target, loss = jnp.array([0, 1, 1, 0]), fn.losses.softmax_cross_entropy()
    net = fn.serial(fn.dense(8), fn.relu(), fn.dropout(0.3), fn.dense(2))
    params, mode = net.init(KEY, X), {"key": jax.random.key(3), "train": True}
    run = jax.jit(lambda params: fn.value_and_grad_by_hand(net, loss)(params, X, target, **mode))
    (value, aux), grads = run(params)
    expected = jax.value_and_grad(lambda params: loss.apply(net.apply(params, X, **mode), target))(params)
    chex.assert_trees_all_close((value, grads), expected, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(aux.y, net.apply(params, X, **mode), rtol=1e-5)
    assert aux.carry is None
    chex.assert_trees_all_equal(net.update_stats(params, aux.saved), params)


def test_value_and_grad_by_hand_with_masks_and_a_carry():
    net, loss = fn.serial(fn.dense(3), toys.integrator()), fn.losses.mse()
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 3)), jnp.float32)
    mask, target = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool), jnp.ones((2, 4, 3))
    params, carry = net.init(KEY, x), (None, jnp.full((2, 3), 0.5))
    with_nans = jnp.where(mask[..., None], x, jnp.nan)
    run = fn.value_and_grad_by_hand(net, loss)
    (value, aux), grads = run(params, with_nans, target, carry=carry, mask=mask, loss_mask=mask)

    def plain(params):
        y, _, _ = net.forward(params, x, carry, mask=mask)
        return loss.apply(y, target, mask)

    chex.assert_trees_all_close((value, grads), jax.value_and_grad(plain)(params), rtol=1e-4)
    assert aux.carry[1].shape == (2, 3)


def test_training_by_hand_equals_training_with_autodiff():
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.standard_normal((64, 2)), jnp.float32)
    target = (x[:, :1] * x[:, 1:] > 0).astype(jnp.float32)
    net, loss, updater = (
        fn.serial(fn.dense(16), fn.tanh(), fn.dense(1)),
        fn.losses.sigmoid_cross_entropy(),
        optax.adam(0.05),
    )

    def train(gradient):
        def step(state, _):
            params, opt = state
            value, grads = gradient(params)
            updates, opt = updater.update(grads, opt)
            return (optax.apply_updates(params, updates), opt), value

        params = net.init(KEY, x)
        return jax.jit(lambda: jax.lax.scan(step, (params, updater.init(params)), length=200)[1])()

    by_hand = fn.value_and_grad_by_hand(net, loss)

    def hand(params):
        (value, _), grads = by_hand(params, x, target)
        return value, grads

    ours = train(hand)
    plain = train(jax.value_and_grad(lambda params: loss.apply(net.apply(params, x), target)))
    chex.assert_trees_all_close(ours, plain, rtol=1e-2)
    assert ours[-1] < 0.1 < ours[0]
