"""Parameters as trees: masks, freezing, counting."""

import chex
import jax
import jax.numpy as jnp
import optax
import toys

import fnnets as fn

KEY = jax.random.key(0)
X = jnp.ones((2, 4))
NET = fn.serial(fn.dense(3), fn.prelu(), toys.centred(), fn.dense(2, use_bias=False))


def test_moving_statistics_are_not_trainable():
    mask = fn.trainable(NET.init(KEY, X))
    assert mask[0] == fn.Dense(True, True)
    assert mask[2] == toys.Centred(True, fn.Stats(False, False))
    assert mask[3] == fn.Dense(True, None)
    assert fn.trainable({"table": jnp.arange(3)}) == {"table": False}


def test_the_name_of_a_leaf_marks_a_kernel():
    mask = fn.kernels(NET.init(KEY, X))
    assert (mask[0], mask[1]) == (fn.Dense(True, False), fn.PReLU(False))
    assert fn.kernels({"w": X, "u": X, "scale": X, "inner": [{"b": X}]}) == {
        "w": True, "u": True, "scale": False, "inner": [{"b": False}],
    }  # fmt: skip
    assert fn.kernels(X) is False


def test_weight_decay_with_the_mask_spares_moving_statistics():
    params = NET.init(KEY, X)
    updater = optax.adamw(0.1, weight_decay=0.5, mask=fn.trainable)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = updater.update(zeros, updater.init(params), params)
    assert updates[0].w.any()
    assert not updates[2].stats.var.any()


def test_frozen_leaves_do_not_move():
    params = NET.init(KEY, X)
    grads = jax.tree.map(jnp.ones_like, params)
    for mask in ((True, False, False, False), lambda params: (True, *fn.kernels(params)[1:])):
        updater = fn.freeze(optax.sgd(0.5), mask)
        updates, _ = jax.jit(updater.update)(grads, updater.init(params), params)
        assert not any(leaf.any() for leaf in jax.tree.leaves(updates[0]))
    chex.assert_trees_all_close(updates[1].a, jnp.array(-0.5))
    assert not updates[3].w.any()
    # optax.masked alone would pass the raw gradients of the frozen leaves through.
    masked = optax.masked(optax.sgd(0.5), (False, True, True, True))
    raw, _ = masked.update(grads, masked.init(params), params)
    assert (raw[0].w == 1).all()


def test_count_params():
    assert fn.count_params(NET.init(KEY, X)) == 4 * 3 + 3 + 1 + 3 + 3 * 2
    assert fn.count_params(jax.eval_shape(NET.init, KEY, X)) == 25
    assert fn.count_params(()) == 0
    lstm = 28 * 512 + 128 * 512 + 512
    assert fn.count_params({"w": jnp.ones((156, 512)), "b": jnp.ones(512)}) == lstm


def test_zero_carry():
    net = fn.serial(fn.dense(3), toys.integrator())
    x = jnp.ones((2, 7, 4))
    carry = fn.zero_carry(net, net.init(KEY, x), jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert carry[0] is None
    chex.assert_trees_all_equal(carry[1], jnp.zeros((2, 3)))
    assert fn.zero_carry(fn.dense(2), fn.dense(2).init(KEY, X), X) is None
