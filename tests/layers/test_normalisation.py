"""Normalisations: every setting compared with autodiff and differences, moving statistics, devices, extremes."""

import functools

import agreement
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

KEY = jax.random.key(0)
NORMS = {
    "batch_norm": fn.batch_norm,
    "layer_norm": fn.layer_norm,
    "group_norm": functools.partial(fn.group_norm, 2),
    "instance": functools.partial(fn.group_norm, 4),
    "rms_norm": fn.rms_norm,
}
SHAPES = {"features": (5, 4), "batch of one": (1, 4), "no batch": (4,), "pictures": (2, 3, 2, 4)}
MODES = ("training", "inference", "masked")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def mask_of(shape):
    """A mask that leaves out every third place."""
    return (np.arange(np.prod(shape[:-1])) % 3 != 1).reshape(shape[:-1])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_setting_agrees(norm, shape, x64):
    options = {"dims": len(SHAPES[shape]) // 3 * 2} if norm in ("group_norm", "instance") else {}
    for mode in MODES:
        if mode == "inference" and norm != "batch_norm":
            continue  # the same as in training
        net = NORMS[norm](use_scale=mode != "masked", use_bias=mode == "masked", **options)
        mask = mask_of(SHAPES[shape]) if mode == "masked" else None
        y = agreement.check(net, drawn(*SHAPES[shape]), train=mode != "inference", mask=mask)
        assert mask is None or not jnp.where(mask[..., None], 0, y).any()


def test_combinators_update_statistics(x64):
    """An activation follows every batch norm: another batch norm would cancel a bias, whose gradient would be 0."""
    layers = fn.serial(fn.dense(3, use_bias=False), fn.batch_norm(), fn.tanh())
    net = fn.serial(layers, fn.residual(layers), fn.residual(layers, fn.dense(3)), fn.stack(layers, 2))
    x = drawn(5, 4)
    agreement.check(net, x, train=True)
    params = updated(net, net.init(KEY, x), [x])
    np.testing.assert_allclose(params[2][0][1].stats.weight, 0.1)
    np.testing.assert_allclose(params[3][1].stats.weight, [0.1, 0.1])
    np.testing.assert_allclose(params[0][1].stats.mean, (x @ params[0][0].w).mean(0), rtol=1e-12)


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("norm", NORMS)
def test_masked_places_have_no_effect(norm, x64):
    net = NORMS[norm](**({"dims": 1} if norm in ("group_norm", "instance") else {}))
    mask = np.array([True, False, True, True, False])
    x, dy = (
        jnp.array(drawn(5, 4)).at[~mask].set(jnp.nan),
        jnp.array(drawn(5, 4, seed=1)).at[~mask].set(jnp.nan),
    )
    params = net.init(KEY, x)

    @jax.jit
    def run(x, dy, mask):
        y, _, saved = net.forward(params, x, train=True, mask=mask)
        dparams, dx, _ = net.backward(params, saved, dy)
        auto = jax.grad(
            lambda params, x: jnp.vdot(jnp.nan_to_num(dy), net.apply(params, x, train=True, mask=mask)),
            (0, 1),
        )
        return (y, dx, auto(params, x)[1]), (dparams, auto(params, x)[0], net.update_stats(params, saved))

    with_mask, without = run(x, dy, mask), run(x[mask], dy[mask], None)
    for got, expected in zip(with_mask[0], without[0], strict=True):
        assert not got[~mask].any()
        np.testing.assert_allclose(got[mask], expected, rtol=1e-12, atol=1e-14)
    chex.assert_trees_all_close(with_mask[1], without[1], rtol=1e-12, atol=1e-14)


def test_a_fully_masked_batch_changes_no_statistics():
    net, x = fn.batch_norm(), jnp.full((3, 2), jnp.nan)
    params = net.init(KEY, x)
    params = net.update_stats(params, net.forward(params, jnp.array(drawn(4, 2)), train=True)[2])

    @jax.jit
    def run(params):
        y, _, saved = net.forward(params, x, train=True, mask=jnp.zeros(3, bool))
        return (y, net.backward(params, saved, jnp.ones_like(x))[:2]), net.update_stats(params, saved)

    zeros, moved = run(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(zeros))
    chex.assert_trees_all_equal(moved, params)


# ---------------------------------------------------------------- moving statistics


def updated(net, params, batches, **mode):
    for x in batches:
        params = net.update_stats(params, net.forward(params, x, train=True, **mode)[2])
    return params


def test_after_one_update_inference_equals_training(x64):
    net, x = fn.batch_norm(unbiased=False, decay=0.999), 50 + 9 * drawn(6, 3)
    params = updated(net, net.init(KEY, x), [x])
    np.testing.assert_allclose(net.apply(params, x), net.apply(params, x, train=True), rtol=1e-12)
    np.testing.assert_allclose(params.stats.var, x.var(0), rtol=1e-12)
    params = updated(fn.batch_norm(), net.init(KEY, x), [x])
    np.testing.assert_allclose(params.stats.var, x.var(0, ddof=1), rtol=1e-12)


def test_before_any_update_inference_is_the_identity():
    net, x = fn.batch_norm(epsilon=1e-12), drawn(3, 2).astype(np.float32)
    np.testing.assert_allclose(net.apply(net.init(KEY, x), x), x, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.99])
def test_a_batchs_weight_is_decay_to_the_power_of_its_age(decay, x64):
    net, batches = fn.batch_norm(decay=decay), drawn(4, 5, 3)
    stats = updated(net, net.init(KEY, batches[0]), batches).stats
    weights = decay ** np.arange(3, -1, -1)
    np.testing.assert_allclose(stats.mean, np.average(batches.mean(1), 0, weights), rtol=1e-12)
    np.testing.assert_allclose(stats.var, np.average(batches.var(1, ddof=1), 0, weights), rtol=1e-12)
    np.testing.assert_allclose(stats.weight, 1 - decay**4, rtol=1e-12)


def test_statistics_are_constants_with_no_gradient():
    net, x = fn.batch_norm(), jnp.array(drawn(5, 3))
    params = updated(net, net.init(KEY, x), [x])

    @functools.partial(jax.jit, static_argnames="train")
    def both(params, train):
        y, _, saved = net.forward(params, x, train=train)
        auto = jax.grad(lambda params: net.apply(params, x, train=train).sum())(params)
        return net.backward(params, saved, jnp.ones_like(y))[0].stats, auto.stats

    for train in (False, True):
        assert not any(leaf.any() for leaf in jax.tree.leaves(both(params, train)))
    _, _, saved = net.forward(params, x)
    chex.assert_trees_all_equal(net.update_stats(params, saved), params)
    assert fn.trainable(params) == fn.BatchNorm(True, True, fn.Stats(False, False, False))
    assert fn.count_params(params) == 6


def test_statistics_are_updated_under_jit_scan_and_an_ensemble(x64):
    net, batches = fn.serial(fn.dense(3), fn.batch_norm()), jnp.array(drawn(3, 5, 2))

    def train(key):
        def step(params, x):
            return net.update_stats(params, net.forward(params, x, train=True)[2]), None

        return jax.lax.scan(step, net.init(key, batches[0]), batches)[0]

    keys = jax.random.split(KEY, 2)
    together = jax.jit(jax.vmap(train))(keys)
    for i, key in enumerate(keys):
        alone = updated(net, net.init(key, batches[0]), batches)
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, rtol=1e-12)


# ---------------------------------------------------------------- several devices


@pytest.mark.parametrize("masked", [False, True])
def test_devices_share_one_batch(masked, x64):
    net, alone = fn.batch_norm(axis_name="devices"), fn.batch_norm()
    x, dy, mask = drawn(3, 4, 2), drawn(3, 4, 2, seed=1), None
    if masked:  # the number of valid places differs between devices, and one has none
        mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    params = alone.init(KEY, x)

    def run(net, x, dy, mask):
        y, _, saved = net.forward(params, x, train=True, mask=mask)
        dparams, dx, _ = net.backward(params, saved, dy)
        auto = jax.grad(lambda params, x: (net.apply(params, x, train=True, mask=mask) * dy).sum(), (0, 1))(
            params, x
        )
        return (y, dx, auto[1]), (dparams, auto[0]), net.update_stats(params, saved)

    each = jax.jit(jax.vmap(functools.partial(run, net), axis_name="devices"))(x, dy, mask)
    whole = jax.jit(functools.partial(run, alone))(x, dy, mask)
    chex.assert_trees_all_close(each[0], whole[0], rtol=1e-11, atol=1e-13)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf.sum(0), each[1]), whole[1], rtol=1e-11, atol=1e-13
    )
    for i in range(3):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, i=i: leaf[i], each[2]), whole[2], rtol=1e-12)


def test_batch_norm_works_in_shard_map(x64):
    net, mesh = (
        fn.batch_norm(axis_name="devices"),
        jax.make_mesh((1,), ("devices",), (jax.sharding.AxisType.Auto,)),
    )
    x = drawn(4, 2)
    params = net.init(KEY, x)
    split, shared = jax.P("devices"), jax.P()

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(shared, split), out_specs=(split, split, shared, shared)
    )
    def step(params, x):
        y, _, saved = net.forward(params, x, train=True)
        dparams, dx, _ = net.backward(params, saved, y)
        return y, dx, jax.lax.psum(dparams, "devices"), net.update_stats(params, saved)

    plain = fn.batch_norm()
    y, _, saved = plain.forward(params, x, train=True)
    dparams, dx, _ = plain.backward(params, saved, y)
    got = jax.jit(step)(params, x)
    chex.assert_trees_all_close(
        got, (y, dx, dparams, plain.update_stats(params, saved)), rtol=1e-12, atol=1e-14
    )


# ---------------------------------------------------------------- extremes


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "group_norm"])
@pytest.mark.parametrize("value", [0.1, 10000.3])
def test_constant_input_becomes_zero(norm, value):
    net, x = NORMS[norm](), jnp.full((7, 30, 11, 6), value, jnp.float32)
    params = net.init(KEY, x)

    @jax.jit
    def run(params):
        y, _, saved = net.forward(params, x, train=True)
        return y, *net.backward(params, saved, jnp.ones_like(x))[:2], net.update_stats(params, saved)

    y, dparams, dx, new = run(params)
    np.testing.assert_allclose(y, 0, atol=1e-6)  # where (x − μ)/√ε alone would be up to 0.3
    np.testing.assert_allclose(dparams.scale, 0, atol=1e-2)
    assert jnp.isfinite(dx).all()
    if norm == "batch_norm":
        np.testing.assert_allclose(new.stats.var, 0, atol=1e-9)
        np.testing.assert_allclose(new.stats.mean, value, rtol=1e-6)


def test_the_variance_of_one_place_is_zero():
    net, x = fn.batch_norm(), jnp.array([[3.0, -2.0]])
    params = net.init(KEY, x)
    y, _, saved = net.forward(params, x, train=True)
    dparams, dx, _ = net.backward(params, saved, jnp.ones_like(x))
    assert not any(leaf.any() for leaf in (y, dx, dparams.scale))
    assert net.update_stats(params, saved).stats.mean.tolist() == [3.0, -2.0]
    assert not net.update_stats(params, saved).stats.var.any()


@pytest.mark.parametrize(
    ("norm", "dtype"), [*((norm, jnp.float16) for norm in NORMS), ("batch_norm", jnp.bfloat16)]
)
def test_half_precision_is_summed_in_float32(norm, dtype):
    """Uses values whose squares and sums do not fit in float16."""
    net = NORMS[norm](**({"dims": 1} if norm in ("group_norm", "instance") else {}))
    x = jnp.asarray(300 + 40 * drawn(600, 4), dtype)
    params, dy = net.init(KEY, x), jnp.asarray(drawn(600, 4, seed=1), jnp.float32)

    @jax.jit
    def run(params, x, dy):
        y, _, saved = net.forward(params, x, train=True)
        return y, net.backward(params, saved, dy.astype(y.dtype))[1], net.update_stats(params, saved)

    y, dx, new = run(params, x, dy)
    halves = run(jax.tree.map(lambda leaf: leaf.astype(dtype), params), x, dy)
    with jax.enable_x64(True):
        exact = run(*jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, x, dy)))
    error = float(jnp.finfo(dtype).eps)
    assert y.dtype == jnp.float32
    assert dx.dtype == dtype
    np.testing.assert_allclose(y, exact[0], rtol=1e-4, atol=1e-4)
    scale = np.abs(exact[1]).max()
    np.testing.assert_allclose(dx.astype(float), exact[1], rtol=error, atol=error * scale)
    chex.assert_trees_all_close(new, jax.tree.map(lambda leaf: leaf.astype(np.float32), exact[2]), rtol=1e-5)
    np.testing.assert_allclose(halves[0].astype(float), exact[0], rtol=2 * error, atol=2 * error)
    chex.assert_trees_all_equal_dtypes(halves[2], jax.tree.map(lambda leaf: leaf.astype(dtype), params))


# ---------------------------------------------------------------- special cases that agree


def test_group_norm_of_one_example_equals_batch_norm(x64):
    x = drawn(1, 3, 2, 4)
    nets = fn.group_norm(4), fn.batch_norm()
    y, expected = (net.apply(net.init(KEY, x), x, train=True) for net in nets)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_group_norm_with_one_group_and_no_spatial_axes_equals_layer_norm(x64):
    x = drawn(3, 4)
    nets = fn.group_norm(1, dims=0), fn.layer_norm()
    y, expected = (net.apply(net.init(KEY, x), x) for net in nets)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_rms_norm_of_centred_features_equals_layer_norm(x64):
    x = drawn(3, 4)
    x -= x.mean(-1, keepdims=True)
    nets = fn.rms_norm(epsilon=1e-5), fn.layer_norm()
    y, expected = (net.apply(net.init(KEY, x), x) for net in nets)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


# ---------------------------------------------------------------- errors

X = np.ones((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: fn.batch_norm(decay=1.0), r"batch_norm: decay must be at least 0 and below 1, got 1.0"),
        (lambda: fn.layer_norm(epsilon=0), r"layer_norm: epsilon must be a number above 0, got 0"),
        (lambda: fn.group_norm(0), r"group_norm: groups must be a whole number of at least 1, got 0"),
        (lambda: fn.group_norm(2, dims=-1), r"group_norm: dims must be a whole number of at least 0, got -1"),
        (lambda: fn.group_norm(3).init(KEY, X), r"group_norm\(3\): groups must divide the channels of x, got 4"),
        (lambda: fn.group_norm(2, dims=3).init(KEY, X), r"x must have at least 4 axes, got shape \(2, 3, 4\)"),
        (lambda: fn.rms_norm().init(KEY, 1.0), r"rms_norm\(\): x must be an array, got float"),
        (lambda: run(fn.batch_norm(), X[..., :3]), r"batch_norm\(\): x must have shape \(…, 4\), got \(2, 3, 3\)"),
        (lambda: run(fn.layer_norm(), X.astype(int)), r"layer_norm\(\): x must be floating point, got int"),
        (lambda: run(fn.layer_norm(), X, mask=X > 0), r"mask must have shape \(2, 3\), got \(2, 3, 4\)"),
        (lambda: run(fn.rms_norm(), X, mask=X[..., 0]), r"rms_norm\(\): mask must hold bools, got float32"),
        (lambda: run(fn.batch_norm(), X, train=jnp.array(True)), r"train must be a Python bool"),
        (lambda: fn.batch_norm().apply((), X), r"params must be BatchNorm\(scale, b, stats\), got tuple"),
    ],
)  # fmt: skip
def test_bad_input_raises(run, says):
    with pytest.raises((TypeError, ValueError), match=says):
        run()


def run(net, x, **mode):
    return net.forward(net.init(KEY, X), x, **mode)
