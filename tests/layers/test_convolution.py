"""Convolutions: sizes, every setting compared with autodiff and differences, the plain sum, errors."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnnets as fn

# ---------------------------------------------------------------- sizes


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 30),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 6),
    padding=st.one_of(st.just("same"), st.just("valid"), st.integers(0, 4), st.tuples(*[st.integers(0, 4)] * 2)),
    dilation=st.integers(1, 3),
    rounding=st.sampled_from(["floor", "ceil", "torch"]),
)  # fmt: skip
def test_out_size_counts_the_windows(n, kernel, stride, padding, dilation, rounding):
    extent = len(range(0, dilation * kernel, dilation)) * dilation - dilation + 1
    if padding == "same":
        count = len(range(0, n, stride))
        assert fn.out_size(n, kernel, stride, padding, dilation, rounding) == count
        return
    low, high = {"valid": (0, 0)}.get(padding, padding if isinstance(padding, tuple) else (padding, padding))
    padded = low + n + high
    ends = [start + extent for start in range(0, padded + stride * extent, stride)]
    if rounding == "floor":
        count = sum(end <= padded for end in ends)
    else:  # windows until one reaches the end of the padded input
        count = sum(end - stride < padded for end in ends)
        if rounding == "torch":
            count -= (count - 1) * stride >= low + n
    if count:
        assert fn.out_size(n, kernel, stride, padding, dilation, rounding) == count
    else:
        with pytest.raises(ValueError, match="must fit the input"):
            fn.out_size(n, kernel, stride, padding, dilation, rounding)


def test_out_size_of_known_networks():
    assert fn.out_size(32, 5) == 28
    assert fn.out_size(28, 2, stride=2) == 14
    assert fn.out_size(224, 7, stride=2, padding=3) == 112  # the first layer of a residual network
    assert fn.out_size(112, 3, stride=2, rounding="ceil") == 56  # the first pool of GoogLeNet


def test_1x1_keeps_height_and_width():
    net = fn.conv(32, (1, 1))
    x = jax.ShapeDtypeStruct((6, 6, 128), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    assert params.w.shape == (1, 1, 128, 32)
    assert jax.eval_shape(net.apply, params, x).shape == (6, 6, 32)


# ---------------------------------------------------------------- the product of all settings

SIZES = {1: (7,), 2: (5, 4), 3: (3, 5, 4)}
PADDINGS = {
    "same": {"padding": "same"},
    "valid": {"padding": "valid"},
    "1": {"padding": 1},
    "unequal": {"padding": (0, 2)},
    "unequal, rounded up": {"padding": (2, 1), "rounding": "ceil"},
}
GROUPS = {  # channels, groups
    "one group": (3, 1),
    "two groups": (4, 2),
    "depthwise": (4, 4),
    "two features per channel": (2, 2),
}
KINDS = {"conv": fn.conv, "conv_transpose": fn.conv_transpose}
SHARE = 47  # the everyday run takes one case in 47 of the product; `--full` takes all
STEP = 1e-3  # a convolution has no third derivative, so the quotient is exact except for rounding


def check(net, rng, shape):
    """Compares a layer with autodiff, and with differences along a random direction of all leaves."""

    def run(point, direction, dy):
        y, pullback = jax.vjp(net.apply, *point)
        again, _, saved = net.forward(*point)
        hand = net.backward(point[0], saved, dy)[:2]
        ends = [
            net.apply(*jax.tree.map(lambda leaf, v, h=h: leaf + h * v, point, direction))
            for h in (STEP, -STEP)
        ]
        return (y, again), (hand, pullback(dy)), (ends[0] - ends[1]) / (2 * STEP)

    like = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, float)), np.empty(shape)
    dy = rng.standard_normal(jax.eval_shape(net.apply, *like).shape)
    point, direction = (jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), like) for _ in range(2))
    (y, again), (hand, auto), slope = jax.jit(run)(point, direction, dy)
    np.testing.assert_allclose(again, y, rtol=1e-13, atol=1e-13)
    chex.assert_trees_all_close(hand, auto, rtol=1e-11, atol=1e-11)
    along = sum(map(np.vdot, jax.tree.leaves(hand), jax.tree.leaves(direction)))
    np.testing.assert_allclose(along, np.vdot(slope, dy), rtol=1e-7, atol=1e-7)


PRODUCT = [
    (kind, *rest)
    for kind, *rest in itertools.product(KINDS, SIZES, (1, 2, 3), (1, 2, 3), PADDINGS, (1, 2), GROUPS)
    if not (kind == "conv_transpose" and "rounding" in PADDINGS[rest[3]])  # it does not round
]


def pytest_generate_tests(metafunc):
    if "setting" in metafunc.fixturenames:
        chosen = PRODUCT if metafunc.config.getoption("--full") else PRODUCT[::SHARE]
        metafunc.parametrize("setting", chosen, ids=lambda setting: ", ".join(map(str, setting)))


def test_every_setting_agrees(setting, x64):
    kind, axes, kernel, stride, padding, dilation, groups = setting
    channels, number = GROUPS[groups]
    options = {"strides": stride, "dilation": dilation, "groups": number} | PADDINGS[padding]
    if isinstance(options["padding"], tuple):
        options["padding"] = (options["padding"],) * axes
    sizes = [max(n, dilation * (kernel - 1) + 1) for n in SIZES[axes]]
    check(KINDS[kind](4, (kernel,) * axes, **options), np.random.default_rng(0), (2, *sizes, channels))


def test_the_everyday_run_covers_every_pair_of_settings():
    def pairs(cases):
        return {(i, j, case[i], case[j]) for case in cases for i, j in itertools.combinations(range(7), 2)}

    assert pairs(PRODUCT[::SHARE]) == pairs(PRODUCT)


# ---------------------------------------------------------------- the plain sum


def plain_sum(x, w, b, strides, dilation, lows, sizes, groups):
    """y[t, o] = Σ_{k,i} x[t·stride + k·dilation − low, i]·w[k, i, o] + b[o], term by term."""
    *kernel, inputs, features = w.shape
    y = np.zeros((*sizes, features)) + b
    for t in np.ndindex(*sizes):
        for k in np.ndindex(*kernel):
            place = tuple(np.array(t) * strides + np.array(k) * dilation - lows)
            if all(0 <= j < n for j, n in zip(place, x.shape, strict=False)):
                for o in range(features):
                    group = o // (features // groups)
                    y[(*t, o)] += x[place][group * inputs : (group + 1) * inputs] @ w[(*k, slice(None), o)]
    return y


@pytest.mark.parametrize(
    ("options", "strides", "dilation", "lows", "sizes"),
    [
        ({"rounding": "floor", "padding": 0}, (2, 3), (1, 1), (0, 0), (3, 1)),
        ({"rounding": "ceil", "padding": "valid"}, (2, 3), (1, 1), (0, 0), (3, 2)),
        ({"rounding": "ceil", "padding": ((2, 1), 1)}, (3, 3), (1, 2), (2, 1), (4, 2)),
        ({"rounding": "torch", "padding": ((0, 2), (1, 2))}, (4, 4), (1, 1), (0, 1), (2, 2)),
        ({"padding": "same"}, (2, 3), (1, 1), (0, 0), (3, 2)),
        ({"padding": "same"}, (1, 1), (2, 1), (1, 1), (6, 5)),
    ],
)
def test_conv_equals_the_plain_sum(options, strides, dilation, lows, sizes, x64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5, 4))
    params = fn.Conv(rng.standard_normal((2, 3, 2, 4)), rng.standard_normal(4))
    net = fn.conv(4, (2, 3), strides=strides, dilation=dilation, groups=2, **options)
    expected = plain_sum(x, *params, strides, dilation, lows, sizes, 2)
    np.testing.assert_allclose(net.apply(params, x), expected, rtol=1e-13, atol=1e-13)


def test_conv_transpose_restores_the_sizes_and_is_the_transpose_of_conv(x64):
    """⟨conv(x), z⟩ = ⟨x, conv_transpose(z)⟩ with inputs and outputs of the kernel swapped."""
    rng = np.random.default_rng(0)
    settings = {"strides": (2, 1), "padding": ((1, 0), 1), "use_bias": False}
    there, back = fn.conv(3, (3, 2), **settings), fn.conv_transpose(2, (3, 2), **settings)
    w, z = rng.standard_normal((3, 2, 2, 3)), rng.standard_normal((2, 4, 3, 3))
    x = rng.standard_normal(back.apply(fn.Conv(w.swapaxes(2, 3), None), z).shape)
    forth = there.apply(fn.Conv(w, None), x)
    assert forth.shape == z.shape
    returned = back.apply(fn.Conv(w.swapaxes(2, 3), None), z)
    np.testing.assert_allclose((forth * z).sum(), (x * returned).sum(), rtol=1e-12)


# ---------------------------------------------------------------- batch axes, masks and dtypes


@pytest.mark.parametrize("factory", [fn.conv, fn.conv_transpose])
def test_any_number_of_batch_axes(factory):
    net = factory(3, (2, 2), strides=2)
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 5, 2))
    params = net.init(jax.random.key(0), x)
    y = net.apply(params, x)
    chex.assert_trees_all_close(y[1], net.apply(params, x[1]), rtol=1e-5)
    chex.assert_trees_all_close(y[1, 2], net.apply(params, x[1, 2]), rtol=1e-5)
    empty = net.apply(params, x[:0])
    assert empty.shape == (0, *y.shape[1:])


def test_masked_padding_has_no_effect(x64):
    rng = np.random.default_rng(0)
    net = fn.serial(fn.conv(3, 3), fn.sigmoid(), fn.conv(2, (5,)))
    x, mask = rng.standard_normal((2, 6, 2)), np.arange(6) < np.array([[6], [4]])
    params = net.init(jax.random.key(0), x)
    y = net.apply(params, np.where(mask[..., None], x, np.nan), mask=mask)
    alone = net.apply(params, x[1, :4])
    np.testing.assert_allclose(y[1, :4], alone, rtol=1e-13)
    _, _, saved = net.forward(params, np.where(mask[..., None], x, np.nan), mask=mask)
    _, dx, _ = net.backward(params, saved, jnp.ones_like(y))
    assert not dx[1, 4:].any()
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("factory", [fn.conv, fn.conv_transpose])
def test_bfloat16_is_close_to_float32(factory):
    net = factory(8, (3, 3), strides=2)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 16))
    params = net.init(jax.random.key(0), x)

    def run(params, x):
        y, _, saved = net.forward(params, x)
        return y, *net.backward(params, saved, jnp.ones_like(y))[:2]

    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, x))
    for short, full in zip(*map(jax.tree.leaves, (run(*half), run(params, x))), strict=True):
        assert short.dtype == jnp.bfloat16
        assert jnp.abs(short.astype(float) - full).max() <= 0.02 * jnp.abs(full).max()


# ---------------------------------------------------------------- upsampling


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("factor", "shape"), [(3, (2, 4, 2)), ((2, 3), (2, 3, 1, 2)), ((2, 1, 5), (2, 3, 2, 2)), ((1,), (3, 2))]
)
def test_upsample_equals_jaxs_resize(method, factor, shape, x64):
    net, rng = fn.upsample(factor, method), np.random.default_rng(0)
    check(net, rng, shape)
    each = (factor,) if isinstance(factor, int) else factor
    grown = np.array(shape)
    grown[-1 - len(each) : -1] *= each
    x = rng.standard_normal(shape)
    resized = jax.image.resize(x, grown, "linear" if method == "bilinear" else method)
    np.testing.assert_allclose(net.apply((), x), resized, rtol=1e-13, atol=1e-13)


# ---------------------------------------------------------------- errors

X = np.ones((2, 5, 5, 3))
SAYS = {
    "zero stride": (lambda: fn.conv(4, (3, 3), strides=0), r"conv: strides must be .* at least 1, got 0"),
    "zero of two strides": (lambda: fn.conv(4, (3, 3), strides=(1, 0)), r"conv: strides\[1\] must be"),
    "too many strides": (lambda: fn.conv(4, (3, 3), strides=(1, 1, 1)), "conv: strides must be an int or a tuple of 2"),
    "no kernel": (lambda: fn.conv(4, ()), "conv: kernel_size must be an int or a tuple of one, two or three, .*got \\(\\)"),
    "kernel of 0": (lambda: fn.conv_transpose(4, 0), "conv_transpose: kernel_size must be .* at least 1, got 0"),
    "unknown padding": (lambda: fn.conv(4, 3, padding="full"), "conv: padding must be one of 'same', 'valid', got 'full'"),
    "padding in capitals": (lambda: fn.conv(4, 3, padding="SAME"), "got 'SAME'"),
    "negative padding": (lambda: fn.conv(4, 3, padding=-1), "conv: padding must be .* at least 0 .* got -1"),
    "a pair for all axes": (lambda: fn.conv(4, 3, padding=(1, 2)), "each of the 1 spatial axes, got \\(1, 2\\)"),
    "three for one end": (lambda: fn.conv(4, (3,), padding=((1, 2, 3),)), "a pair of them, got \\(1, 2, 3\\)"),
    "unknown rounding": (lambda: fn.conv(4, 3, rounding="up"), "conv: rounding must be one of 'floor', 'ceil', 'torch', got 'up'"),
    "features": (lambda: fn.conv(4, 3, groups=3), "conv: groups must divide features, got features=4 and groups=3"),
    "no features": (lambda: fn.conv(0, 3), "conv: features must be"),
    "channels": (lambda: fn.conv(4, (3, 3), groups=2).init(jax.random.key(0), X), "conv.*groups must divide the channels of x, got 3 channels and groups=2"),
    "rank": (lambda: fn.conv(4, (3, 3)).init(jax.random.key(0), X[0, 0]), "conv.*: x must have at least 3 axes, 2 spatial and one of channels, got shape \\(5, 3\\)"),
    "integers": (lambda: fn.conv(4, 3).init(jax.random.key(0), X.astype(int)), "conv.*: x must be floating point"),
    "too large": (lambda: fn.conv(4, 3, dilation=3, padding="valid").init(jax.random.key(0), X), r"conv\(4, 3, .*\): the window must fit the input, got a kernel of 3 \(7 with its dilation\) and an input of 5;"),
    "too large in padding": (lambda: fn.conv(4, 8, padding=1).init(jax.random.key(0), X), "a kernel of 8 and an input of 5, 7 with its padding; give more padding"),
    "nothing left": (lambda: fn.conv_transpose(4, 3, padding=4).init(jax.random.key(0), X), "conv_transpose.*: the output must have a size of at least 1, got -1: 7 minus a padding of 8"),
    "four axes": (lambda: fn.conv(4, (1, 1, 1, 1)), r"conv: kernel_size must be an int or a tuple of one, two or three, one for each spatial axis, got \(1, 1, 1, 1\)"),
    "params of another kernel": (lambda: fn.conv(4, 5).apply(fn.conv(4, 3).init(jax.random.key(0), X), X), r"conv\(4, 5\): params.w must have shape \(5, C / groups, features\), got \(3, .*pass the params that this layer's init returned"),
    "out_size": (lambda: fn.out_size(3, 5), "out_size: the window must fit the input, got a kernel of 5 and an input of 3"),
    "out_size of nothing": (lambda: fn.out_size(0, 5), "out_size: n must be a whole number of at least 1"),
    "method": (lambda: fn.upsample(2, "cubic"), "upsample: method must be one of 'nearest', 'bilinear', got 'cubic'"),
    "factor": (lambda: fn.upsample((2, 0)), r"upsample: factor\[1\] must be"),
    "upsample's rank": (lambda: fn.upsample((2, 2)).apply((), X[0, 0]), "upsample.*: x must have at least 3 axes"),
    "other channels": (lambda: called(fn.conv(4, (3, 3)), X[..., :2]), r"conv.*: x must have shape \(…, 3\), got \(2, 5, 5, 2\)"),
    "params of another type": (lambda: fn.conv(4, 3).apply((1, 2), X), "conv.*: params must be Conv"),
    "mask": (lambda: called(fn.conv(4, (3, 3)), X, mask=np.ones((2, 5), bool)), r"conv.*: mask must have shape \(2, 5, 5\), got \(2, 5\)"),
}  # fmt: skip


def called(net, x, **mode):
    return net.apply(net.init(jax.random.key(0), X), x, **mode)


@pytest.mark.parametrize("name", SAYS)
def test_errors_say_what_is_expected(name):
    wrong, says = SAYS[name]
    with pytest.raises((TypeError, ValueError), match=says):
        wrong()
