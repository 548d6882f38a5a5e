"""Gradient flow, against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

RNG = np.random.default_rng(0)
T = 6
X = RNG.standard_normal((2, T, 3))
close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)


def linear(u):
    """A net with h_t = x_t·w + h_{t−1}·u, and its params."""
    size = len(u)
    net = fn.elman(size, fn.identity(), use_bias=False)
    return net, fn.Elman(jnp.ones((3, size)), jnp.asarray(u), None)


@pytest.mark.parametrize("w", [0.5, -0.9, 1.3])
def test_the_gradient_of_one_linear_unit_is_a_power_of_its_weight(w, x64):
    flow = fn.gradient_flow(*linear(np.array([[w]])), X)
    t, k = np.indices((T, T))
    close(flow.through_time, np.where(k <= t, np.abs(w) ** np.maximum(t - k, 0.0), 0))
    close(flow.singular, np.full(T, abs(w)))
    assert flow.saturated == {}


def test_a_linear_net_has_the_singular_values_of_its_matrix_powers(x64):
    u = 0.8 * RNG.standard_normal((4, 4))
    flow = fn.gradient_flow(*linear(u), X)
    close(flow.singular, np.full(T, np.linalg.norm(u, 2)))
    for t, k in ((3, 0), (5, 1), (4, 4), (2, 3)):
        power = np.linalg.norm(np.linalg.matrix_power(u, t - k), 2) if k <= t else 0
        close(flow.through_time[t, k], power)


def test_the_gradient_of_a_tanh_unit_is_the_product_of_its_slopes(x64):
    net, params = fn.elman(1), fn.Elman(jnp.ones((3, 1)), jnp.full((1, 1), 0.7), jnp.zeros(1))
    slopes = 0.7 * (1 - net.apply(params, X)[..., 0] ** 2)
    flow = fn.gradient_flow(net, params, X)
    close(flow.singular, slopes.mean(0))
    close(flow.through_time[5, 2], slopes[:, 3:].prod(1).mean())
    close(np.diag(flow.through_time), np.ones(T))


def test_the_gradient_of_an_open_lstm_does_not_change(x64):
    """With forget gates at 1 and input gates at 0, c_t = c_{t−1} for any h."""
    net = fn.lstm(2)
    b = jnp.repeat(jnp.array([-100.0, 100.0, 0.0, 0.0]), 2)
    params = fn.LSTM(jnp.zeros((3, 8)), jnp.zeros((2, 8)), b, None)
    flow = fn.gradient_flow(net, params, X)
    factor = np.sqrt(1 + 0.25)  # c_t is c_{t−1}, and h_t = ½·tanh(c_t), whose slope at 0 is ½
    close(flow.through_time, np.where(np.tri(T, k=-1) == 1, factor, np.eye(T)))
    assert {name: float(share) for name, share in flow.saturated.items()} == {"i": 1, "f": 1, "g": 0, "o": 0}


def test_masked_steps_do_not_change_the_gradient(x64):
    mask = jnp.array([[True] * T, [True, True, False, False, True, False]])
    net, params = linear(np.array([[0.5]]))
    flow = fn.gradient_flow(net, params, X, mask=mask)
    steps = np.cumsum(mask, 1)
    between = steps[:, :, None] - steps[:, None, :]
    close(flow.through_time, np.where(np.tri(T), 0.5 ** np.maximum(between, 0), 0).mean(0))
    first = fn.gradient_flow(
        fn.elman(1, time_major=True, use_bias=False), params, jnp.moveaxis(X, 1, 0), mask=mask.T
    )
    last = fn.gradient_flow(fn.elman(1, use_bias=False), params, X, mask=mask)
    jax.tree.map(close, (first.through_time, first.singular), (last.through_time, last.singular))
    jax.tree.map(close, first.saturated, last.saturated)


def test_saturation_counts_valid_steps_alone(x64):
    net = fn.serial(fn.elman(1, use_bias=False), fn.sigmoid())
    params = (fn.Elman(jnp.ones((3, 1)), jnp.zeros((1, 1)), None), ())
    x = jnp.array([0.0, 2.0, -2.0, 0.25])[None, :, None] * jnp.ones(3)  # h = tanh(3x), near an end at ±2
    shares = fn.gradient_flow(net, params, x).saturated
    assert {name: float(share) for name, share in shares.items()} == {"0.elman/h": 0.5, "1.sigmoid": 0}
    mask = jnp.array([[True, True, False, True]])
    close(fn.gradient_flow(net, params, x, mask=mask).saturated["0.elman/h"], 1 / 3)


@pytest.mark.parametrize("skip", [False, True])
def test_the_depth_of_a_chain_of_sigmoids_has_a_closed_form(skip, x64):
    """h_{i+1} = σ(w·h_i): the gradient at h_i is the product of w·σ' over all later layers."""
    depth, w = 5, 1.5
    unit = fn.serial(fn.dense(1, use_bias=False), fn.sigmoid())
    layers = [fn.residual(unit) if skip else unit for _ in range(depth)]
    own = (fn.Dense(jnp.full((1, 1), w), None), ())
    params = tuple((own,) if skip else own for _ in range(depth))
    flow = fn.gradient_flow(fn.serial(*layers), params, jnp.array([[0.3]]), dy=jnp.ones((1, 1)))
    h, slopes = 0.3, []
    for _ in range(depth):
        y = 1 / (1 + np.exp(-w * h))
        slopes.append(skip + w * y * (1 - y))
        h = skip * h + y
    name = "residual" if skip else "serial"
    for i in range(depth):
        close(flow.through_depth[f"{i}.{name}"], np.prod(slopes[i + 1 :]))
    assert flow.through_time is None
    assert flow.singular is None


def test_a_stack_has_a_value_for_each_copy(x64):
    net = fn.stack(fn.serial(fn.dense(3), fn.tanh()), 4)
    x = RNG.standard_normal((5, 3))
    params = net.init(jax.random.key(0), x)
    flow = jax.jit(functools.partial(fn.gradient_flow, net))(params, x)
    copies = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(4)]
    same = fn.gradient_flow(fn.serial(*[fn.serial(fn.dense(3), fn.tanh())] * 4), tuple(copies), x)
    close(flow.through_depth["0.serial/1.tanh"], [same.through_depth[f"{i}.serial/1.tanh"] for i in range(4)])
    close(flow.saturated["0.serial/1.tanh"], [same.saturated[f"{i}.serial/1.tanh"] for i in range(4)])


@pytest.mark.full
def test_the_state_of_a_network_is_the_carry_of_all_its_layers(x64):
    net = fn.serial(fn.embedding(5, 2), fn.gru(2), fn.lstm(2, memory="sqrt"), fn.dense(3))
    ids = jnp.array([[0, 3, 1, 4], [2, 2, 0, 1]])
    params = net.init(jax.random.key(0), ids)
    flow = fn.gradient_flow(fn.by_hand(net), params, ids)

    def last(start):  # of the first example
        carry = None, start[:2], fn.LSTMCarry(start[2:4], start[4:]), None
        _, carry, _ = net.forward(params, ids[0, 1:], carry)
        return jnp.concatenate(jax.tree.leaves(carry))

    start = jnp.concatenate(jax.tree.leaves(net.forward(params, ids[0, :1])[1]))
    one = fn.gradient_flow(net, params, ids[:1])
    close(one.through_time[3, 0], np.linalg.norm(jax.jacobian(last)(start), 2))
    unbatched = fn.gradient_flow(net, params, ids[0])
    jax.tree.map(close, (unbatched.through_time, unbatched.singular), (one.through_time, one.singular))
    assert list(flow.through_depth) == ["0.embedding", "1.gru", "2.lstm", "3.dense"]
    assert sorted(flow.saturated) == [*(f"1.gru/{g}" for g in "nrz"), *(f"2.lstm/{g}" for g in "fgio")]


def test_a_bidirectional_network_has_depth_alone():
    net = fn.bidirectional(fn.elman(2))
    flow = fn.gradient_flow(net, net.init(jax.random.key(0), X), X)
    assert flow.through_time is None
    assert list(flow.through_depth) == ["0.elman", "1.elman"]
    assert sorted(flow.saturated) == ["0.elman/h", "1.elman/h"]
