"""Padding, masks from lengths, shifting for teacher forcing, and generation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue

KEY = jax.random.key(3)
NET = fn.serial(fn.embedding(5, 3), fn.lstm(4), fn.dense(5))
FIRST = jnp.array([0, 3, 1])
one_step = jax.jit(NET.forward)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.float32, catalogue.random_params(NET, np.random.default_rng(1), FIRST[:, None]))


def test_length_mask():
    mask = jax.jit(fn.length_mask, static_argnums=1)(jnp.array([[2, 0], [3, 9]]), 3)
    assert mask.astype(int).tolist() == [[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]]
    assert fn.length_mask(np.int32(1), 2).tolist() == [True, False]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_with_the_mask_recovers_the_sequences(side):
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((steps, 2)).astype(np.float32) for steps in (3, 0, 5)]
    x, mask = fn.pad_sequences(sequences, side=side, value=np.nan)
    assert (x.shape, x.dtype, mask.shape, mask.dtype) == ((3, 5, 2), np.float32, (3, 5), bool)
    for row, valid, sequence in zip(x, mask, sequences, strict=True):
        np.testing.assert_array_equal(row[valid], sequence)
        assert np.isnan(row[~valid]).all()
    if side == "right":
        np.testing.assert_array_equal(mask, fn.length_mask(jnp.array([3, 0, 5]), 5))
    assert mask[0, -1] == (side == "left")


def test_pad_sequences_to_a_given_length():
    x, mask = fn.pad_sequences([np.array([1, 2], np.int32), np.array([3], np.int32)], 4, value=-1)
    assert x.tolist() == [[1, 2, -1, -1], [3, -1, -1, -1]]
    assert (x.dtype, mask.sum()) == (np.int32, 3)


def test_shift_right():
    ids = jnp.array([[5, 6, 7], [1, 2, 3]])
    assert fn.shift_right(ids, 0).tolist() == [[0, 5, 6], [0, 1, 2]]
    assert fn.shift_right(ids, jnp.array([8, 9])).tolist() == [[8, 5, 6], [9, 1, 2]]
    floats = jnp.arange(12.0).reshape(2, 3, 2)
    assert fn.shift_right(floats, jnp.array([-1.0, -2.0]))[1].tolist() == [[-1, -2], [6, 7], [8, 9]]
    assert fn.shift_right(floats[0], 0).tolist() == [[0, 0], [0, 1], [2, 3]]


# --- generate ---


def in_python(params, carry, ids, length, temperature):
    """The same with a Python loop and `jax.random.categorical`."""
    drawn = []
    for t in range(length):
        logits, carry, _ = one_step(params, ids[..., None], carry)
        logits = logits[..., 0, :]
        ids = logits.argmax(-1)
        if temperature:
            ids = jax.random.categorical(jax.random.fold_in(KEY, t), logits / temperature)
        drawn.append(ids)
    return jnp.stack(drawn, -1), carry


def test_generate_equals_a_python_loop_and_compiles_once_for_all_temperatures(params):
    traced = []

    @functools.partial(jax.jit, static_argnames="length")
    def write(params, carry, first, length, temperature):
        traced.append(length)
        return fn.generate(NET, params, carry, first, length, KEY, temperature)

    start = fn.zero_carry(NET, params, FIRST[:, None])
    for temperature in (0.0, 0.5, 1.0):
        ids, carry = write(params, start, FIRST, 6, temperature)
        expected, last = in_python(params, start, FIRST, 6, temperature)
        assert ids.tolist() == expected.tolist()
        assert ids.dtype == FIRST.dtype
        chex.assert_trees_all_close(carry, last, rtol=1e-5)
        short, middle = write(params, start, FIRST, 3, temperature)
        assert short.tolist() == ids[:, :3].tolist(), "a longer text must begin as a shorter one"
        if temperature == 0:
            rest, _ = write(params, middle, short[:, -1], 3, temperature)
            assert rest.tolist() == ids[:, 3:].tolist(), "the carry must continue the text"
    assert traced == [6, 3]


def test_temperature_zero_works_without_a_key_and_a_carry(params):
    ids, _ = fn.generate(NET, params, None, FIRST, 6, temperature=0)
    assert (
        ids.tolist() == in_python(params, fn.zero_carry(NET, params, FIRST[:, None]), FIRST, 6, 0)[0].tolist()
    )


def test_draws_follow_the_softmax_distribution():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    net = fn.layer(
        lambda key, x: (),
        lambda params, x: jnp.broadcast_to(logits, (*x.shape, 3)),
        lambda params, x: (jnp.broadcast_to(logits, (*x.shape, 3)), ()),
        lambda params, saved, dy: ((), None),
    )
    ids, carry = fn.generate(net, (), None, jnp.zeros(200, int), 100, KEY)
    shares = np.bincount(np.asarray(ids).ravel(), minlength=3) / ids.size
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.015)
    assert carry is None


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p: fn.length_mask(jnp.ones(3), 4), TypeError, "length_mask: lengths must hold integers, got float32"),
        (lambda p: fn.length_mask(jnp.array([1]), 0), ValueError, "length_mask: steps must be a whole number of at least 1"),
        (lambda p: fn.pad_sequences([]), ValueError, "pad_sequences: there must be at least one sequence, got none"),
        (lambda p: fn.pad_sequences([np.ones((2, 3)), np.ones((2, 4))]), ValueError, r"pad_sequences: a step of sequence 1 must have shape \(3,\), got \(4,\); as in sequence 0"),
        (lambda p: fn.pad_sequences([np.ones(2), np.ones(2, int)]), TypeError, "sequence 1 must have dtype float64, as sequence 0 has, got int64"),
        (lambda p: fn.pad_sequences([np.ones(2), np.ones(5)], 4), ValueError, "sequence 1 has 5 steps, but length is 4; cut it"),
        (lambda p: fn.pad_sequences([1, 2]), ValueError, "sequence 0 must have at least 1 axis"),
        (lambda p: fn.pad_sequences([np.ones(2)], side="both"), ValueError, "side must be one of 'right', 'left', got 'both'"),
        (lambda p: fn.shift_right(jnp.ones(3), 0), ValueError, "shift_right: targets must have at least 2 axes"),
        (lambda p: fn.generate(NET, p, None, FIRST, 3), ValueError, "generate: drawing needs a key, got key=None; pass one, or temperature=0"),
        (lambda p: fn.generate(NET, p, None, FIRST, 3, KEY, -1.0), ValueError, "temperature must be at least 0, got -1.0"),
        (lambda p: fn.generate(NET, p, None, FIRST, 0, KEY), ValueError, "length must be a whole number of at least 1, got 0"),
        (lambda p: fn.generate(NET, p, None, jnp.ones(3), 3, KEY), TypeError, "generate: first must hold integers, got float32"),
        (lambda p: fn.generate(NET, p, jnp.ones((3, 4)), FIRST, 3, KEY), ValueError, r"generate: carry must hold arrays of the shapes \(3, 4\), \(3, 4\), got \(3, 4\)"),
        (lambda p: fn.generate(fn.serial(*NET.info.children, fn.last()), (*p, ()), None, FIRST, 3, KEY), ValueError, r"generate: the network's output must have shape \(3, 1, 5\), got \(3, 5\)"),
    ],
)  # fmt: skip
def test_bad_input(params, call, error, says):
    with pytest.raises(error, match=says):
        call(params)
