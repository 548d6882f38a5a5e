"""Networks: composition, keys, masks, carries, statistics, and errors on bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 5)), jnp.float32)  # (B, T, D)
MASK = jnp.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
BLOCK = fn.serial(fn.dense(5), fn.tanh())


def networks():
    return {
        "serial": fn.serial(fn.dense(4), fn.tanh(), fn.dense(2)),
        "residual": fn.residual(BLOCK),
        "branch": fn.branch(fn.dense(2), fn.tanh()),
        "stack": fn.stack(BLOCK, 2),
        "recurrent": fn.serial(fn.dense(3), toys.integrator(), fn.dense(2)),
    }


def point(layer, x=X, seed=1):
    return jax.tree.map(jnp.float32, catalogue.random_params(layer, np.random.default_rng(seed), x))


def gradient(layer, params, x, dy, mask=None):
    y, _, saved = layer.forward(params, x, mask=mask)
    return y, *layer.backward(params, saved, dy)[:2]


def test_stack_equals_serial_of_its_copies(x64):
    x = jnp.asarray(np.asarray(X, np.float64))
    stack, flat = fn.stack(BLOCK, 3), fn.serial(BLOCK, BLOCK, BLOCK)
    params = stack.init(KEY, x)
    copies = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(3))
    dy = jnp.ones_like(x)
    y, dparams, dx = gradient(stack, params, x, dy)
    expected, dcopies, dx_expected = gradient(flat, copies, x, dy)
    chex.assert_trees_all_close((y, dx), (expected, dx_expected), rtol=1e-11)
    chex.assert_trees_all_close(
        dparams, jax.tree.map(lambda *leaves: jnp.stack(leaves), *dcopies), rtol=1e-11
    )
    chex.assert_trees_all_close(copies, flat.init(KEY, x), rtol=1e-11)


def test_stack_draws_the_same_as_serial():
    layer = fn.dropout(0.5)
    mode = {"key": KEY, "train": True}
    y = fn.stack(layer, 3).apply((), X, **mode)
    assert (y == fn.serial(layer, layer, layer).apply(((), (), ()), X, **mode)).all()


def test_appending_a_layer_changes_no_earlier_draw():
    short = fn.serial(fn.dense(4), fn.dropout(0.5))
    long = fn.serial(fn.dense(4), fn.dropout(0.5), fn.identity(), fn.dense(2))
    params = long.init(KEY, X)
    chex.assert_trees_all_equal(params[:2], short.init(KEY, X))
    mode = {"key": KEY, "train": True}
    inside = fn.intermediates(long, params, X, **mode)
    assert (inside["1.dropout"] == short.apply(params[:2], X, **mode)).all()


@pytest.mark.parametrize("name", networks())
def test_padding_has_no_effect(name):
    layer = networks()[name]
    params = point(layer)
    dirty = jnp.where(MASK[..., None], X, jnp.nan)
    y = layer.apply(params, X, mask=MASK)
    dy = jnp.ones_like(y)
    from_clean, from_dirty = (gradient(layer, params, x, dy, MASK) for x in (X, dirty))
    chex.assert_trees_all_equal(from_clean, from_dirty)
    chex.assert_trees_all_equal(layer.apply(params, dirty, mask=MASK), y)
    chex.assert_tree_all_finite(from_dirty)
    assert not jnp.where(MASK[..., None], 0, from_dirty[2]).any(), "dx is 0 in the padding"
    plain = jax.grad(lambda params: layer.apply(params, dirty, mask=MASK).sum())(params)
    chex.assert_trees_all_close(plain, from_dirty[1], rtol=1e-4, atol=1e-5)


def test_a_mask_is_dropped_once_time_is_reduced_away():
    last = fn.layer(
        lambda key, x: (), lambda params, x, *, mask: x[..., -1, :],
        lambda params, x, *, mask: (x[..., -1, :], jnp.zeros_like(x)),
        lambda params, zeros, dy: ((), zeros.at[..., -1, :].set(dy)), name="last",
    )  # fmt: skip
    net = fn.serial(fn.dense(4), last, fn.residual(fn.dense(4)))
    params = point(net)
    assert net.apply(params, X, mask=MASK).shape == (3, 4)
    assert fn.compare(net, params, X, mask=np.asarray(MASK)).ok


def test_a_mask_for_ids():
    net, ids = fn.serial(fn.embedding(6, 3), fn.dense(2)), jnp.array([[1, 2, 99, -7]])
    params = point(net, ids)
    y = net.apply(params, ids, mask=jnp.array([[True, True, False, False]]))
    assert jnp.isfinite(y).all(), "ids in the padding may be anything"


@pytest.mark.parametrize("carry_given", [False, True])
def test_carry_passes_through_networks(carry_given):
    integrator = toys.integrator()
    net = fn.serial(
        fn.dense(5), fn.residual(integrator), fn.branch(integrator, fn.dense(2)), fn.stack(integrator, 2)
    )
    x = np.asarray(X, np.float64)
    params = catalogue.random_params(net, np.random.default_rng(1), x)
    zero = fn.zero_carry(net, params, x)
    shapes = jax.tree.map(jnp.shape, zero)
    assert zero[0] is None
    assert (shapes[1], shapes[2], shapes[3]) == ((3, 5), ((3, 5), None), (2, 3, 7))
    carry = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.3), zero) if carry_given else None
    report = fn.compare(net, params, x, carry=carry, mask=np.asarray(MASK))
    assert report.ok, report


def test_chunks_with_carry_equal_the_whole():
    net = fn.serial(fn.dense(4), toys.integrator())
    with jax.enable_x64(True):
        x = np.asarray(X, np.float64)
        params = jax.tree.map(jnp.asarray, catalogue.random_params(net, np.random.default_rng(1), x))
        y, carry, saved = net.forward(params, x)
        dy = jnp.asarray(np.random.default_rng(2).standard_normal(y.shape))
        dparams, dx, _ = net.backward(params, saved, dy)
        first, middle, saved_first = net.forward(params, x[:, :2])
        second, end, saved_second = net.forward(params, x[:, 2:], middle)
        d_second, dx_second, dmiddle = net.backward(params, saved_second, dy[:, 2:])
        d_first, dx_first, _ = net.backward(params, saved_first, dy[:, :2], dmiddle)
        chex.assert_trees_all_close(end, carry, rtol=1e-12)
        chex.assert_trees_all_close(jnp.concatenate([first, second], 1), y, rtol=1e-12)
        chex.assert_trees_all_close(jax.tree.map(jnp.add, d_first, d_second), dparams, rtol=1e-12)
        chex.assert_trees_all_close(jnp.concatenate([dx_first, dx_second], 1), dx, rtol=1e-12)


def test_statistics_are_updated_at_every_level():
    layer = toys.centred()
    net = fn.serial(
        layer, fn.residual(layer), fn.branch(layer, fn.identity(), merge="sum"), fn.stack(layer, 2)
    )
    params = net.init(KEY, X)
    _, _, saved = net.forward(params, X)
    updated = net.update_stats(params, saved)
    moved = [
        path
        for path, leaf in jax.tree_util.tree_leaves_with_path(updated)
        if "mean" in str(path) and leaf.any()
    ]
    assert len(moved) == 4
    first = 0.1 * X.reshape(-1, 5).mean(0)
    chex.assert_trees_all_close(updated[0].stats.mean, first, rtol=1e-6)
    chex.assert_trees_all_equal(updated[0].w, params[0].w)
    assert updated[3].stats.mean.shape == (2, 5)


def test_a_network_without_statistics_returns_its_params():
    net = fn.serial(fn.dense(3), fn.residual(fn.tanh()))
    params = net.init(KEY, X)
    assert net.update_stats(params, None) is params


def test_serial_of_nothing_is_the_identity():
    net = fn.serial()
    assert net.init(KEY, X) == ()
    assert net.apply((), X) is X


def test_residual_adds_and_branch_merges():
    half = fn.Dense(0.5 * jnp.eye(5), jnp.zeros(5))
    chex.assert_trees_all_close(fn.residual(fn.dense(5)).apply((half,), X), 1.5 * X)
    both = fn.branch(fn.dense(5), fn.identity())
    chex.assert_trees_all_close(both.apply((half, ()), X), jnp.concatenate([0.5 * X, X], -1))
    summed = fn.branch(fn.dense(5), fn.identity(), fn.identity(), merge="sum")
    chex.assert_trees_all_close(summed.apply((half, (), ()), X), 2.5 * X)


def test_intermediates_hold_every_childs_output(x64):
    x = jnp.asarray(np.asarray(X, np.float64))
    net = fn.serial(fn.dense(5), fn.residual(BLOCK), fn.stack(BLOCK, 3), fn.branch(fn.tanh(), fn.dense(2)))
    params = net.init(KEY, x)
    found = jax.jit(lambda params, x: fn.intermediates(net, params, x))(params, x)
    assert list(found)[:4] == ["0.dense", "1.residual", "1.residual/0.serial", "1.residual/0.serial/0.dense"]
    assert found["2.stack/0.serial/1.tanh"].shape == (3, 3, 4, 5)
    chex.assert_trees_all_close(found["2.stack"], found["2.stack/0.serial"][-1], rtol=1e-11)
    chex.assert_trees_all_close(found["3.branch"], net.apply(params, x), rtol=1e-11)
    chex.assert_trees_all_close(found["0.dense"], fn.dense(5).apply(params[0], x), rtol=1e-11)
    by_hand = fn.intermediates(fn.by_hand(net), params, x)
    chex.assert_trees_all_close(by_hand, found, rtol=1e-11)


def test_summary_is_a_table_of_layers_shapes_and_parameters():
    net = fn.serial(
        fn.dense(8), fn.residual(fn.serial(fn.dense(8, use_bias=False), fn.relu())), fn.stack(fn.dense(8), 3)
    )
    table = fn.summary(net, jax.ShapeDtypeStruct((2, 4), jnp.float32))
    assert table.params == 4 * 8 + 8 + 64 + 3 * 72
    assert [(row.path, row.shape, row.params) for row in table.rows] == [
        ("0.dense", (2, 8), 40), ("1.residual", (2, 8), 64), ("1.residual/0.serial", (2, 8), 64),
        ("1.residual/0.serial/0.dense", (2, 8), 64), ("1.residual/0.serial/1.relu", (2, 8), 0),
        ("2.stack", (2, 8), 216), ("2.stack/0.dense", (3, 2, 8), 216),
    ]  # fmt: skip
    assert "    dense(8, use_bias=False)  (2, 8)        64" in str(table)
    assert str(table).endswith("320 parameters")
    assert fn.summary(fn.dense(3), jnp.ones((4, 2))).params == 9
    alone = fn.summary(fn.residual(fn.dense(4)), jnp.ones((2, 4)))
    assert [(row.path, row.layer) for row in alone.rows] == [("", "residual"), ("0.dense", "dense(4)")]
    assert "\n  dense(4)" in str(alone)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fn.serial(fn.dense(3), fn.tanh), TypeError, r"serial: layer 1 must be a Layer, got tanh; call it: fn.tanh\(…\)"),
        (lambda: fn.stack(3, fn.dense(3)), TypeError, "stack: layer 0 must be a Layer, got int"),
        (lambda: fn.stack(fn.dense(3), 0), ValueError, "stack: depth must be a whole number of at least 1, got 0"),
        (lambda: fn.branch(), ValueError, "branch: the number of layers must be a whole number of at least 1"),
        (lambda: fn.branch(fn.tanh(), merge="max"), ValueError, "branch: merge must be one of 'concat', 'sum', got 'max'"),
        (lambda: BLOCK.apply(BLOCK.init(KEY, X)[:1], X), TypeError, r"serial\(…\): params must be a tuple of 2, one for each layer, got 1"),
        (lambda: BLOCK.apply(None, X), TypeError, "params must be a tuple of 2, one for each layer, got NoneType"),
        (lambda: BLOCK.forward(BLOCK.init(KEY, X), X, (None,)), TypeError, "carry must be a tuple of 2"),
        (lambda: BLOCK.apply(BLOCK.init(KEY, X), X, mask=MASK[:, :2]), ValueError, r"serial\(…\): mask must have shape \(3, 4\), got \(3, 2\)"),
        (lambda: BLOCK.apply(BLOCK.init(KEY, X), X, mask=MASK.astype(int)), TypeError, "mask must hold bools, got int32"),
        (lambda: BLOCK.apply(BLOCK.init(KEY, X), X, mask=(MASK, MASK)), ValueError, "mask must have the structure of x"),
        (lambda: fn.serial(fn.reshape((2, 10), axes=2), fn.dense(2)).apply(((), fn.Dense(jnp.ones((10, 2)), None)), X, mask=MASK), ValueError, r"mask of shape \(3, 4\) does not fit an input of shape \(3, 2, 10\)"),
        (lambda: fn.residual(fn.dense(3)).apply((fn.dense(3).init(KEY, X),), X), ValueError, r"residual\(…\): the body's output must have shape \(3, 4, 5\), got \(3, 4, 3\); .*shortcut"),
        (lambda: fn.stack(fn.dense(3), 2).apply(fn.Dense(jnp.ones((2, 5, 3)), None), X), ValueError, r"stack\(…\): the layer's output must have shape \(3, 4, 5\), got \(3, 4, 3\)"),
        (lambda: fn.stack(BLOCK, 2).apply(fn.stack(BLOCK, 3).init(KEY, X), X), ValueError, r"a first axis of length 2, one entry for each copy, got \[\(3,\)\]"),
        (lambda: fn.branch(fn.dense(3), fn.dense(2), merge="sum").apply(fn.branch(fn.dense(3), fn.dense(2)).init(KEY, X), X), ValueError, r"layer 1's output must have shape \(3, 4, 3\), got \(3, 4, 2\)"),
        (lambda: fn.residual(BLOCK).apply((BLOCK.init(KEY, X),), X.astype(int)), TypeError, "residual.*floating point, got int32"),
        (lambda: fn.serial(fn.dense(5), fn.dropout(0.5)).apply((fn.dense(5).init(KEY, X), ()), X, train=True), ValueError, "train=True needs a key"),
    ],
)  # fmt: skip
def test_bad_input_raises(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_an_error_inside_a_network_names_the_place():
    net = fn.serial(fn.dense(5), fn.residual(fn.serial(fn.tanh(), fn.dropout(0.5))))
    with pytest.raises(ValueError, match="needs a key") as caught:
        net.apply(net.init(KEY, X), X, train=True)
    assert caught.value.__notes__ == [
        "in serial(…), layer 1: dropout(0.5)",
        "in residual(…), layer 0: serial(…)",
        "in serial(…), layer 1: residual(…)",
    ]
