"""The backward pass step by step: the content of a trace, and the first wrong step in a comparison."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue
from fnnets.comparison import problems, steps

X = np.random.default_rng(0).standard_normal((2, 5, 3))
T = X.shape[1]


def point(layer, x=X):
    return catalogue.random_params(layer, np.random.default_rng(1), x)


def cell_of(layer):
    """The layer's cell; its backward gets exactly what its forward saved."""
    return layer.info.recurrence.cell._replace(ready=lambda params, carry, saved: saved)


def lstm_backward(mistake, params, carry, a, dcarry):
    """The LSTM's backward step, with one mistake."""
    c, (dh, dc) = carry.c, dcarry
    i, f, g, o = jnp.split(a, 4, -1)
    new = f * c + i * g
    q = jnp.tanh(new)
    if mistake == "what came back to c is forgotten":
        dc = 0 * dc
    dz_o = dh * q * o * (1 - o)
    if mistake != "the path through h is forgotten":
        dc = dc + dh * o * (1 - q * q)
    if mistake != "dz_o comes after dc":
        dc = dc + dz_o * params.p[2]
    dz_i = dc * g * i * (1 - i)
    dz_f = dc * (new if mistake == "c is one step late" else c) * f * (1 - f)
    if mistake == "the forget gate's derivative is missing":
        dz_f = dc * c
    dz_g = dc * i * (1 - g * g)
    dc = dc * f + dz_f * params.p[1]
    if mistake != "a peephole hands nothing back":
        dc = dc + dz_i * params.p[0]
    dz = jnp.concatenate([dz_i, dz_f, dz_g, dz_o], -1)
    dh = dz @ params.u.T
    if mistake == "nothing goes back in time":
        dh, dc = 0 * dh, 0 * dc
    if mistake == "the product with u is not transposed":
        dh = dz.reshape(*dz.shape[:-1], 4, -1).sum(-2)
    return fn.LSTMCarry(dh, 0 * dc if mistake == "c hands nothing back" else dc), dz


@functools.cache
def true_of_lstm():
    with jax.enable_x64(True):
        problem = problems.of_layer(LSTM, point(LSTM), X)
        return steps.true_trace(problem.plain, problem.point, problem.fixed, problem.dy)


def first_wrong(layer, x=X, **settings):
    with jax.enable_x64(True):
        problem = problems.of_layer(layer, point(layer, x), x, **settings)
        return problem.departure(("params.u", "params[0].u"))


LSTM = fn.lstm(2, peephole=True)


@pytest.mark.parametrize(
    ("mistake", "t", "quantities"),
    [
        ("none", None, ""),
        ("the forget gate's derivative is missing", T - 1, "dz_f"),
        ("c is one step late", T - 1, "dz_f"),
        ("the path through h is forgotten", T - 1, "dz_i, dz_f, dz_g"),
        ("dz_o comes after dc", T - 1, "dz_i, dz_f, dz_g"),
        ("a peephole hands nothing back", T - 1, "dc_before"),
        ("c hands nothing back", T - 1, "dc_before"),
        ("nothing goes back in time", T - 1, "dh_before, dc_before"),
        ("the product with u is not transposed", T - 1, "dh_before"),
        ("what came back to c is forgotten", T - 2, "dz_i, dz_f, dz_g"),
    ],
)
def test_the_first_wrong_step_and_quantity_are_named(mistake, t, quantities):
    cell = cell_of(LSTM)._replace(backward=functools.partial(lstm_backward, mistake), info="mine")
    layer = fn.recurrent(cell)
    with jax.enable_x64(True):
        problem = problems.of_layer(layer, point(layer), X)
        hand = steps.hand_trace(problem.by_hand, problem.point, problem.fixed, problem.dy)
        (says,) = steps.first(layer, hand, true_of_lstm(), ("params.u",))
    if t is None:
        assert says == "every step of mine agrees with autodiff: what `collect` sums over time is wrong"
    else:
        expected = f"first departs from autodiff at t = {t} (of 0…{T - 1}): {quantities} of mine"
        assert says == f"the backward pass {expected}"


NAMES = ("lstm, segments, masked", "gru, before, old", "gru, dropout inside each step", "elman, relu, time first",
         "jordan", "recurrent, three layers")  # fmt: skip
ROWS = [case for case in catalogue.recurrent_cases() if case.name in NAMES]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_every_quantity_of_every_step_agrees_with_autodiff(case):
    with jax.enable_x64(True):
        says = case.problem(0).departure(("params.u", "params[1].u"))
    assert len(says) == 1, "the steps were compared"
    assert says[0].startswith("every step of ")


def test_a_wrong_step_names_its_copy_in_a_stack():
    layer = fn.stack(fn.residual(fn.elman(3)), 3)
    assert first_wrong(layer)[0].startswith("every step of elman at 0.residual/0.elman agrees")

    def backward(params, h, saved, dh):
        dh, dz = cell_of(fn.elman(3)).backward(params, h, saved, dh)
        return dh * jnp.where(params.b[0] == second, 0, 1), dz

    with jax.enable_x64(True):
        second = jnp.asarray(point(layer)[0].b[1, 0])  # its bias identifies the second copy
        cell = cell_of(fn.elman(3))._replace(backward=backward)
        wrong = fn.stack(fn.residual(fn.recurrent(cell)), 3)
        (says,) = first_wrong(wrong)
    assert says.endswith(f"t = {T - 1} (of 0…{T - 1}): dh_before of elman at 0.residual/0.elman, copy 1")


def test_a_wrong_dy_is_distinguished_from_a_wrong_step():
    head = fn.dense(2)
    wrong = head._replace(
        backward=lambda params, saved, dy, dcarry=None: (
            *(lambda dparams, dx, _: (dparams, 2 * dx))(*head.backward(params, saved, dy)),
            None,
        )
    )
    (says,) = first_wrong(fn.serial(fn.elman(2), wrong))
    assert says == "the backward pass departs from autodiff first in what reaches elman at 0.elman"


def test_a_wrong_dy_from_a_loss_is_distinguished_from_a_wrong_step():
    loss, layer = fn.losses.mse(), fn.elman(2)
    wrong = loss._replace(backward=lambda saved, dvalue=1.0: 2 * loss.backward(saved, dvalue))
    (says,) = first_wrong(layer, loss=wrong, target=np.ones((2, T, 2)))
    assert says == "the backward pass departs from autodiff first in what reaches elman"
    (says,) = first_wrong(layer, loss=loss, target=np.ones((2, T, 2)))
    assert says.startswith("every step of elman agrees")


def test_a_cells_dz_is_compared_if_it_has_the_shape_of_z():
    cell = cell_of(fn.elman(2))

    def backward(params, h, saved, dh):
        dh, dz = cell.backward(params, h, saved, dh)
        return dh, {"scaled": 2 * dz}

    def collect(params, x, h, saved, dz):
        return cell.collect(params, x, h, saved, dz["scaled"] / 2)

    mine = fn.recurrent(cell._replace(backward=backward, collect=collect, info="mine"))
    assert "every step of mine agrees" in first_wrong(mine)[0], "its dz is not compared"
    named = cell._replace(
        backward=lambda params, h, saved, dh: (cell.backward(params, h, saved, dh)[0], {"z": 0 * h}),
        collect=lambda params, x, h, saved, dz: cell.collect(params, x, h, saved, dz["z"]),
    )
    assert (
        f"at t = {T - 1} (of 0…{T - 1}): dz (though every carry is right) of"
        in first_wrong(fn.recurrent(named))[0]
    )


def test_a_report_names_the_wrong_step_if_there_is_one():
    cell = cell_of(fn.elman(2))

    def backward(params, h, saved, dh):
        _, dz = cell.backward(params, h, saved, dh)
        return dh @ params.u.T, dz

    wrong = fn.serial(fn.recurrent(cell._replace(backward=backward)), fn.dense(1))
    mask = np.arange(T) < np.array([[T - 2], [T - 1]])
    report = fn.compare(wrong, point(wrong), X, mask=mask)
    assert not report.ok
    says = f"the backward pass first departs from autodiff at t = {T - 2} (of 0…{T - 1}): dh_before of elman at 0.elman"
    assert report.notes[0] == says
    assert says in str(report)
    right = fn.serial(fn.recurrent(cell), fn.dense(1))
    report = fn.compare(right, point(right), X, mask=mask)
    assert report.ok
    assert report.notes == ()


def test_a_wrong_sum_is_distinguished_from_a_wrong_step():
    cell = cell_of(fn.elman(2))

    def collect(*given):
        dparams, dx = cell.collect(*given)
        return dparams._replace(u=0.9 * dparams.u), dx

    layer = fn.recurrent(cell._replace(collect=collect))
    report = fn.compare(layer, point(layer), X)
    assert [row.path for row in report.rows if not row.ok] == ["params.u"]
    assert "every step of elman agrees with autodiff: what `collect` sums over time is wrong" in report.notes


# The trace itself.


def traced(layer, x=X, **settings):
    params, x = jax.tree.map(jnp.asarray, (point(layer, x), x))
    y, _, saved = layer.forward(params, x, settings.get("carry"), mask=settings.get("mask"))
    dy = jnp.asarray(np.random.default_rng(2).standard_normal(y.shape), y.dtype)
    dparams, _, dcarry = layer.backward(params, saved, dy, settings.get("dcarry"))
    return fn.trace_backward(layer, params, x, dy, **settings), dy, dparams, dcarry


@pytest.mark.quick
@pytest.mark.parametrize("memory", ["all", "sqrt"])
def test_the_steps_add_up_to_the_gradients(memory, x64):
    mask = jnp.array([[True, True, False, True, False], [True] * T])
    h = fn.LSTMCarry(*jnp.ones((2, 2, 2)))
    trace, dy, dparams, dcarry = traced(fn.lstm(2, memory=memory), mask=mask, carry=h, dcarry=h)
    (found,) = trace.values()
    shown = "dy dh dc dz_i dz_f dz_g dz_o dh_before dc_before"
    assert list(trace) == ["lstm"]
    assert list(found) == shown.split()
    dz = jnp.concatenate([found[f"dz_{gate}"] for gate in "ifgo"], -1)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-14)
    close(dz.sum((0, 1)), dparams.b)
    close(jnp.einsum("btd,btz->dz", jnp.where(mask[..., None], X, 0), dz), dparams.w)
    seen = jnp.where(mask[..., None], dy, 0)
    close(found["dh"], seen + jnp.concatenate([found["dh_before"][:, 1:], h.h[:, None]], 1))
    close(found["dc"], jnp.concatenate([found["dc_before"][:, 1:], h.c[:, None]], 1))
    close(found["dh_before"][:, 0], dcarry.h)
    close(found["dc_before"][:, 0], dcarry.c)
    assert not dz[~mask].any(), "a masked step has no gradient in its gates"


def test_a_trace_has_the_layers_time_axis_and_is_the_same_under_jit_and_vmap(x64):
    (last,), (first,) = (
        traced(fn.gru(2, time_major=time_major), x)[0].values()
        for time_major, x in ((False, X[:, None, :, :]), (True, np.moveaxis(X[:, None], -2, 0)))
    )
    assert list(first) == ["dy", "dh", "dm", "dz_r", "dz_z", "dz_n", "dh_before"]
    assert first["dz_r"].shape == (T, 2, 1, 2)
    assert last["dz_r"].shape == (2, 1, T, 2)
    net = fn.serial(fn.stack(fn.elman(3), 2), fn.jordan(3, 2))
    params, x = point(net), jnp.asarray(X)
    dy = jnp.ones((2, T, 2))
    trace = fn.trace_backward(net, params, x, dy)
    assert list(trace) == ["1.jordan", "0.stack", "0.stack/0.elman"]
    assert list(trace["1.jordan"]) == ["dy", "dh", "dz", "do", "dh_before"]
    assert trace["0.stack/0.elman"]["dz"].shape == (2, 2, T, 3)
    run = functools.partial(fn.trace_backward, net, params)
    for same in (jax.jit(run)(x, dy), jax.vmap(run, out_axes=0)(x, dy)):
        np.testing.assert_allclose(same["1.jordan"]["do"], trace["1.jordan"]["do"], atol=1e-14)
        np.testing.assert_allclose(same["0.stack"]["dy"], trace["0.stack"]["dy"], atol=1e-14)


def test_a_trace_of_a_feed_forward_network_has_the_dy_of_every_layer():
    net = fn.serial(fn.dense(4), fn.tanh(), fn.residual(fn.dense(4)))
    trace, dy, *_ = traced(net)
    assert list(trace) == ["2.residual", "2.residual/0.dense", "1.tanh", "0.dense"]
    assert all(list(values) == ["dy"] for values in trace.values())
    np.testing.assert_array_equal(trace["2.residual/0.dense"]["dy"], dy)
    dense, *_ = traced(fn.dense(4))
    assert list(dense) == ["dense"]


def test_a_trace_names_the_gradients_of_a_users_cell():
    cell = cell_of(fn.elman(2))

    def backward(params, h, saved, dh):
        dh, dz = cell.backward(params, h["s"], saved, dh["s"])
        return {"s": dh}, {"y": dz, "s": dz}

    mine = cell._replace(
        start=lambda params, batch: {"s": cell.start(params, batch)},
        step=lambda params, h, z: {"s": cell.step(params, h["s"], z)},
        forward=lambda params, h, z: (lambda h, saved: ({"s": h}, saved))(*cell.forward(params, h["s"], z)),
        backward=backward,
        collect=lambda params, x, h, saved, dz: cell.collect(params, x, h["s"], saved, dz["y"]),
        info="mine",
    )
    (found,) = traced(fn.recurrent(mine))[0].values()
    assert list(found) == ["dy", "ds", "dz.s", "dz.y", "ds_before"]


def test_recording_does_not_change_the_program():
    layer = fn.lstm(2)
    x = jnp.asarray(X, jnp.float32)
    params = layer.init(jax.random.key(0), x)

    def gradient(params, x):
        y, _, saved = layer.forward(params, x)
        return layer.backward(params, saved, jnp.ones_like(y))

    before = str(jax.make_jaxpr(gradient)(params, x))
    fn.trace_backward(layer, params, x, jnp.ones((2, T, 2)))
    assert str(jax.make_jaxpr(gradient)(params, x)) == before
    assert "dh_before" not in before
    scans = [line for line in before.splitlines() if " scan[" in line]
    assert len(scans) == 2
