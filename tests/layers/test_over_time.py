"""Layers that reduce the time axis away, and dropout that is the same in every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

# Nothing masked, right padding, left padding, a gap, nothing valid.
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]], bool)
X = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
DY = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
LAYERS = [fn.last(), fn.mean_over_time(), fn.max_over_time()]
KEY = jax.random.key(0)
over_time = pytest.mark.parametrize("layer", LAYERS, ids=repr)


def gradient(layer, x, dy, mask=None):
    y, _, saved = layer.forward((), x, mask=mask)
    return np.asarray(y), np.asarray(layer.backward((), saved, dy)[1])


@over_time
def test_masking_equals_cutting_the_sequence_short(layer):
    y, dx = gradient(layer, X, DY, MASK)
    for n, valid in enumerate(MASK[:4]):
        y_cut, dx_cut = gradient(layer, X[n, valid], DY[n])
        np.testing.assert_allclose(y[n], y_cut, rtol=1e-6)
        np.testing.assert_allclose(dx[n, valid], dx_cut, rtol=1e-6)
    assert not dx[~MASK].any()
    assert not y[4].any(), "0 if no step is valid"


@over_time
def test_padding_has_no_effect(layer):
    for bad in (np.nan, np.inf, -np.inf):
        dirty = np.where(MASK[..., None], X, np.float32(bad))
        for expected, got in zip(gradient(layer, X, DY, MASK), gradient(layer, dirty, DY, MASK), strict=True):
            np.testing.assert_array_equal(got, expected)
        plain = jax.grad(lambda x: (layer.apply((), x, mask=MASK) * DY).sum())(dirty)
        np.testing.assert_allclose(plain, gradient(layer, X, DY, MASK)[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "y", "dx"),
    [
        (fn.last(), [2.0, 4.0], [[0, 0], [0, 0], [1, 1]]),
        (fn.mean_over_time(), [3.0, 2.0], [[1 / 3, 1 / 3]] * 3),
        (fn.max_over_time(), [5.0, 4.0], [[0, 0], [1, 0], [0, 1]]),
    ],
    ids=repr,
)
def test_numbers_worked_out_on_paper(layer, y, dx):
    got_y, got_dx = gradient(layer, jnp.array([[2.0, -1.0], [5.0, 3.0], [2.0, 4.0]]), jnp.ones(2))
    np.testing.assert_allclose(got_y, y, rtol=1e-6)
    np.testing.assert_allclose(got_dx, dx, rtol=1e-6)


def test_the_first_valid_of_equal_values_gets_the_gradient():
    x, mask = jnp.array([[7.0], [7.0], [7.0]]), jnp.array([False, True, True])
    y, dx = gradient(fn.max_over_time(), x, jnp.ones(1), mask)
    assert (y.tolist(), dx.tolist()) == ([7.0], [[0.0], [1.0], [0.0]])
    lowest = gradient(fn.max_over_time(), jnp.full((3, 1), -jnp.inf), jnp.ones(1), mask)
    assert (lowest[0].tolist(), lowest[1].tolist()) == ([-np.inf], [[0.0], [1.0], [0.0]])


@over_time
def test_nan_in_a_valid_step_is_not_hidden(layer):
    assert np.isnan(layer.apply((), jnp.full((2, 3, 1), jnp.nan))).all()


def test_a_long_mean_is_summed_in_float32():
    y, dx = gradient(fn.mean_over_time(), jnp.ones((4096, 1), jnp.bfloat16), jnp.ones(1, jnp.bfloat16))
    assert float(y[0]) == 1, "bfloat16 alone stops counting at 256"
    assert float(dx[0, 0]) == 1 / 4096


def test_later_layers_get_no_mask():
    net = fn.serial(fn.dense(3), fn.mean_over_time(), fn.dense(2))
    params = net.init(KEY, X)
    assert net.apply(params, X, mask=MASK).shape == (5, 2)


# --- dropout ---


def test_shared_dropout_drops_a_feature_in_all_steps_or_in_none():
    x = jnp.ones((200, 6, 50))
    y = np.asarray(fn.dropout(0.3, shared_axes=(-2,)).apply((), x, key=KEY, train=True))
    assert (y == y[:, :1]).all(), "one draw for all steps"
    assert (y[:, 0] != y[:1, 0]).any(), "each sequence has its own"
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert y.mean() == pytest.approx(1, abs=0.03)


def test_shared_dropout_draws_for_each_example():
    layer, x = fn.dropout(0.5, shared_axes=(-2, -1)), jnp.ones((7, 4, 3))
    keys = jax.random.split(KEY, 7)
    rows = jax.vmap(lambda x, key: layer.apply((), x, key=key, train=True))(x, keys)
    assert all(len(np.unique(row)) == 1 for row in np.asarray(rows))
    assert len(np.unique(rows)) == 2


def test_without_shared_axes_dropout_draws_a_plain_bernoulli():
    y = fn.dropout(0.5).apply((), jnp.ones((3, 4)), key=KEY, train=True)
    keep = jax.random.bernoulli(KEY, 0.5, (3, 4))
    np.testing.assert_array_equal(y, jnp.where(keep, 2.0, 0.0))


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fn.last().apply((), jnp.ones(3)), ValueError, r"last\(\): x must have at least 2 axes, got shape \(3,\)"),
        (lambda: fn.last().apply((), jnp.ones((4, 0, 3))), ValueError, r"last\(\): the number of steps must be a whole number of at least 1, got 0"),
        (lambda: fn.mean_over_time().apply((), jnp.ones((4, 3), int)), TypeError, r"mean_over_time\(\): x must be floating point"),
        (lambda: fn.max_over_time().apply((), X, mask=MASK[:, :2]), ValueError, r"max_over_time\(\): mask must have shape \(5, 4\), got \(5, 2\)"),
        (lambda: fn.last().apply((), X, mask=MASK.astype(int)), TypeError, r"last\(\): mask must hold bools, got int"),
        (lambda: fn.last().forward((), X, jnp.ones(3)), TypeError, r"last\(\): has no carry"),
        (lambda: fn.dropout(0.5, shared_axes=(1,)), ValueError, r"dropout: shared_axes must be a tuple of numbers below 0, got \(1,\)"),
        (lambda: fn.dropout(0.5, shared_axes=-2), ValueError, "dropout: shared_axes must be a tuple of numbers below 0, got -2"),
        (lambda: fn.dropout(0.5, shared_axes=(-2,)).apply((), jnp.ones(3), key=KEY, train=True), ValueError, r"dropout\(0.5, shared_axes=\(-2,\)\): x must have at least 2 axes"),
    ],
)  # fmt: skip
def test_bad_input_raises(call, error, says):
    with pytest.raises(error, match=says):
        call()
