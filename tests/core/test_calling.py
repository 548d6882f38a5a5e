"""Layers, losses, penalties and cells are tuples of functions: calling one says what to write."""

import jax.numpy as jnp
import pytest

import fnnets as fn

CELL = fn.lstm(3).info.recurrence.cell


@pytest.mark.parametrize(
    ("called", "text"),
    [
        (
            fn.dense(3),
            "dense(3) is a Layer, not a function; write net.apply(params, x), with params = net.init",
        ),
        (fn.losses.mse(), "mse() is a Loss, not a function; write loss.apply(y, target)."),
        (fn.l2(0.1), "l2(0.1) is a Penalty, not a function; write penalty.apply(params)."),
        (CELL, "lstm(3) is a Cell, not a function; write fn.recurrent(cell), a Layer"),
    ],
    ids=["layer", "loss", "penalty", "cell"],
)
def test_calling_says_what_to_write(called, text):
    with pytest.raises(TypeError) as error:
        called(jnp.ones(2), train=True)
    assert text in str(error.value)


def test_only_a_function_is_told_to_be_called():
    with pytest.raises(TypeError, match=r"layer 0 must be a Layer, got relu; call it: fn\.relu\(…\)"):
        fn.serial(fn.relu)
    with pytest.raises(TypeError, match=r"layer 0 must be a Layer, got Loss; make it one with fn\.layer"):
        fn.serial(fn.losses.mse())


def test_a_layer_among_the_settings_is_still_shown():
    assert repr(fn.elman(2, fn.sigmoid())) == "elman(2, activation=sigmoid())"
    assert repr(fn.elman(2)) == "elman(2)"
