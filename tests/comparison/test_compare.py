"""The comparison itself: which mistakes it reports, which it does not, and in which words."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

X = np.random.default_rng(0).standard_normal((4, 5))


def point(layer, x=X, seed=3):
    return catalogue.random_params(layer, np.random.default_rng(seed), x)


def report_of(layer, x=X, **settings):
    return fn.compare(layer, point(layer, x), x, **settings)


def row(report, path):
    return next(row for row in report.rows if row.path == path)


@pytest.mark.quick
def test_a_right_layer_agrees_in_float64_and_the_configuration_stays():
    before = jnp.ones(1).dtype, jax.config.jax_enable_x64
    report = report_of(fn.serial(fn.dense(3), fn.tanh()))
    assert report.ok
    assert report.worst_autodiff < 1e-14, "float32 is less accurate"
    assert (jnp.ones(1).dtype, jax.config.jax_enable_x64) == before
    assert [row.path for row in report.rows] == ["params[0].w", "params[0].b", "x"]
    assert row(report, "params[0].w").layer == "dense(3)"


@pytest.mark.quick
def test_a_wrong_leaf_is_named_with_its_place():
    wrong = toys.with_backward(
        fn.dense(3), lambda dparams, dx: (dparams._replace(w=dparams.w.at[2, 1].mul(3)), dx)
    )
    report = report_of(wrong)
    assert not report.ok
    assert row(report, "params.w").worst == (2, 1)
    assert row(report, "params.b").ok
    assert row(report, "x").ok
    assert "only params.w went wrong" in str(report)


@pytest.mark.parametrize(
    ("change", "cause", "says"),
    [
        (lambda dparams, dx: (dparams, -dx), "sign", "wrong sign"),
        (lambda dparams, dx: (dparams, dx * 4 / 3), "factor", "n/(n−1), n = the batch (4)"),
        (lambda dparams, dx: (dparams, dx / 2), "factor", "a constant factor of ½"),
        (lambda dparams, dx: (dparams._replace(w=dparams.w / 5), dx), "factor", "divided by axis 1 of x (5)"),
        (lambda dparams, dx: (dparams, -2 * dx), "factor", "the wrong sign and a constant factor of 2"),
        (lambda dparams, dx: (dparams._replace(w=dparams.w.T), dx), "transpose", "transpose"),
        (lambda dparams, dx: (dparams, dx.at[:, 3].set(0)), "zero block", "[:, 3]"),
        (lambda dparams, dx: (dparams, dx.at[1:3, 3].set(0)), "zero block", "[1:3, 3:4]"),
        (lambda dparams, dx: (dparams, dx.at[0, 0].set(jnp.nan)), "not finite", "the first at [0, 0]"),
        (lambda dparams, dx: (dparams, dx + jnp.sin(dx)), "unknown", "no simple cause"),
        (lambda dparams, dx: (dparams, dx / 5**0.5), "factor", "divided by the root of axis 1 of x (5)"),
        (lambda dparams, dx: (dparams._replace(w=dparams.w.at[2, 1].mul(3)), dx), "entry", "only the entry [2, 1] is wrong"),
        (lambda dparams, dx: (dparams._replace(b=dparams.b.astype("float32")), dx), "precision", "computed in float32"),
        (lambda dparams, dx: (dparams, None), "missing", "does not have this leaf"),
        (lambda dparams, dx: (dparams, dx[0]), "shape", "(5,)"),
    ],
)  # fmt: skip
def test_diagnoses(change, cause, says):
    report = report_of(toys.with_backward(fn.dense(3), change))
    (wrong,) = [row for row in report.rows if not row.ok]
    assert wrong.cause == cause
    assert says in wrong.diagnosis
    assert wrong.diagnosis in str(report)


def test_diagnoses_use_the_names_of_documented_blocks():
    layer = toys.gated(3)
    assert report_of(layer).ok
    gate_zero = toys.with_backward(
        layer, lambda dparams, dx: (dparams._replace(w=dparams.w.at[:, 3:].set(0)), dx)
    )
    assert row(report_of(gate_zero), "params.w").diagnosis == "the block of gate is zero"
    swapped = toys.with_backward(
        layer, lambda dparams, dx: (dparams._replace(w=jnp.roll(dparams.w, 3, 1)), dx)
    )
    assert (
        row(report_of(swapped), "params.w").diagnosis
        == "the block of value and the block of gate are exchanged"
    )


def test_a_forgotten_derivative_inside_a_users_layer_is_found():
    layer = fn.layer(
        lambda key, x: {"w": jax.random.normal(key, (5, 3))},
        lambda params, x: jnp.tanh(x @ params["w"]),
        lambda params, x: (jnp.tanh(x @ params["w"]), x),
        lambda params, x, dy: ({"w": x.T @ dy}, dy @ params["w"].T),
    )
    report = report_of(layer)
    assert {row.cause for row in report.rows} == {"missing derivative"}
    assert all("the derivative of tanh" in row.diagnosis for row in report.rows)


def test_rounding_noise_is_right_where_the_true_gradient_is_zero():
    # A bias before a subtraction of the mean has no effect.
    def centred(params, x):
        z = x @ params["w"] + params["b"]
        return z - z.mean(0)

    def backward(params, x, dy):
        dz = dy - dy.mean(0)
        return {"w": x.T @ dz, "b": dz.sum(0)}, dz @ params["w"].T

    layer = fn.layer(
        lambda key, x: {"w": jnp.ones((5, 3)), "b": jnp.ones(3)},
        centred, lambda params, x: (centred(params, x), x), backward,
    )  # fmt: skip
    report = report_of(layer)
    assert report.ok
    assert row(report, "params['b']").error < 1e-14
    wrong = toys.with_backward(layer, lambda dparams, dx: (dparams | {"b": dparams["b"] + 1}, dx))
    assert row(report_of(wrong), "params['b']").cause == "not zero"


def test_differences_across_a_kink_are_set_aside_and_reported():
    x = np.array([[0.0, 1e-6, 1.0, -1.0]])
    report = fn.compare(fn.relu(), (), x)
    assert report.ok
    assert row(report, "x").set_aside == 2
    assert "2 at a kink" in str(report)


def test_a_kink_does_not_hide_a_mistake():
    x = np.array([[0.0, 1e-6, 1.0, -1.0]])
    wrong = toys.with_backward(fn.relu(), lambda dparams, dx: (dparams, dx.at[0, 1].mul(2)))
    assert not fn.compare(wrong, (), x).ok


def test_integers_have_no_gradient():
    ids = np.array([[0, 2], [1, 1]])
    report = report_of(fn.embedding(4, 3), ids)
    assert report.ok
    assert [row.path for row in report.rows] == ["params.w"]


def test_moving_statistics_are_constants():
    layer = toys.centred()
    report = report_of(layer)
    assert report.ok
    assert row(report, "params.stats.mean").verdict == "constant"
    wrong = toys.with_backward(
        layer, lambda dparams, dx: (dparams._replace(stats=fn.Stats(dx.sum(0), dx[0])), dx)
    )
    assert not report_of(wrong).ok


def test_a_large_leaf_is_sampled():
    report = report_of(fn.dense(30, use_bias=False))
    assert row(report, "params.w").differenced == 64 < 150
    assert row(report, "x").differenced == 20


def test_carry_and_its_gradient():
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    layer, carry = toys.integrator(), np.ones((2, 4))
    mask = np.array([[1, 0, 1], [0, 0, 0]], bool)
    report = report_of(layer, x, carry=carry, mask=mask)
    assert report.ok
    assert row(report, "carry").shape == (2, 4)
    assert report_of(fn.serial(fn.dense(4), layer), x, carry=(None, carry)).ok
    wrong = layer._replace(
        backward=lambda params, saved, dy, dcarry=None: layer.backward(params, saved, dy, None)
    )
    assert not report_of(wrong, x, carry=carry).ok
    assert report_of(wrong, x, carry=carry, dy=np.ones((2, 3, 4))).ok, (
        "without a dcarry the mistake has no effect"
    )


def test_a_loss_is_compared_with_the_layer():
    net = fn.serial(fn.dense(3), fn.tanh())
    target = np.random.default_rng(1).standard_normal((4, 3))
    assert report_of(net, loss=fn.losses.mse(), target=target).ok
    assert report_of(net, loss=fn.losses.softmax_cross_entropy(), target=np.array([0, 1, 2, 1])).ok
    loss = fn.losses.mse()
    wrong = loss._replace(backward=lambda saved, dvalue=1.0: 2 * loss.backward(saved, dvalue))
    report = report_of(net, loss=wrong, target=target)
    assert not report.ok
    assert "every leaf has the same mistake" in str(report)


def test_forward_that_departs_from_apply_is_a_mismatch():
    layer = fn.tanh()
    wrong = layer._replace(
        forward=lambda *args, **mode: (layer.forward(*args, **mode)[0] + 1, *layer.forward(*args)[1:])
    )
    report = report_of(wrong)
    assert not report.ok
    assert "forward departs from the plain equation" in str(report)


def test_an_error_in_backward_is_reported():
    def backward(params, saved, dy, dcarry=None):
        raise IndexError("list index out of range")

    report = report_of(fn.serial(fn.dense(3), fn.tanh()._replace(backward=backward)))
    assert not report.ok
    assert "IndexError: list index out of range" in str(report)
    assert "layer 1: tanh()" in str(report)


def test_a_wrong_plain_equation_is_distinguished_from_a_wrong_derivation():
    def stopped(params, x):
        return jnp.sin(jax.lax.stop_gradient(x)) + x

    hand = lambda params, saved, dy: ((), dy * (jnp.cos(saved) + 1))
    right = fn.layer(lambda key, x: (), stopped, lambda params, x: (stopped(params, x), x), hand)
    assert row(report_of(right), "x").cause == "autodiff"
    same = fn.layer(
        lambda key, x: (), stopped, lambda params, x: (stopped(params, x), x), lambda p, s, dy: ((), dy)
    )
    assert row(report_of(same), "x").verdict == "differences"


def test_a_network_by_hand_is_compared_like_the_plain_one():
    wrong = toys.with_backward(fn.dense(3), lambda dparams, dx: (dparams._replace(w=2 * dparams.w), dx))
    assert not report_of(fn.by_hand(wrong)).ok
    assert not report_of(fn.serial(fn.by_hand(wrong), fn.tanh())).ok


def test_low_precision_input_is_compared_in_float64():
    layer = fn.dense(3)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), point(layer))
    report = fn.compare(layer, params, jnp.asarray(X, jnp.float16))
    assert report.ok
    assert report.worst_autodiff < 1e-14


def test_an_infinite_true_gradient_is_reported():
    report = fn.compare_grad(
        lambda x: jnp.sum(jnp.sqrt(x)), lambda x: 0.5 / jnp.sqrt(x), np.array([0.0, 1.0])
    )
    assert report.rows[0].verdict == "not finite"


def test_report_as_json():
    wrong = toys.with_backward(fn.dense(3), lambda dparams, dx: (dparams, dx * jnp.nan))
    found = json.loads(report_of(wrong).to_json())
    assert found["ok"] is False
    assert [row["ok"] for row in found["rows"]] == [True, True, False]
    assert found["rows"][2]["error"] is None, "JSON has no infinity"
    assert found["rows"][0]["shape"] == [5, 3]
    assert set(found["rows"][0]) >= {"path", "error", "relative", "cosine", "worst", "verdict", "diagnosis"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": fn.losses.mse()}, "needs a target"),
        ({"target": X}, "need a loss"),
        ({"dy": np.ones((4, 4))}, r"dy must have shape \(4, 3\), got \(4, 4\)"),
    ],
)
def test_bad_use(settings, says):
    with pytest.raises(ValueError, match=says):
        report_of(fn.dense(3), **settings)


def test_a_function_in_place_of_a_layer_is_refused():
    with pytest.raises(TypeError, match="expected a Layer, got function"):
        fn.compare(fn.dense, (), X)


def test_a_layer_that_reads_a_changed_value_is_compared_again():
    factor = {"is": 1.0}
    layer = fn.layer(
        lambda key, x: (), lambda params, x: jnp.sin(x), lambda params, x: (jnp.sin(x), x),
        lambda params, x, dy: ((), factor["is"] * dy * jnp.cos(x)),
    )  # fmt: skip
    assert fn.compare(layer, (), X).ok
    factor["is"] = 2.0
    assert not fn.compare(layer, (), X).ok


def test_a_missing_sum_names_its_axis():
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    right = fn.dense(2)
    for axis, name in ((0, "the batch"), (1, "time")):

        def backward(params, saved, dy, dcarry=None, summed=1 - axis):
            dparams, dx, _ = right.backward(params, saved, dy)
            return dparams._replace(b=dy.sum(summed)), dx, None

        report = report_of(right._replace(backward=backward), x)
        assert row(report, "params.b").diagnosis == f"the sum over {name} is missing"


def test_a_single_number_is_not_over_interpreted():
    report = fn.compare_grad(lambda a: jnp.sin(a), jnp.cosh, np.array(0.7))
    assert "a single number cannot tell why" in report.rows[0].diagnosis


def test_a_gradient_not_finite_on_both_sides_is_not_a_mistake():
    x = X.copy()
    x[0, 0] = np.nan
    report = report_of(fn.dense(3), x)
    assert row(report, "params.w").diagnosis == (
        "the gradient is not finite, by hand and by autodiff alike: nothing can be compared here"
    )
    assert "went wrong" not in str(report)


def test_causes_have_names_behind_a_loss_too():
    net, target = fn.serial(fn.dense(3), fn.tanh()), np.random.default_rng(1).standard_normal((4, 3))
    settings = {"loss": fn.losses.mse(), "target": target}
    scaled = toys.with_backward(net, lambda dparams, dx: (jax.tree.map(lambda leaf: leaf / 4, dparams), dx))
    assert "divided by the batch (4)" in row(report_of(scaled, **settings), "params[0].w").diagnosis
    one = net._replace(
        backward=lambda params, saved, dy, dcarry=None: net.backward(params, saved, dy.at[1:].set(0), dcarry)
    )
    assert row(report_of(one, **settings), "params[0].w").diagnosis.startswith(
        "only number 0 of the batch counts"
    )


def scanned(mistake):
    """h_t = tanh(x_t + h_{t−1}·u) as one scan, with a mistake in its BPTT."""

    def states(u, x):
        def step(h, x):
            h = jnp.tanh(x + h @ u)
            return h, h

        return jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))[1].swapaxes(0, 1)

    def backward(u, saved, dy):
        before = jnp.concatenate([jnp.zeros_like(saved[:, :1]), saved[:, :-1]], 1)
        dh, du, dx = jnp.zeros_like(dy[:, 0]), jnp.zeros_like(u), []
        for t in reversed(range(dy.shape[1])):
            slope = 1 if mistake == "slope" else 1 - saved[:, t] ** 2
            dz = (dh + dy[:, t]) * slope
            du += before[:, t].T @ dz if mistake != "last" or t == dy.shape[1] - 1 else 0
            dh = 0 * dz if mistake == "carry" else dz @ u.T
            dx.append(dz)
        return du, jnp.stack(dx[::-1], 1)

    return fn.layer(
        lambda key, x: jnp.eye(x.shape[-1]),
        states,
        lambda u, x: (states(u, x), states(u, x)),
        backward,
        name="elman",
    )


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("slope", "the derivative of tanh is missing"),
        ("carry", "the carry of scan (number 0) is missing"),
        ("last", "only the last step of scan counts"),
    ],
)
def test_mistakes_inside_a_scan_are_named(mistake, says):
    x = np.random.default_rng(3).standard_normal((2, 4, 3))
    assert report_of(scanned(None), x).ok
    assert says in row(report_of(scanned(mistake), x), "params").diagnosis


def test_a_noisy_function_is_reported_as_unchecked():
    noise = np.random.default_rng(0)
    f = lambda w: float(np.sum(np.asarray(w) ** 3)) + 1e-6 * noise.random()
    report = fn.compare_grad(f, lambda w: 7 * w, np.arange(1.0, 4.0))
    assert not report.ok
    assert report.rows[0].verdict == "unchecked"


def test_more_bad_use():
    net = fn.dense(3)
    with pytest.raises(TypeError, match="loss must be a Loss, got mse; call it"):
        report_of(net, loss=fn.losses.mse, target=X[:, :3])
    with pytest.raises(TypeError, match="cannot be traced; call it outside jit"):
        jax.jit(lambda x: fn.compare(net, point(net), x).ok)(X)
    with pytest.raises(TypeError, match="train must be a Python bool"):
        report_of(net, train=1)
    counted = fn.layer(
        lambda key, x: (), lambda p, x: x * 1.0, lambda p, x: (x * 1.0, ()), lambda p, s, dy: ((), None)
    )
    with pytest.raises(ValueError, match="there is nothing to compare"):
        fn.compare(counted, (), np.arange(3))
