"""Training: a step against plain optax, epochs against a plain loop, and everything that ends a training."""

import os
import signal
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

import fnnets as fn
from fnnets.train.state import draw_key, order_key

KEY = jax.random.key(7)
MSE, RNG = fn.losses.mse(), np.random.default_rng(0)
X = RNG.standard_normal((11, 3))
T = np.sin(X[:, :2]) + 0.1 * RNG.standard_normal((11, 2))
DENSE = fn.serial(fn.dense(4), fn.tanh(), fn.dense(2))
FULL = fn.serial(fn.dense(4, use_bias=False), fn.batch_norm(), fn.dropout(0.3), fn.tanh(), fn.dense(2))
ADAM = fn.updaters.adam(0.05)
close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)


def short(net=DENSE, loss=MSE, updater=ADAM, examples=(X, T), **options):
    """A fit of a few epochs."""
    start = {} if "state" in options else {"key": KEY}
    return fn.train.fit(net, loss, updater, examples, **{"epochs": 3, "batch_size": 4, **start, **options})


# ---------------------------------------------------------------- one step


@pytest.mark.parametrize("gradient", ["hand", "autodiff"])
def test_a_step_is_plain_optax(gradient, x64):
    """With the gradient of the plain equations, optax's own chain, and the statistics of the batch."""
    penalty = fn.l2(0.1)
    step = fn.train.make_step(FULL, MSE, optax.adam(0.05), gradient=gradient, penalty=penalty, clip=0.02)
    state = fn.train.start(FULL, optax.adam(0.05), X, KEY)
    params = jax.tree.map(jnp.copy, state.params)
    chain = optax.chain(optax.clip_by_global_norm(0.02), optax.adam(0.05))
    memory = chain.init(params)

    @jax.jit
    def plain(params, memory, key):
        def loss(params):
            y = FULL.apply(params, X, key=key, train=True)
            return ((y - T) ** 2).mean() + 0.05 * sum((params[i].w ** 2).sum() for i in (0, 4))

        value, grads = jax.value_and_grad(loss)(params)
        _, _, saved = FULL.forward(params, X, key=key, train=True)
        updates, memory = chain.update(grads, memory, params)
        return FULL.update_stats(optax.apply_updates(params, updates), saved), memory, value

    for i in range(3):
        params, memory, expected = plain(params, memory, draw_key(state))
        state, value = step(state, fn.data.Examples(X, T))
        close((state.params, value), (params, expected))
        assert int(state.step) == i + 1
    assert float(state.params[1].stats.weight) == pytest.approx(1 - 0.9**3)


def test_the_updater_never_sees_moving_statistics(x64):
    decay = optax.adamw(0.1, weight_decay=0.5)
    state = fn.train.start(FULL, decay, X, KEY)
    assert all(leaf.shape != () for leaf in jax.tree.leaves(state.memory[0].mu)), "their weight is a scalar"
    _, _, saved = FULL.forward(state.params, X, key=draw_key(state), train=True)
    stats = FULL.update_stats(state.params, saved)[1].stats
    state, _ = fn.train.make_step(FULL, MSE, decay)(state, fn.data.Examples(X, T))
    close(state.params[1].stats, stats)


def test_a_step_donates_the_buffers_of_its_state():
    step, state = fn.train.make_step(DENSE, MSE, ADAM), fn.train.start(DENSE, ADAM, X, KEY)
    w = state.params[0].w
    step(state, fn.data.Examples(jnp.asarray(X, jnp.float32), jnp.asarray(T, jnp.float32)))
    assert w.is_deleted()


def test_updaters_get_the_loss(x64):
    net = fn.serial(fn.dense(2, use_bias=False))
    newton = fn.updaters.newton(damping=0.0, adapt_damping=False, line_search=False)
    fitted = short(net, updater=newton, epochs=1, batch_size=11, penalty=fn.l2(0.3))
    w = np.linalg.solve(X.T @ X * 2 / 22 + 0.3 * np.eye(3), X.T @ T * 2 / 22)
    np.testing.assert_allclose(fitted.params[0].w, w, rtol=1e-8)


# ---------------------------------------------------------------- whole epochs


def plain_loop(net, loss, examples, epochs, **plan):
    """A loop of `make_step`; the last batch of an epoch is smaller."""
    n = len(examples.target)
    state, values, counts = fn.train.start(net, ADAM, examples.x, KEY), [], []
    step = fn.train.make_step(net, loss, ADAM)
    ordered = jax.jit(lambda key: fn.data.batches(key, n, 4, **{"remainder": "keep", **plan}))
    for _ in range(epochs):
        order = ordered(order_key(state))
        for rows in map(np.asarray, [*order.rows, *([] if order.rest is None else [order.rest])]):
            batch = jax.tree.map(lambda a, rows=rows: a[rows], examples)
            state, value = step(state, batch)
            values.append(value)
            counts.append(len(rows) if batch.loss_mask is None else batch.loss_mask.sum())
        state = state._replace(epoch=state.epoch + 1)
    values, counts = np.reshape(values, (epochs, -1)), np.reshape(counts, (epochs, -1))
    return state.params, values, np.average(values, 1, counts)


SMALL = fn.serial(fn.dense(3, use_bias=False), fn.batch_norm(), fn.tanh(), fn.dense(2))


@pytest.mark.parametrize(
    ("net", "gradient", "plan"),
    [
        (SMALL, "hand", {"remainder": "pad"}),  # gives the same as the smaller batch
        (FULL, "autodiff", {"remainder": "keep"}),
        (FULL, "hand", {"remainder": "drop", "replace": True}),
    ],
    ids=["pad", "keep, autodiff", "drop, replace"],
)
def test_fit_is_the_plain_loop(net, gradient, plan, x64):
    found = short(net, gradient=gradient, **plan)
    plan = {} if plan["remainder"] == "pad" else plan
    params, values, losses = plain_loop(net, MSE, fn.data.Examples(X, T), 3, **plan)
    close(found.params, params)
    np.testing.assert_allclose(found.history.steps, values, rtol=1e-10)
    np.testing.assert_allclose(found.history.loss, losses, rtol=1e-10)
    assert found.stopped == "epochs"


def test_padding_is_masked_beside_the_masks_of_sequences(x64):
    rng = np.random.default_rng(1)
    x, target, mask = rng.integers(0, 5, (6, 3)), rng.integers(0, 3, (6, 3)), rng.random((6, 3)) < 0.7
    net = fn.serial(fn.embedding(5, 3), toys.integrator(), fn.batch_norm(), fn.dense(3))
    loss, examples = fn.losses.softmax_cross_entropy(), fn.data.Examples(x, target, mask, mask)
    found = short(net, loss, examples=examples, epochs=2)
    params, _, losses = plain_loop(net, loss, examples, 2)
    close(found.params, params)
    np.testing.assert_allclose(found.history.loss, losses, rtol=1e-10)


def test_a_continued_training_is_the_unbroken_one():
    whole, half = short(FULL), short(FULL, epochs=1)
    rest = short(FULL, epochs=2, state=half.state)
    chex.assert_trees_all_equal(rest.params, whole.params)
    np.testing.assert_array_equal(
        np.concatenate([half.history.steps, rest.history.steps]), whole.history.steps
    )
    assert not half.state.params[0].w.is_deleted()
    assert (int(rest.state.epoch), int(rest.state.step)) == (3, 9)


def test_one_compilation():
    traces = []

    def counted(y, target, mask=None):
        traces.append(1)
        return MSE.forward(y, target, mask)

    loss = MSE._replace(forward=counted)
    short(DENSE, loss, epochs=1)
    once = len(traces)
    traces.clear()
    loss = loss._replace(apply=lambda *args: MSE.apply(*args))  # another loss, which compiles again
    fitted = short(DENSE, loss, epochs=6)
    assert len(traces) == once == 1
    short(DENSE, loss, state=fitted.state)
    assert len(traces) == 1, "a second fit with the same settings compiles nothing"


def test_evaluate_in_batches(x64):
    params = DENSE.init(KEY, X)
    metrics = {"error": lambda y, t: jnp.abs(y - t).sum(-1)}
    whole = fn.train.evaluate(DENSE, MSE, params, (X, T), metrics=metrics)
    y = DENSE.apply(params, X)
    np.testing.assert_allclose(
        [whole["loss"], whole["error"]], [((y - T) ** 2).mean(), abs(y - T).sum(-1).mean()]
    )
    close(fn.train.evaluate(DENSE, MSE, params, (X, T), metrics=metrics, batch_size=4), whole)
    loss_mask = np.arange(11) % 3 > 0
    masked = fn.train.evaluate(DENSE, MSE, params, fn.data.Examples(X, T, None, loss_mask), metrics=metrics)
    close(masked, fn.train.evaluate(DENSE, MSE, params, (X[loss_mask], T[loss_mask]), metrics=metrics))


def test_evaluate_weights_batches_by_what_counts(x64):
    """With ignored labels, class weights and a batch in which nothing counts. A second call compiles nothing."""
    labels, counts = np.array([0, 1, 1, 0, 1, 1, 1, -1, -1, -1, 0]), np.arange(11) > 3
    loss = fn.losses.softmax_cross_entropy(weights=(1.0, 3.0), ignore_label=-1)
    params, traces = DENSE.init(KEY, X), []

    def right(y, target):
        traces.append(1)
        return fn.train.accuracy(y, target)

    examples = fn.data.Examples(X, labels, None, counts)
    settings = {"metrics": {"right": right}, "batch_size": 4}
    found = fn.train.evaluate(DENSE, loss, params, examples, **settings)
    once = len(traces)
    fn.train.evaluate(DENSE, loss, params, examples, **settings)
    assert len(traces) == once
    y = np.asarray(DENSE.apply(params, X))
    logs = y - np.log(np.exp(y).sum(-1, keepdims=True))
    learned = np.flatnonzero(counts & (labels >= 0))
    weights = np.array([1.0, 3.0])[labels[learned]]
    loss_of_all = -(weights * logs[learned, labels[learned]]).sum() / weights.sum()
    np.testing.assert_allclose(found["loss"], loss_of_all)
    np.testing.assert_allclose(found["right"], (y.argmax(-1) == labels)[counts].mean())


# ---------------------------------------------------------------- what ends a training


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, np.nan]), min_size=8, max_size=8),
    st.sampled_from([(1, 0.0, False), (3, 0.5, True)]),
)
def test_early_stopping_is_the_plain_rule(values, rule):
    patience, least, larger = rule
    best, at, end = (-np.inf if larger else np.inf), 0, len(values)
    for i, value in enumerate(values, 1):
        if value > best + least if larger else value < best - least:
            best, at = value, i
        if i - at >= patience:
            end = i
            break
    result = stopped(*rule, jnp.asarray(values))
    assert (float(result.value), int(result.epoch), int(result.seen)) == (best, at, end)
    assert bool(result.stop) == (end - at >= patience)
    assert int(result.params) == at


@partial(jax.jit, static_argnums=(0, 1, 2))
def stopped(patience, least, larger, values):
    early = fn.train.early_stopping(patience, least=least, larger_is_better=larger)
    seen = jnp.arange(1, len(values) + 1)
    step = lambda best, now: (early.update(best, *now), None)
    return jax.lax.scan(step, early.init(jnp.zeros((), seen.dtype)), (seen, values))[0]


def test_fit_stops_early_and_keeps_the_best():
    held_out = (-X, T)  # its loss grows while the network learns
    fitted = short(epochs=30, validation=held_out, early_stopping=fn.train.early_stopping(4))
    losses = fitted.history.validation["loss"]
    best = int(losses.argmin()) + 1
    assert fitted.stopped == "early"
    assert len(losses) == best + 4 < 30
    chex.assert_trees_all_close(fitted.params, short(epochs=best).params, rtol=1e-5)


def failing(at: float) -> fn.Layer:
    """The identity, with NaN where x is above `at`."""

    def forward(params, x):
        return x + jnp.where(x > at, jnp.nan, 0), None

    return fn.layer(
        lambda key, x: (), lambda params, x: forward(params, x)[0], forward, lambda p, s, dy: (p, dy)
    )


def test_nan_stops_training_and_names_the_step_and_the_layer():
    x = np.where(np.arange(11)[:, None] == 9, 1e4, X)  # one example is too large
    net = fn.serial(fn.dense(2), fn.serial(failing(100.0)))
    with pytest.raises(fn.train.NonFiniteError, match=r"forward: y.* of 1\.serial/0\.layer") as caught:
        short(net, examples=(x, T), updater=fn.updaters.sgd(1e-9))
    order = fn.data.batches(order_key(caught.value.fitted.state._replace(epoch=0)), 11, 4).rows
    step = int(np.argwhere(np.asarray(order) == 9)[0, 0])
    assert (caught.value.step, caught.value.epoch) == (step, 0)
    assert int(caught.value.fitted.state.step) == step, "the state is that before the step"
    assert caught.value.fitted.stopped == "not finite"
    assert np.isfinite(caught.value.fitted.params[0].w).all()


@pytest.mark.parametrize(
    ("x", "updater", "where"),
    [
        (np.where(X[3, 1] == X, np.nan, X), ADAM, r"x\[\d+, 1\] is nan before"),
        (X, fn.updaters.sgd(1e30), "loss: per_example"),
        (X, optax.scale(np.nan), r"params\[0\].w\[0, 0\] is nan before"),
    ],
    ids=["input", "loss", "params"],
)  # fmt: skip
def test_nan_from_the_input_the_loss_or_the_updater_is_named(x, updater, where):
    with pytest.raises(FloatingPointError, match=where):
        short(fn.serial(fn.dense(2)), updater=updater, examples=(x, T), batch_size=11)


def test_a_state_of_another_updater_is_refused():
    state = fn.train.start(fn.dense(1), fn.updaters.sgd(0.1), X, KEY)
    with pytest.raises(ValueError, match=r"(?s)must come from this updater.*memory.*missing there"):
        short(fn.dense(1), updater=ADAM, key=None, state=state)


def test_ctrl_c_stops_after_the_current_epoch():
    """The signal comes within an epoch, and only once: a second one would interrupt at once."""
    signals = iter([signal.SIGINT])

    def send():
        for number in signals:
            os.kill(os.getpid(), number)

    def metric(y, target):
        jax.debug.callback(send)
        return y[:, 0]

    outer = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers ignore it
    before = signal.getsignal(signal.SIGINT)
    try:
        fitted = short(epochs=500, validation=(X, T), metrics={"signal": metric})
        jax.effects_barrier()
    finally:
        after = signal.signal(signal.SIGINT, outer)
    assert after is before
    assert fitted.stopped == "interrupted"
    epochs = len(fitted.history.loss)
    assert int(fitted.state.epoch) == epochs < 500
    chex.assert_trees_all_close(fitted.params, short(epochs=epochs, validation=(X, T)).params, rtol=1e-5)


class Terminal:
    """A stderr that says it is a terminal."""

    def __init__(self):
        self.said = ""

    def isatty(self):
        return True

    def write(self, text):
        self.said += text

    def flush(self):
        pass


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_the_progress_bar_needs_a_terminal(monkeypatch, capfd, has_tqdm):
    if not has_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    short()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    short(progress=False)
    assert terminal.said == ""
    short()
    assert ("/3" in terminal.said) == has_tqdm


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: short(batch_size=12), "size must be at most the number of rows, 11, got 12"),
        (lambda: short(epochs=0), "epochs must be a whole number of at least 1"),
        (lambda: short(key=None), "either a key, to start with, or a state"),
        (lambda: short(gradient="numeric"), "gradient must be one of 'hand', 'autodiff'"),
        (lambda: short(examples=X), "examples must be fn.data.Examples"),
        (lambda: short(examples=(X, T[:5])), r"as first axis, got shapes \(11, 3\), \(5, 2\)"),
        (lambda: short(validation=(X, 1.0)), r"all arrays of validation .* got shapes \(11, 3\), \(\)"),
        (lambda: short(early_stopping=fn.train.early_stopping(3)), "validation=None"),
        (
            lambda: short(validation=(X, T), early_stopping=fn.train.early_stopping(3, watch="accuracy")),
            "early_stopping.watch must be one of 'loss', got 'accuracy'",
        ),
        (lambda: fn.train.early_stopping(0), "patience must be a whole number of at least 1"),
        (lambda: fn.train.early_stopping(1, least=-1.0), "least must be a number of at least 0"),
        (lambda: fn.train.start(DENSE, ADAM, X, None), "key"),
        (lambda: fn.train.make_step(fn.dense, MSE, ADAM), "layer 0 must be a Layer"),
        (lambda: fn.train.accuracy(jnp.ones((3, 2)), jnp.ones(2, int)), r"target must have shape \(3,\)"),
        (lambda: short(validation=(X, T), metrics={"m": lambda y, t: y}), r"its result must have shape \(11,\)"),
        (lambda: short(validation=(X, T), metrics={"m": lambda y, t: 1.0}), r"its result must have shape \(11,\)"),
        (lambda: short(validation=(X, T), metrics={"loss": lambda y, t: y[:, 0]}), 'other names than "loss"'),
        (lambda: short(validation=(X, T), metrics=fn.train.accuracy), "metrics must be functions by name"),
        (lambda: short(validation=(X, T), early_stopping=3), "early_stopping must be made by .* got int"),
        (lambda: short(state=DENSE.init(KEY, X)), "state must be a State, .* got tuple"),
        (lambda: short(loss=fn.losses.mse), "fit: loss must be a loss, such as .* got mse"),
        (lambda: short(updater=fn.updaters.adam), "fit: updater must be an updater, such as .* got adam"),
        (lambda: short(penalty=0.1), "fit: penalty must be a penalty, such as .* got 0.1"),
        (lambda: short(clip=-1.0), "fit: clip must be a number above 0, got -1.0"),
        (lambda: fn.train.accuracy(jnp.ones((3, 1)), jnp.ones((3, 1))), "y must have two classes or more"),
    ],
)  # fmt: skip
def test_errors_name_the_mistake(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
