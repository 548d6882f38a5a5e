"""Truncated backpropagation through time: against autodiff with a constant carry between windows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

B, T, S = 3, 7, 3
RNG = np.random.default_rng(0)
X, TARGET = RNG.standard_normal((B, T, 2)), RNG.standard_normal((B, T, 2))
MASK = RNG.random((B, T)) < 0.7
LOSS_MASK = RNG.random((B, T)) < 0.7
RESET = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
NET, LOSS = fn.serial(fn.elman(3), fn.dense(2)), fn.losses.mse()
IDS, LABELS = RNG.integers(0, 5, (B, T)), RNG.integers(0, 5, (B, T))
TEXT, CLASSES = fn.serial(fn.embedding(5, 2), fn.elman(3), fn.dense(5)), fn.losses.softmax_cross_entropy()
KEY = jax.random.key(0)
PARAMS = catalogue.random_params(NET, np.random.default_rng(1), X)


def with_autodiff(params, x, target, steps, reset=None, mask=None, loss_mask=None, cut=jax.lax.stop_gradient):
    """The loss of the whole stream, in windows; no gradient passes between them."""
    carry, ys = fn.zero_carry(NET, params, x), []
    for w, start in enumerate(range(0, x.shape[1], steps)):
        carry = cut(carry)
        if reset is not None:
            carry = jax.tree.map(lambda leaf, w=w: jnp.where(reset[:, w, None], 0, leaf), carry)
        at = slice(start, start + steps)
        y, carry, _ = NET.forward(params, x[:, at], carry, mask=None if mask is None else mask[:, at])
        ys.append(y)
    return LOSS.apply(jnp.concatenate(ys, 1), target, loss_mask), carry


@pytest.mark.parametrize(
    ("net", "loss", "x", "target", "steps"),
    [
        (NET, LOSS, X, TARGET, T),
        (NET, fn.losses.half_squared_error(), X, TARGET, 10),
        (TEXT, CLASSES, IDS, LABELS, T),
    ],
    ids=["a mean", "a sum", "ids"],
)
def test_one_window_is_the_full_gradient(net, loss, x, target, steps, x64):
    params = catalogue.random_params(net, np.random.default_rng(1), x)
    masks = {"mask": MASK, "loss_mask": LOSS_MASK}
    (value, full_aux), full = jax.jit(fn.value_and_grad_by_hand(net, loss))(params, x, target, **masks)
    whole = jax.jit(fn.truncated_bptt(net, loss, steps).whole)
    (truncated, aux), grads = whole(params, x, target, **masks)
    chex.assert_trees_all_close((truncated, grads), (value, full), rtol=1e-10, atol=1e-14)
    chex.assert_trees_all_close((aux.y, aux.carry), (full_aux.y, full_aux.carry), rtol=1e-10)


@pytest.mark.parametrize(
    "options",
    [{}, {"reset": RESET, "mask": MASK, "loss_mask": LOSS_MASK}],
    ids=["plain", "reset and masks"],
)
def test_the_truncated_gradient_treats_the_carry_as_a_constant(options, x64):
    (expected, carry), plain = jax.jit(jax.value_and_grad(with_autodiff, has_aux=True), static_argnums=3)(
        PARAMS, X, TARGET, S, **options
    )
    (value, aux), grads = jax.jit(fn.truncated_bptt(NET, LOSS, S).whole)(PARAMS, X, TARGET, **options)
    chex.assert_trees_all_close((value, grads), (expected, plain), rtol=1e-10, atol=1e-14)
    chex.assert_trees_all_close(aux.carry, carry, rtol=1e-10)
    assert aux.y.shape == TARGET.shape


def test_the_truncated_gradient_differs_from_the_full_one(x64):
    _, grads = jax.jit(fn.truncated_bptt(NET, LOSS, S).whole)(PARAMS, X, TARGET)
    _, full = jax.jit(fn.value_and_grad_by_hand(NET, LOSS))(PARAMS, X, TARGET)
    assert np.abs(grads[0].u - full[0].u).max() > 1e-3
    chex.assert_trees_all_close(grads[1], full[1], rtol=1e-10)  # the readout has the exact gradient


def test_the_whole_is_the_weighted_mean_of_the_windows(x64):
    bptt = fn.truncated_bptt(NET, LOSS, S)
    options = {"mask": MASK, "loss_mask": LOSS_MASK, "reset": RESET}
    windows = bptt.windows(X, TARGET, **options)
    assert windows.x.shape == (3, B, S, 2)
    assert not windows.mask[-1, :, 1:].any(), "the last window has one step"
    step = jax.jit(bptt.value_and_grad)
    carry, total, counted = fn.zero_carry(NET, PARAMS, X), None, 0
    for i in range(3):
        window = jax.tree.map(lambda leaf, i=i: leaf[i], windows)
        (value, aux), grads = step(PARAMS, window, carry)
        carry, n = aux.carry, int(window.loss_mask.sum())
        part = jax.tree.map(lambda leaf, n=n: n * leaf, (value, grads))
        total = part if total is None else jax.tree.map(jnp.add, total, part)
        counted += n
    (value, aux), grads = jax.jit(bptt.whole)(PARAMS, X, TARGET, **options)
    mean = jax.tree.map(lambda leaf: leaf / counted, total)
    chex.assert_trees_all_close(mean, (value, grads), rtol=1e-10, atol=1e-14)
    chex.assert_trees_all_close(carry, aux.carry, rtol=1e-10)


def test_a_loop_over_windows_compiles_once_and_equals_the_scan():
    bptt = fn.truncated_bptt(TEXT, CLASSES, S)
    params = jax.tree.map(jnp.float32, catalogue.random_params(TEXT, np.random.default_rng(1), IDS))
    windows = bptt.windows(IDS, LABELS)
    traced = []

    def step(state, window):
        traced.append(1)
        params, carry = state
        (value, aux), grads = bptt.value_and_grad(params, window, carry)
        return (jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), aux.carry), value

    start = state = params, fn.zero_carry(TEXT, params, IDS)
    jitted, values = jax.jit(step), []
    for i in range(len(windows.x)):
        state, value = jitted(state, jax.tree.map(lambda leaf, i=i: leaf[i], windows))
        values.append(value)
    assert len(traced) == 1
    chex.assert_trees_all_close(
        jax.lax.scan(step, start, windows), (state, jnp.stack(values)), rtol=1e-4, atol=1e-6
    )


def test_full_windows_need_no_masks():
    windows = fn.truncated_bptt(NET, LOSS, S).windows(X[:, :6], TARGET[:, :6])
    assert (windows.mask, windows.loss_mask, windows.reset) == (None, None, None)
    np.testing.assert_allclose(windows.x[1], X[:, 3:6], rtol=1e-6)
    alone = fn.truncated_bptt(NET, LOSS, S).windows(X[0], TARGET[0])
    assert (alone.x.shape, alone.mask.shape) == ((3, S, 2), (3, S)), "without a batch axis"


def test_a_reset_row_starts_from_a_zero_carry():
    net = fn.stack(toys.integrator(), 2)
    params = net.init(KEY, X)
    bptt = fn.truncated_bptt(net, LOSS, S)
    windows = bptt.windows(X[:, :S], TARGET[:, :S], reset=np.array([[True], [False], [True]]))
    window = jax.tree.map(lambda leaf: leaf[0], windows)
    carry = jax.tree.map(lambda leaf: leaf + 1, fn.zero_carry(net, params, window.x))
    (_, aux), _ = jax.jit(bptt.value_and_grad)(params, window, carry)
    forward = jax.jit(lambda carry: net.forward(params, window.x, carry)[0])
    from_zero, continued = forward(fn.zero_carry(net, params, window.x)), forward(carry)
    chex.assert_trees_all_close(aux.y[::2], from_zero[::2], rtol=1e-6)
    chex.assert_trees_all_close(aux.y[1], continued[1], rtol=1e-6)


def test_each_window_draws_its_own_dropout():
    net = fn.serial(fn.dropout(0.5), fn.elman(2))
    params = net.init(KEY, X)
    whole = jax.jit(fn.truncated_bptt(net, LOSS, 1).whole, static_argnames="train")
    (_, aux), _ = whole(params, X, TARGET, key=KEY, train=True)
    key = jax.random.fold_in(jax.random.fold_in(KEY, 2), 0)
    kept = jax.random.bernoulli(key, 0.5, (B, 1, 2))
    np.testing.assert_array_equal(aux.saved.children[0][2], kept)


BPTT, AS_FLOAT32 = fn.truncated_bptt(NET, LOSS, S), jax.tree.map(jnp.float32, PARAMS)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fn.truncated_bptt(NET, LOSS, 0), ValueError, "truncated_bptt: steps must be a whole number of at least 1, got 0"),
        (lambda: BPTT.windows(X, TARGET[:, :5]), ValueError, r"target's leading axes must have shape \(3, 7\), got \(3, 5\)"),
        (lambda: BPTT.windows(X, TARGET, mask=MASK.astype(int)), TypeError, "truncated_bptt.*: mask must hold bools"),
        (lambda: BPTT.windows(X, TARGET, loss_mask=MASK[:, :2]), ValueError, r"loss_mask must have shape \(3, 7\), got \(3, 2\)"),
        (lambda: BPTT.windows(X, TARGET, reset=MASK), ValueError, r"reset must have shape \(3, 3\), got \(3, 7\); one bool for each of the 3 windows"),
        (lambda: BPTT.windows(X, TARGET, reset=RESET.astype(float)), TypeError, "reset must hold bools"),
        (lambda: BPTT.windows(X[0, 0], TARGET), ValueError, "x must have at least 2 axes"),
        (lambda: BPTT.whole(AS_FLOAT32, X, TARGET, (jnp.ones((2, 3)), None), reset=RESET), ValueError, r"the carry's batch axes must have shape \(3,\), got \(2,\)"),
        (lambda: fn.truncated_bptt(fn.serial(NET, fn.last()), LOSS, S).whole((AS_FLOAT32, ()), X, TARGET), ValueError, r"the network's output must have shape \(3, 3, 2\), got \(3, 2\); one row for each step"),
    ],
)  # fmt: skip
def test_wrong_inputs_raise(call, error, says):
    with pytest.raises(error, match=says):
        call()
