"""Losses at the edges: huge logits, probabilities of 0, kinks, NaN, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import (
    CLASSIFIED,
    FULLEST,
    MASK,
    WEIGHTS,
    both_ways,
    close,
    labels,
    numbers,
    on_logits,
    one_of_each,
    signs,
)

import fnnets as fn

# Extremes and kinks


@on_logits
def test_softmax_cross_entropy_of_huge_logits(dtype):
    z = jnp.array([[1e4, -1e4], [1e4, -1e4]], dtype)
    got = both_ways(fn.losses.softmax_cross_entropy(), z, jnp.array([0, 1]))
    assert got.value == got.applied == float(z[0, 0])
    assert got.dy.tolist() == got.autodiff.tolist() == [[0.0, 0.0], [0.5, -0.5]]


@on_logits
def test_sigmoid_cross_entropy_of_huge_logits(dtype):
    z = jnp.array([[1e4, -1e4], [1e4, -1e4]], dtype)
    got = both_ways(fn.losses.sigmoid_cross_entropy(), z, jnp.array([[1, 0], [0, 1]]))
    assert got.value == got.applied == float(z[0, 0]) / 2
    assert got.dy.tolist() == got.autodiff.tolist() == [[0.0, 0.0], [0.25, -0.25]]


def test_sigmoid_cross_entropy_keeps_its_digits_where_it_is_nearly_right():
    got = both_ways(fn.losses.sigmoid_cross_entropy(), jnp.array([20.0]), jnp.array([1]))
    close(got.value, np.exp(-20), rtol=1e-6)
    close(got.dy, [-np.exp(-20)], rtol=1e-6)


TINY = float(np.finfo(np.float32).tiny)


@pytest.mark.parametrize(
    ("q", "t", "value", "slope"),
    [
        (0.0, 1, -np.log(TINY), 0.0),
        (TINY, 1, -np.log(TINY), -1 / TINY),
        (0.0, 0, 0.0, 0.0),
        (1.0, 1, 0.0, -1.0),
    ],
)
def test_logarithms_of_probabilities_are_finite_at_zero(q, t, value, slope):
    # The binary loss adds the slope of the other answer, which is 1 where t = 0.
    for loss, dy in ((fn.losses.cross_entropy(), slope), (fn.losses.binary_cross_entropy(), slope + (1 - t))):
        got = both_ways(loss, jnp.array([q]), jnp.array([t]))
        close(got.value, value, rtol=1e-6)
        close(got.dy, [dy], rtol=1e-6)
        close(got.autodiff, got.dy, rtol=1e-6)


@one_of_each
def test_unmasked_nan_is_not_hidden(case):
    y = case.y.copy()
    y[0, 1] = np.nan
    with jax.enable_x64(True):
        got = both_ways(case.build(), y, case.target)
    assert np.isnan([got.value, got.applied]).all()


@pytest.mark.parametrize("name", ["nll", "kl_divergence", "softmax_cross_entropy"])
def test_an_impossible_class_costs_nothing_if_it_is_not_the_target(name):
    got = both_ways(getattr(fn.losses, name)(), jnp.array([[0.0, -jnp.inf]]), jnp.array([[1.0, 0.0]]))
    assert got.value == got.applied == 0
    assert got.dy.tolist() == got.autodiff.tolist()
    assert got.dy[0, 1] == 0


@pytest.mark.parametrize(
    ("name", "y", "target", "slope"),
    [
        ("mae", [2.0, 3.0], [2.0, 2.0], [0.0, 0.5]),
        ("huber", [3.0, 1.0], [2.0, 2.0], [0.5, -0.5]),
        ("hinge", [1.0, -1.0], [1.0, -1.0], [0.0, 0.0]),
    ],
)
def test_slope_at_a_kink(name, y, target, slope):
    got = both_ways(getattr(fn.losses, name)(), jnp.array(y), jnp.array(target))
    assert got.dy.tolist() == got.autodiff.tolist() == slope


# Errors

WRONG_SHAPES = [((7, 1), (7,)), ((7,), (7, 1)), ((7, 3), (3,)), ((7, 3), (1, 3))]


@pytest.mark.parametrize(
    ("name", "y", "target"),
    [
        (name, y, target)
        for name in FULLEST
        for y, target in WRONG_SHAPES
        if name not in CLASSIFIED or target != y[:-1]  # those would be labels
    ],
)
def test_nothing_is_broadcast(name, y, target):
    with pytest.raises(ValueError, match="target must have shape") as error:
        getattr(fn.losses, name)().apply(np.zeros(y), np.zeros(target, int))
    text = str(error.value)
    assert text.startswith(f"{name}(): ")
    assert str(y) in text
    assert f"got {target}" in text


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fn.losses.mse().apply(jnp.ones((4, 3), int), numbers), TypeError, "mse(): y must be floating point"),
        (lambda: fn.losses.mse().apply(jnp.ones(()), jnp.ones(())), ValueError, "mse(): y must have at least 1 axis"),
        (lambda: fn.losses.mse().apply(numbers, None), TypeError, "mse(): target must be an array"),
        (lambda: fn.losses.mse().apply(numbers, numbers, MASK[0]), ValueError, "mask must have shape (4, 3), got (3,)"),
        (lambda: fn.losses.mse().apply(numbers, numbers, MASK[..., None]), ValueError, "got (4, 3, 1)"),
        (lambda: fn.losses.mse().apply(numbers, numbers, 1.0 * MASK), TypeError, "mask must hold bools, got float"),
        (lambda: fn.losses.nll().apply(numbers, 1.0 * labels), TypeError, "nll(): target must hold integers"),
        (lambda: fn.losses.nll(ignore_label=1).apply(numbers, signs), ValueError, "leave examples out with the mask"),
        (lambda: fn.losses.nll(weights=(1.0,)).apply(numbers, labels), ValueError, "nll(weights=…): weights must"),
        (lambda: fn.losses.nll(weights=2.0).apply(numbers, labels), ValueError, "must have shape (5,), got ()"),
        (lambda: fn.losses.nll(label_smoothing=1.5), ValueError, "nll: label_smoothing must lie between 0 and 1"),
        (lambda: fn.losses.huber(0.0), ValueError, "huber: delta must be greater than 0, got 0.0"),
        (lambda: fn.losses.mse().apply(numbers, numbers, maks=MASK), TypeError, "mse().apply() got an unexpected"),
        (lambda: fn.l2(0.1, n=0), ValueError, "l2: n must be a whole number of at least 1, got 0"),
    ],
)  # fmt: skip
def test_errors_name_the_mistake(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert text in str(raised.value)


def test_repr_of_a_loss_is_its_call():
    assert repr(fn.losses.huber(0.5)) == "huber(delta=0.5)"
    assert repr(fn.losses.nll(weights=WEIGHTS, ignore_label=0)) == "nll(weights=…, ignore_label=0)"
    assert fn.losses.nll(weights=WEIGHTS).info.settings["weights"] == WEIGHTS
