"""From one sequence to another: the composition, the gradient through the carry, and errors on bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

RNG = np.random.default_rng(0)
SOURCE, TARGETS = RNG.integers(0, 6, (3, 4), np.int32), RNG.integers(1, 5, (3, 3), np.int32)
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]], bool)
ENCODER = fn.serial(fn.embedding(6, 3), fn.gru(4))
DECODER = fn.serial(fn.embedding(5, 3), fn.gru(4), fn.dense(5))
NET = fn.encoder_decoder(ENCODER, DECODER)
X = SOURCE, np.asarray(fn.shift_right(TARGETS, 0))
LOSS = fn.losses.softmax_cross_entropy()
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.float32, catalogue.random_params(NET, np.random.default_rng(1), X))


def test_it_composes_encoder_and_decoder(params):
    @jax.jit
    def both(params):
        _, (_, state), _ = ENCODER.forward(params[0], SOURCE, mask=MASK)
        y, _, _ = DECODER.forward(params[1], X[1], (None, state, None))
        return y, NET.apply(params, X, mask=(MASK, None))

    chex.assert_trees_all_close(*both(params), rtol=1e-6)


def test_the_gradient_flows_back_through_the_carry(params, x64):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), params)

    def composed(params):
        _, (_, state), _ = ENCODER.forward(params[0], SOURCE, mask=MASK)
        return LOSS.apply(DECODER.forward(params[1], X[1], (None, state, None))[0], TARGETS)

    masks = (MASK, None)
    (_, aux), by_hand = jax.jit(fn.value_and_grad_by_hand(NET, LOSS))(params, X, TARGETS, mask=masks)
    chex.assert_trees_all_close(by_hand, jax.jit(jax.grad(composed))(params), rtol=1e-9, atol=1e-14)
    assert np.abs(by_hand[0][1].u).max() > 1e-3, "the encoder learns"
    assert aux.carry is None


def test_the_decoder_starts_from_the_last_valid_state(params):
    apply = jax.jit(NET.apply)
    y = apply(params, X, mask=(MASK, None))
    for n, valid in enumerate(MASK[1:], 1):
        cut = apply(params, (SOURCE[n, valid], X[1][n]))
        chex.assert_trees_all_close(y[n], cut, rtol=1e-5, atol=1e-6)


def test_padding_has_no_effect():
    net = fn.encoder_decoder(fn.elman(2), fn.elman(2))
    rng = np.random.default_rng(2)
    x = tuple(rng.standard_normal((3, steps, 2)).astype(np.float32) for steps in (4, 3))
    masks = MASK, MASK[::-1, :3]
    dirty = tuple(np.where(m[..., None], part, np.float32(np.nan)) for part, m in zip(x, masks, strict=True))
    params = jax.tree.map(jnp.float32, catalogue.random_params(net, rng, x))

    @jax.jit
    def run(x):
        y, _, saved = net.forward(params, x, mask=masks)
        return y, net.backward(params, saved, jnp.ones_like(y))[:2]

    chex.assert_trees_all_equal(run(dirty), run(x))
    dx = run(dirty)[1][1]
    assert not any(np.asarray(part)[~mask].any() for part, mask in zip(dx, masks, strict=True))


def test_intermediates_and_summary_see_both_networks(params):
    inside = fn.intermediates(NET, params, X)
    assert list(inside) == [
        "0.serial/0.embedding", "0.serial/1.gru", "0.serial",
        "1.serial/0.embedding", "1.serial/1.gru", "1.serial/2.dense", "1.serial",
    ]  # fmt: skip
    chex.assert_trees_all_close(inside["1.serial"], NET.apply(params, X), rtol=1e-6)
    assert fn.summary(NET, X).params == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_intermediates_see_stacks_inside():
    net = fn.encoder_decoder(fn.stack(fn.elman(2), 2), fn.stack(fn.elman(2), 2))
    x = jnp.ones((3, 4, 2)), jnp.ones((3, 2, 2))
    inside = jax.eval_shape(lambda params: fn.intermediates(net, params, x), net.init(KEY, x))
    assert inside["0.stack/0.elman"].shape == (2, 3, 4, 2)
    assert inside["1.stack/0.elman"].shape == (2, 3, 2, 2)


def test_generate_starts_from_the_encoders_carry(params):
    _, carry, _ = ENCODER.forward(params[0], SOURCE)
    first = jnp.zeros(3, int)
    ids, _ = fn.generate(DECODER, params[1], carry, first, 3, temperature=0)
    y = NET.apply(params, (SOURCE, fn.shift_right(ids, 0)))
    assert (ids == y.argmax(-1)).all(), "each generated id is the network's own prediction"


def test_statistics_of_both_are_updated():
    half = fn.serial(toys.centred(), toys.integrator())
    net, x = fn.encoder_decoder(half, half), (jnp.ones((3, 4, 2)), jnp.ones((3, 2, 2)))
    params = net.init(KEY, x)
    updated = jax.jit(lambda: net.update_stats(params, net.forward(params, x)[2]))()
    assert all(updated[i][0].stats.mean.any() for i in range(2))


def use(net):
    x = jnp.ones((3, 4, 2)), jnp.ones((3, 3, 2))
    return jax.eval_shape(lambda: net.apply(net.init(KEY, x), x))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p: fn.encoder_decoder(fn.lstm, DECODER), TypeError, "encoder_decoder: layer 0 must be a Layer, got lstm; call it"),
        (lambda p: NET.apply(p, SOURCE), TypeError, r"encoder_decoder\(…\): x must be a pair, for the source and the decoder's inputs, got ndarray"),
        (lambda p: NET.init(KEY, (SOURCE,)), TypeError, "x must be a pair.*got a tuple of 1"),
        (lambda p: NET.apply(p, X, mask=MASK), TypeError, "mask must be a pair.*got ndarray"),
        (lambda p: NET.apply(p, X, mask=(MASK, MASK)), ValueError, r"mask must have shape \(3, 3\), got \(3, 4\)"),
        (lambda p: NET.forward(p, X, jnp.ones((3, 4))), TypeError, r"encoder_decoder\(…\): has no carry"),
        (lambda p: fn.encoder_decoder(fn.bidirectional(fn.elman(2)), fn.elman(2)), ValueError, r"the encoder must return a carry, but bidirectional\(…\) has none; use recurrent layers that run in one direction"),
        (lambda p: fn.encoder_decoder(fn.elman(2), fn.elman(3)), ValueError, r"the encoder's carry must hold arrays of the shapes \(3, 3\), got \(3, 2\)"),
        (lambda p: fn.encoder_decoder(fn.elman(2), fn.lstm(2)), ValueError, r"the encoder's carry must hold arrays of the shapes \(3, 2\), \(3, 2\), got \(3, 2\); the recurrent layers"),
        (lambda p: fn.encoder_decoder(fn.elman(2), fn.dense(2)), ValueError, "the encoder's carry must hold arrays of the shapes none"),
    ],
)  # fmt: skip
def test_bad_input_raises(params, call, error, says):
    with pytest.raises(error, match=says):
        use(call(params))
