"""Pools: every setting compared with autodiff and differences, ties, NaN, masks, errors."""

import itertools

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

POOLS = {
    "max": fn.max_pool,
    "avg": fn.avg_pool,
    "avg without padding": lambda *a, **o: fn.avg_pool(*a, count_include_pad=False, **o),
}
SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 3)}
# Window, strides, padding, rounding.
SETTINGS = {
    "side by side": (2, None, "valid", "floor"),
    "overlapping": (3, 1, "same", "floor"),
    "overlapping, padded": (3, 2, 1, "floor"),
    "gaps": (1, 2, "valid", "ceil"),
    "rounded up": (2, None, 1, "ceil"),
    "rounded up as in PyTorch": (3, 2, (1, 0), "torch"),
}


def values(*shape, seed=0):
    """Distinct values, far enough apart for differences."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.prod(shape)).reshape(shape) / 10.0


def of_setting(pool, dims, setting):
    window, strides, padding, rounding = SETTINGS[setting]
    padding = (padding,) * dims if isinstance(padding, tuple) else padding
    return POOLS[pool]((window,) * dims, strides=strides, padding=padding, rounding=rounding)


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("pool", POOLS)
def test_every_setting_agrees(pool, dims, request, x64):
    """The everyday run takes every other case of the product; `--full` takes all."""
    shape, product = (2, *SIZES[dims], 1), itertools.product(SETTINGS, (False, True))
    for number, (setting, masked) in enumerate(product):
        if not request.config.getoption("--full") and (number // 2 + dims) % 2 == masked:
            continue
        mask = np.arange(np.prod(shape)).reshape(shape[:-1]) % 3 > 0 if masked else None
        agreement.check(of_setting(pool, dims, setting), values(*shape), mask=mask)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_pools_equal_a_plain_loop_over_windows(pool, setting, x64):
    """Window by window in NumPy; a window without valid places gives 0."""
    x, net = values(5, 4, 2), of_setting(pool, 2, setting)
    window, strides, padding, _ = SETTINGS[setting]
    y = net.apply((), x)
    low = {"valid": 0, "same": 1}.get(padding, padding[0] if isinstance(padding, tuple) else padding)
    after = {"valid": 0, "same": 1}.get(padding, padding[1] if isinstance(padding, tuple) else padding)
    for t in np.ndindex(y.shape[:2]):
        start = [i * (strides or window) - low for i in t]
        inside = tuple(slice(max(a, 0), max(a + window, 0)) for a in start)
        part = x[inside].reshape(-1, 2)
        if pool == "max":
            expected = part.max(0) if len(part) else np.zeros(2)
        else:
            ends = [min(a + window, n + after) - a for a, n in zip(start, x.shape, strict=False)]
            n = np.prod(np.maximum(ends, 0)) if pool == "avg" else len(part)
            expected = part.sum(0) / max(n, 1)
        np.testing.assert_allclose(y[t], expected, rtol=1e-13)


@pytest.mark.parametrize("window", [(2, 2), (3, 3)])
def test_the_first_of_equal_values_gets_the_gradient(window, x64):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (2, 6, 6, 2)).astype(float)
    net = fn.max_pool(window, strides=2, padding=1)
    y, _, saved = net.forward((), x)
    dy = rng.standard_normal(y.shape)
    _, dx, _ = net.backward((), saved, dy)
    np.testing.assert_allclose(dx, jax.grad(lambda x: (net.apply((), x) * dy).sum())(x), rtol=1e-13)
    ones, net = jnp.ones((2, 2, 1)), fn.max_pool((2, 2))
    assert net.backward((), net.forward((), ones)[2], ones[:1, :1])[1][..., 0].tolist() == [[1, 0], [0, 0]]


def test_the_saved_places_are_small():
    x = jnp.ones((4, 6, 6, 3))
    assert fn.max_pool((2, 2)).forward((), x)[2].place.dtype == jnp.uint8
    large = jax.eval_shape(fn.max_pool(300).forward, (), jax.ShapeDtypeStruct((600, 1), jnp.float32))
    assert large[2].place.dtype == jnp.int32


def test_unmasked_nan_is_not_hidden():
    x = jnp.ones((4, 4, 1)).at[0, 1].set(jnp.nan)
    for net in (fn.max_pool((2, 2)), fn.avg_pool((2, 2))):
        for y in (net.apply((), x), net.forward((), x)[0]):
            assert jnp.isnan(y[..., 0]).tolist() == [[True, False], [False, False]]
    assert jnp.isnan(fn.global_max_pool().apply((), x)).all()


@pytest.mark.parametrize("pool", POOLS)
def test_nan_in_the_padding_has_no_effect(pool):
    net, mask = of_setting(pool, 2, "overlapping"), np.arange(30).reshape(2, 5, 3) % 3 > 0
    x = jnp.where(mask[..., None], values(2, 5, 3, 2), jnp.nan)
    y, _, saved = net.forward((), x, mask=mask)
    _, dx, _ = net.backward((), saved, jnp.ones_like(y))
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(dx).all()
    assert not dx[~mask].any()


@pytest.mark.parametrize(
    "net", [fn.max_pool((2, 2)), fn.avg_pool((2, 2)), fn.global_avg_pool(), fn.global_max_pool()]
)
def test_any_number_of_batch_axes(net):
    x = values(2, 3, 4, 4, 1).astype(np.float32)
    y = net.apply((), x)
    each = jax.vmap(jax.vmap(lambda x: net.apply((), x)))(x)
    np.testing.assert_allclose(y, each, rtol=1e-6)


def test_half_precision_is_summed_in_float32():
    x = jnp.full((64, 64, 1), 100, jnp.float16)
    assert fn.avg_pool((64, 64)).apply((), x).tolist() == [[[100.0]]]
    assert fn.global_avg_pool().apply((), x).tolist() == [100.0]


def test_a_mask_of_places_ends_at_the_global_pool():
    net = fn.serial(fn.conv(2, (2, 2)), fn.batch_norm(), fn.global_avg_pool(), fn.dense(1))
    x, mask = (
        jnp.full((3, 4, 4, 1), jnp.nan).at[:, :2].set(1.0),
        jnp.zeros((3, 4, 4), bool).at[:, :2].set(True),
    )
    params = net.init(jax.random.key(0), x)
    y, _, saved = net.forward(params, x, train=True, mask=mask)
    dparams, dx, _ = net.backward(params, saved, jnp.ones_like(y))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((y, dparams, dx)))
    assert y.shape == (3, 1)


X = np.ones((2, 4, 4, 1), np.float32)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: fn.max_pool(0), r"max_pool: window must be a whole number of at least 1, got 0"),
        (lambda: fn.max_pool((2, 2), strides=(1,)), r"max_pool: strides must be an int or a tuple of 2"),
        (lambda: fn.avg_pool(2, padding="full"), r"avg_pool: padding must be one of 'same', 'valid', got 'full'"),
        (lambda: fn.avg_pool(2, rounding="up"), r"avg_pool: rounding must be one of 'floor', 'ceil', 'torch'"),
        (lambda: fn.max_pool((2, 2)).apply((), X[0, 0]), r"x must have at least 3 axes, 2 spatial and one of channels"),
        (lambda: fn.max_pool((5, 5)).apply((), X), r"max_pool\(\(5, 5\)\): the window must fit the input"),
        (lambda: fn.max_pool(2).apply((), X.astype(int)), r"max_pool\(2\): x must be floating point"),
        (lambda: fn.avg_pool(2).apply((), X, mask=X > 0), r"avg_pool\(2\): mask must have shape \(2, 4, 4\)"),
        (lambda: fn.global_avg_pool(0), r"global_avg_pool: dims must be a whole number of at least 1, got 0"),
        (lambda: fn.global_max_pool(3).apply((), X[0]), r"global_max_pool\(dims=3\): x must have at least 4 axes"),
        (lambda: fn.global_max_pool().apply((), X[:, :0]), r"the number of places must be a whole number of at least"),
    ],
)  # fmt: skip
def test_bad_input_raises(run, says):
    with pytest.raises((TypeError, ValueError), match=says):
        run()
