"""Recurrent layers: masks, chunks, memory, recurrent dropout, conventions, and bad input."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue
from fnnets.catalogue.case import random_like, random_params
from fnnets.rnn.run_options import Options, RunOptions

NETS = {
    "elman": fn.elman(3),
    "jordan": fn.jordan(2, 3, output_activation=fn.tanh()),
    "lstm": fn.lstm(3, peephole=True),
    "coupled": fn.lstm(3, coupled=True),
    "gru": fn.gru(3),
    "gru before": fn.gru(3, reset="before", update="new"),
    "deep": fn.serial(fn.lstm(2), fn.gru(3)),
}
NETS |= {  # and every other recurrent layer of the catalogue, with its defaults
    case.name: case.layer
    for case in catalogue.recurrent_cases()
    if case.name == case.layer.info.name and case.name not in NETS
}
nets = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())


@pytest.fixture(autouse=True)
def _float64(x64):
    return x64


def drawn(net, *shape, seed=0):
    """Random params, input and carry, and random gradients of the output and of the last carry."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    params = jax.tree.map(jnp.asarray, random_params(net, rng, x))
    carry = random_like(fn.zero_carry(net, params, x), rng)
    y = jax.eval_shape(net.apply, params, x)
    return params, x, carry, rng.standard_normal(y.shape), random_like(carry, rng)


@functools.partial(jax.jit, static_argnums=0)
def both_ways(net, params, x, carry, dy, dcarry, mask=None):
    """(y, the last carry) and (dparams, dx, the gradient of the carry)."""
    y, last, saved = net.forward(params, x, carry, mask=mask)
    return (y, last), net.backward(params, saved, dy, dcarry)


def close(a, b, tolerance=1e-12):
    chex.assert_trees_all_close(a, b, rtol=tolerance, atol=tolerance)


@nets
def test_masked_steps_equal_a_shorter_sequence(net):
    params, x, carry, dy, dcarry = drawn(net, 3, 6, 2)
    for mask, kept in (
        ([1, 1, 1, 1, 0, 0], [0, 1, 2, 3]),
        ([0, 0, 1, 1, 1, 1], [2, 3, 4, 5]),
        ([1, 0, 0, 1, 1, 0], [0, 3, 4]),
    ):
        mask = jnp.broadcast_to(jnp.array(mask, bool), (3, 6))
        (y, last), (dparams, dx, dfirst) = both_ways(net, params, x, carry, dy, dcarry, mask)
        short, gradients = both_ways(net, params, x[:, kept], carry, dy[:, kept], dcarry)
        close((y[:, kept], last), short)
        close((dparams, dx[:, kept], dfirst), gradients)
        hidden = [t for t in range(6) if t not in kept]
        assert not y[:, hidden].any()
        assert not dx[:, hidden].any()


@nets
def test_a_row_without_valid_steps_keeps_its_carry(net):
    params, x, carry, dy, dcarry = drawn(net, 2, 4, 2)
    mask = jnp.array([[True] * 4, [False] * 4])
    (y, last), (_, dx, dfirst) = both_ways(net, params, x, carry, dy, dcarry, mask)
    second = functools.partial(jax.tree.map, lambda leaf: leaf[1])
    assert not y[1].any()
    assert not dx[1].any()
    close(second(last), second(carry))
    close(second(dfirst), second(dcarry))


@nets
def test_nan_in_the_padding_has_no_effect(net):
    params, x, carry, dy, dcarry = drawn(net, 2, 4, 2)
    mask = jnp.array([[1, 1, 0, 0], [0, 1, 0, 1]], bool)
    with_nan = jnp.where(mask[..., None], x, jnp.nan)
    dy_with_nan = jnp.where(mask[..., None], dy, jnp.nan)
    result = both_ways(net, params, with_nan, carry, dy_with_nan, dcarry, mask)
    close(result, both_ways(net, params, x, carry, dy, dcarry, mask))
    pullback = jax.jit(lambda x: jax.vjp(lambda p, x: net.apply(p, x, mask=mask), params, x)[1](dy))
    close(pullback(with_nan), pullback(x))


@pytest.mark.parametrize("net", [NETS["jordan"], NETS["deep"]], ids=["jordan", "deep"])
def test_chunks_with_carries_equal_the_whole_sequence(net):
    params, x, carry, dy, dcarry = drawn(net, 2, 6, 2)
    (y, last), (dparams, dx, dfirst) = both_ways(net, params, x, carry, dy, dcarry)
    forward, backward = jax.jit(net.forward), jax.jit(net.backward)
    first, middle, savings = carry, [], []
    for part in (x[:, :2], x[:, 2:4], x[:, 4:]):
        out, first, saved = forward(params, part, first)
        middle.append(out)
        savings.append(saved)
    close((jnp.concatenate(middle, 1), first), (y, last))
    total, dxs = jax.tree.map(jnp.zeros_like, params), []
    for saved, part in zip(reversed(savings), (dy[:, 4:], dy[:, 2:4], dy[:, :2]), strict=True):
        grads, dpart, dcarry = backward(params, saved, part, dcarry)
        total, dxs = jax.tree.map(jnp.add, total, grads), [dpart, *dxs]
    close((total, jnp.concatenate(dxs, 1), dcarry), (dparams, dx, dfirst))


@pytest.mark.parametrize(("make", "memory"), [(fn.lstm, "sqrt"), (fn.lstm, 100), (fn.gru, 3), (fn.elman, 1)])
def test_memory_does_not_change_the_gradients(make, memory):
    given = drawn(make(3), 2, 7, 2)
    mask = jnp.array([[1, 1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 1, 1]], bool)
    for hidden in (None, mask):
        close(both_ways(make(3, memory=memory), *given, hidden), both_ways(make(3), *given, hidden))


def test_unroll_and_time_major_do_not_change_the_results():
    params, x, carry, dy, dcarry = drawn(fn.gru(3), 2, 5, 2)
    (y, last), (dparams, dx, dfirst) = both_ways(fn.gru(3, unroll=2), params, x, carry, dy, dcarry)
    swap = functools.partial(jnp.swapaxes, axis1=0, axis2=1)
    (ty, tlast), (tparams, tdx, tfirst) = both_ways(
        fn.gru(3, time_major=True), params, swap(x), carry, swap(dy), dcarry
    )
    close((swap(ty), tlast, tparams, swap(tdx), tfirst), (y, last, dparams, dx, dfirst))


def test_memory_sqrt_needs_less_than_half_the_memory():
    def temporary(memory, steps):
        net = fn.lstm(16, memory=memory)
        x = jax.ShapeDtypeStruct((4, steps, 16), np.float32)
        params = jax.eval_shape(net.init, jax.random.key(0), x)

        def gradient(params, x):
            y, _, saved = net.forward(params, x)
            return net.backward(params, saved, y)[0]

        return jax.jit(gradient).lower(params, x).compile().memory_analysis().temp_size_in_bytes

    assert temporary("sqrt", 1024) < temporary("all", 1024) / 2


def test_variational_dropout_drops_the_same_units_at_every_step():
    # With u = 1 and x_t = 0 for t > 1, h_1 = x_1 and h_t is h_{t−1} after dropout.
    def states(variational):
        net = fn.elman(
            200, fn.identity(), use_bias=False, recurrent_dropout=0.5, variational=variational,
            recurrent_init=lambda key, shape, dtype: jnp.eye(shape[0], dtype=dtype),
            kernel_init=jax.nn.initializers.ones,
        )  # fmt: skip
        x = jnp.zeros((1, 3, 1)).at[:, 0].set(1.0)
        params = net.init(jax.random.key(0), x)
        return net.apply(params, x, key=jax.random.key(1), train=True)[0], net.apply(params, x)[0]

    (_, second, third), plain = states(True)
    assert set(np.unique(second)) == {0.0, 2.0}
    close(third, 2 * second)  # the same units are kept, and scaled again
    close(plain, jnp.ones((3, 200)))
    (_, second, third), _ = states(False)
    assert set(np.unique(third)) == {0.0, 4.0}
    assert (second.astype(bool) != third.astype(bool)).any()
    assert 0.4 < (second > 0).mean() < 0.6


def test_forget_bias_is_only_in_the_forget_block():
    b = fn.gates(fn.lstm(2, forget_bias=3.0).init(jax.random.key(0), jnp.ones((1, 2))))
    assert {name: float(b[name].sum()) for name in ("b_i", "b_f", "b_g", "b_o")} == {
        "b_i": 0.0, "b_f": 6.0, "b_g": 0.0, "b_o": 0.0,
    }  # fmt: skip


def test_each_block_of_the_recurrent_kernel_starts_orthogonal():
    for name, block in fn.gates(fn.gru(5).init(jax.random.key(0), jnp.ones((1, 2)))).items():
        if name.startswith("U"):
            close(block.T @ block, jnp.eye(5), 1e-6)


def test_gates_names_peepholes_and_keeps_other_fields():
    x = jnp.ones((1, 2))
    named = fn.gates(fn.lstm(3, peephole=True, coupled=True).init(jax.random.key(0), x))
    assert [name for name in named if name.startswith("p")] == ["p_i", "p_o"]
    assert "b_n" in fn.gates(fn.gru(3).init(jax.random.key(0), x))
    with pytest.raises(TypeError, match="gates: params must name their blocks"):
        fn.gates(fn.dense(3).init(jax.random.key(0), x))


def test_a_carry_given_as_a_tuple_gets_its_gradient_as_a_tuple():
    params, x, carry, dy, _ = drawn(fn.lstm(3), 2, 4, 2)
    _, _, saved = fn.lstm(3).forward(params, x, tuple(carry))
    _, _, dfirst = fn.lstm(3).backward(params, saved, dy)
    assert type(dfirst) is tuple


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p, x: fn.lstm(3).apply(p, x[0, 0]), ValueError, r"lstm\(3\): x must have at least 2 axes"),
        (lambda p, x: fn.lstm(3).apply(p, x[..., :1]), ValueError, r"lstm\(3\): x must have shape \(…, 2\)"),
        (lambda p, x: fn.lstm(3).apply(p, x.astype(int)), TypeError, "x must be floating point"),
        (lambda p, x: fn.gru(3).apply(p, x), TypeError, r"gru\(3\): params must be GRU\(w, u, b, b_n\), got LSTM"),
        (lambda p, x: fn.lstm(3).forward(p, x, x[:, 0]), TypeError, "carry must be LSTMCarry"),
        (lambda p, x: fn.lstm(3).forward(p, x, (x[:, 0], x[:, 0])), ValueError, r"carry must have shape \(2, 3\)"),
        (lambda p, x: fn.lstm(3).apply(p, x, mask=jnp.ones((2, 3), bool)), ValueError, r"mask must have shape \(2, 4\)"),
        (lambda p, x: fn.lstm(3).apply(p, x, mask=jnp.ones((2, 4))), TypeError, "mask must hold bools"),
        (lambda p, x: fn.lstm(3, recurrent_dropout=0.5).apply(p, x, train=True), ValueError, "needs a key"),
        (lambda p, x: fn.lstm(0), ValueError, "lstm: features must be a whole number"),
        (lambda p, x: fn.lstm(3, memory="root"), ValueError, "memory must be one of 'all', 'sqrt'"),
        (lambda p, x: fn.lstm(3, memory=0), ValueError, "memory must be a whole number"),
        (lambda p, x: fn.gru(3, reset="never"), ValueError, "gru: reset must be one of 'before', 'after'"),
        (lambda p, x: fn.elman(3, fn.tanh), TypeError, r"activation must be a Layer such as fn.tanh\(\), got tanh"),
        (lambda p, x: fn.elman(3, fn.prelu()), ValueError, "activation must be a layer without params"),
        (lambda p, x: fn.recurrent(fn.lstm), TypeError, "recurrent: expected a Cell, got function"),
        (lambda p, x: fn.lstm(3, peepholes=True), TypeError, "peepholes"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    params, x, *_ = drawn(fn.lstm(3), 2, 4, 2)
    with pytest.raises(error, match=message):
        call(params, jnp.asarray(x))


def test_all_layers_take_the_run_options_and_show_the_changed_ones():
    changed = {
        "memory": "sqrt",
        "unroll": 2,
        "time_major": True,
        "recurrent_dropout": 0.1,
        "variational": False,
    }
    shown = "memory='sqrt', unroll=2, time_major=True, recurrent_dropout=0.1, variational=False"
    assert set(changed) == set(RunOptions.__annotations__) == set(Options._fields)
    for make, own in ((fn.elman, (3,)), (fn.jordan, (2, 3)), (fn.lstm, (3,)), (fn.gru, (3,))):
        given = ", ".join(map(str, own))
        assert repr(make(*own)) == f"{make.__name__}({given})"
        assert repr(make(*own, **changed)) == f"{make.__name__}({given}, {shown})"
        with pytest.raises(TypeError, match=rf"{make.__name__}: .* use_bias, .* memory, .*got 'memroy'"):
            make(*own, memroy="sqrt")
    with pytest.raises(TypeError, match=r"recurrent: expected keywords among cell, memory, .*got 'bias'"):
        fn.recurrent(fn.lstm(3).info.recurrence.cell, bias=True)


def test_recurrent_dropout_needs_a_cell_that_takes_noise():
    cell = fn.lstm(3).info.recurrence.cell
    plain = cell._replace(step=lambda params, carry, z: carry)
    with pytest.raises(ValueError, match="recurrent_dropout needs a cell whose step"):
        fn.recurrent(plain, recurrent_dropout=0.1)
