"""Convolutions: sizes, every setting by hand against autodiff and differences, the plain sum, errors."""

import itertools
import math

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
    else:  # as many as it takes until one reaches the end of the padded input
        count = sum(end - stride < padded for end in ends)
        if rounding == "torch":
            count = min(count, len(range(0, low + n, stride)))
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
GROUPS = {"one group": (3, 1), "two groups": (4, 2), "depthwise": (4, 4)}  # channels, groups
KINDS = {"conv": fn.conv, "conv_transpose": fn.conv_transpose}


def of_product(kind, axes, kernel, stride, padding, dilation, groups):
    """The layer and the shape of its input."""
    channels, groups = GROUPS[groups]
    options = {"strides": stride, "dilation": dilation, "groups": groups} | PADDINGS[padding]
    if isinstance(options["padding"], tuple):
        options["padding"] = (options["padding"],) * axes
    net = KINDS[kind](4, (kernel,) * axes, **options)
    extent = dilation * (kernel - 1) + 1
    return net, (2, *[max(n, extent) for n in SIZES[axes]], channels)


def hold(net, rng, shape, **mode):
    """Holds a layer to autodiff, and to differences along a random direction in which all leaves move."""

    def run(point, direction):
        params, x = point
        y, _, saved = net.forward(params, x, **mode)
        dy = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        hand = net.backward(params, saved, dy)[:2]
        ends = []

        def energy(point):
            return (net.apply(*point, **mode) * dy).sum()

        for step in (STEP, -STEP):
            ends.append(energy(jax.tree.map(lambda leaf, v: leaf + step * v, point, direction)))
        products = jax.tree.map(lambda g, v: (g * v).sum(), hand, direction)
        slopes = sum(jax.tree.leaves(products)), (ends[0] - ends[1]) / (2 * STEP)
        return y, net.apply(params, x, **mode), hand, jax.grad(energy)(point), slopes

    like = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, float)), np.empty(shape)
    point, direction = (jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), like) for _ in range(2))
    y, plain, hand, auto, slopes = jax.jit(run)(point, direction)
    chex.assert_trees_all_close(y, plain, rtol=1e-13, atol=1e-13)
    chex.assert_trees_all_close(hand, auto, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(*slopes, rtol=1e-7, atol=1e-7)


STEP = 1e-3  # y has no third derivative: the quotient is exact but for rounding


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("axes", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_agrees(kind, axes, kernel, stride, x64):
    rng = np.random.default_rng(0)
    for padding, dilation, groups in itertools.product(PADDINGS, (1, 2), GROUPS):
        if kind == "conv_transpose" and "rounding" in PADDINGS[padding]:
            continue  # rounds nothing
        if dilation > 1 and kernel == 1:
            continue  # there is nothing to dilate
        net, shape = of_product(kind, axes, kernel, stride, padding, dilation, groups)
        hold(net, rng, shape)
