"""Newton's method and the curvature it uses."""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import fnnets as fn
from fnnets import updaters
from fnnets.gradients import curvature

pytestmark = pytest.mark.usefixtures("x64")
PLAIN = {"adapt_damping": False, "line_search": False}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def run(updater, loss, params, steps):
    """The parameters and states after each step, in one scan."""
    params = jnp.asarray(params)

    def step(carry, _):
        params, state = carry
        updates, state = updater.update(jax.grad(loss)(params), state, params, value_fn=loss)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state)

    return jax.jit(lambda: jax.lax.scan(step, (params, updater.init(params)), length=steps)[1])()


def one(updater, loss, params, grads=None, **extra):
    """The first update and its state."""
    params = jnp.asarray(params) if isinstance(params, list | float) else params
    grads = jax.grad(loss)(params) if grads is None else grads
    update = functools.partial(updater.update, value_fn=loss, **extra)
    return jax.jit(update)(grads, updater.init(params), params)


def saddle(p):
    """Minima at (0, ±1), a saddle at 0."""
    return 0.5 * p[0] ** 2 - 0.5 * p[1] ** 2 + 0.25 * p[1] ** 4


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


@functools.cache
def network(features=(3, 2)):
    """A small network, params away from initialisation, an input and a target."""
    net = fn.serial(fn.dense(features[0]), fn.tanh(), fn.dense(features[1]))
    x = jax.random.normal(jax.random.key(0), (6, 9))
    params = jax.jit(lambda: jax.tree.map(lambda p: p + 0.1, net.init(jax.random.key(1), x)))()
    return net, params, x, jax.random.normal(jax.random.key(2), (6, features[1]))


def matrix(product, params):
    flat, unravel = ravel_pytree(params)
    return jax.jit(jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0]))(jnp.eye(flat.size))


# ---------------------------------------------------------------- curvature


@jax.custom_vjp
def cube(x):
    return x**3


@jax.custom_vjp
def three_squares(x):
    return 3 * x**2


cube.defvjp(lambda x: (x**3, x), lambda x, dy: (three_squares(x) * dy,))
three_squares.defvjp(lambda x: (3 * x**2, x), lambda x, dy: (6 * x * dy,))


def test_hvp_where_forward_mode_is_unavailable():
    """The derivative of `cube` has its own custom_vjp, so only reverse mode can differentiate it."""
    product = jax.jit(lambda x, v: curvature.hvp(lambda x: cube(x).sum(), x)(v))
    np.testing.assert_allclose(product(jnp.array([1.0, 2.0]), jnp.array([1.0, -1.0])), [6.0, -12.0])


@pytest.mark.parametrize("wrap", [lambda net: net, fn.by_hand])
def test_hvp_is_the_hessian(wrap):
    net, params, x, target = network()
    flat, unravel = ravel_pytree(params)

    def loss(flat, net=net):
        return fn.losses.mse().apply(net.apply(unravel(flat), x), target)

    dense = jax.jit(jax.hessian(loss))(flat)
    product = curvature.hvp(functools.partial(loss, net=wrap(net)), flat)
    np.testing.assert_allclose(matrix(product, flat), dense, atol=1e-10)


@pytest.mark.quick
@pytest.mark.parametrize("wrap", [lambda net: net, fn.by_hand])
@pytest.mark.parametrize("loss", [fn.losses.mse(), fn.losses.softmax_cross_entropy()])
def test_ggn_is_the_dense_matrix(wrap, loss):
    net, params, x, target = network()
    target = jax.nn.softmax(target)
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def whole(flat):
        jacobian = jax.jacfwd(lambda flat: net.apply(unravel(flat), x).ravel())(flat)
        y = net.apply(params, x)
        of_loss = jax.hessian(lambda y_flat: loss.apply(y_flat.reshape(y.shape), target))(y.ravel())
        return jacobian.T @ of_loss @ jacobian

    product = curvature.ggn(wrap(net), loss, params, x, target)
    difference = np.abs(matrix(product, params) - whole(flat)).max()
    assert difference < 1e-10
    assert jnp.linalg.eigvalsh(matrix(product, params)).min() > -1e-10


def test_ggn_of_a_linear_net_is_the_hessian_and_respects_train_and_mask():
    net = fn.serial(fn.dropout(0.5), fn.dense(2))
    x, key = jax.random.normal(jax.random.key(0), (5, 3)), jax.random.key(1)
    params, target, loss = net.init(key, x), jnp.ones((5, 2)), fn.losses.mse()
    mask = jnp.array([True, True, False, True, False])

    def train(params):
        return loss.apply(net.apply(params, x, key=key, train=True), target, mask)

    g = matrix(curvature.ggn(net, loss, params, x, target, key=key, train=True, loss_mask=mask), params)
    np.testing.assert_allclose(g, matrix(curvature.hvp(train, params), params), atol=1e-12)
    assert np.abs(g - matrix(curvature.ggn(net, loss, params, x, target), params)).max() > 0.1


# ---------------------------------------------------------------- the method


@pytest.mark.parametrize(
    "settings", [PLAIN, {}, {"solver": "cg", "tolerance": 1e-14}, {"curvature": "saddle_free"}]
)
def test_a_quadratic_in_one_step(settings):
    scale = jnp.array([1.0, 10.0, 1e4])
    mix = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, 1.0]])

    def loss(p):
        return 0.5 * jnp.sum(scale * (mix @ (p - 1)) ** 2) + 7

    path, state = run(updaters.newton(**settings), loss, [5.0, -3.0, 2.0], 1)
    np.testing.assert_allclose(path[0], 1.0, atol=1e-9)
    assert float(state.step_length[0]) == 1
    assert int(state.systems[0]) == 1
    np.testing.assert_allclose(state.ratio[0], 1.0, rtol=1e-6)


@pytest.mark.quick
def test_absolute_curvature_leaves_the_saddle_that_attracts_plain_newton():
    start = [1.0, 0.01]
    plain, _ = run(updaters.newton(**PLAIN), saddle, start, 8)
    free, _ = run(updaters.newton(curvature="saddle_free", **PLAIN), saddle, start, 20)
    np.testing.assert_allclose(plain[-1], 0.0, atol=1e-12)
    np.testing.assert_allclose(free[-1], [0.0, 1.0], atol=1e-6)
    for settings in ({}, {"solver": "cg"}, {"curvature": "saddle_free"}):
        path, state = run(updaters.newton(**settings), saddle, start, 20)
        np.testing.assert_allclose(path[-1], [0.0, 1.0], atol=1e-9)
        values = jax.vmap(saddle)(path)
        assert bool((jnp.diff(values) <= 1e-15).all())
        assert float(state.lowest[0]) < 0 < float(state.lowest[-1])


def test_convergence_is_quadratic():
    """Σ eˣ − a·x is lowest at log a; each error is ½ of the square of the one before."""
    a = jnp.array([0.5, 2.0, 10.0])
    path, _ = run(updaters.newton(), lambda x: jnp.sum(jnp.exp(x) - a * x), jnp.log(a) + 0.5, 7)
    errors = np.abs(np.asarray(path) - np.log(a)).max(1)
    print("\nerror      over the square of the last")
    for before, after in itertools.pairwise(errors):
        print(f"{after:.3e}  {after / before**2:.4f}" if before > 1e-7 else f"{after:.3e}")
    near = [after / before**2 for before, after in itertools.pairwise(errors) if 1e-7 < before < 0.02]
    assert len(near) >= 2
    np.testing.assert_allclose(near, 0.5, rtol=0.02)
    assert errors[-1] < 1e-14


def test_conjugate_gradients_equal_the_dense_solve_on_500_parameters():
    net, params, x, target = network((33, 5))
    assert fn.count_params(params) == 500
    loss = fn.losses.mse()

    def loss_fn(params):
        return loss.apply(net.apply(params, x), target)

    product = curvature.ggn(net, loss, params, x, target)
    settings = {"curvature": "ggn", "damping": 1e-3, "tolerance": 1e-13, **PLAIN}
    ends = [
        one(updaters.newton(solver=solver, **settings), loss_fn, params, product=product)
        for solver in ("dense", "cg")
    ]
    (dense, _), (cg, state) = ends
    dense, cg = ravel_pytree(dense)[0], ravel_pytree(cg)[0]
    error = float(jnp.linalg.norm(cg - dense) / jnp.linalg.norm(dense))
    print(f"\nrelative difference {error:.1e} after {int(state.iterations)} iterations")
    assert error < 1e-10
    assert 0 < int(state.iterations) <= 500


@pytest.mark.quick
def test_newton_through_the_backward_of_an_lstm():
    """Takes the same steps as with autodiff, and the loss falls."""
    net, loss = fn.serial(fn.lstm(2), fn.last(), fn.dense(1)), fn.losses.mse()
    x, target = jax.random.normal(jax.random.key(0), (6, 3, 1)), jax.random.normal(jax.random.key(1), (6, 1))
    start = jax.tree.map(lambda p: p.astype(float), net.init(jax.random.key(2), x))
    updater = updaters.newton(damping=1e-3)

    @functools.partial(jax.jit, static_argnums=0)
    def step(net, params, state):
        def value(params):
            return loss.apply(net.apply(params, x), target)

        updates, state = updater.update(jax.grad(value)(params), state, params, value_fn=value)
        return optax.apply_updates(params, updates), state, value(params)

    values = []
    for each in (fn.by_hand(net), net):
        params, state, first = step(each, start, updater.init(start))
        params, state, second = step(each, params, state)
        values.append((first, second, params))
        assert second < 0.95 * first
        assert bool(state.finite)
    chex.assert_trees_all_close(*values, rtol=1e-8, atol=1e-9)


# ---------------------------------------------------------------- failures and their reports


def test_indefinite_curvature_is_damped():
    _, state = one(updaters.newton(), saddle, [1.0, 0.1])
    assert float(state.lowest) < 0
    assert float(state.damping) > -float(state.lowest)
    assert int(state.systems) > 1
    assert float(state.step_length) > 0
    assert bool(state.finite)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_singular_curvature(solver):
    """E depends on x + y alone: the step is the shortest to the minimum, plain and damped."""

    def valley(p):
        return 0.5 * (p[0] + p[1] - 2) ** 2

    plain, _ = one(updaters.newton(solver=solver, **PLAIN), valley, [0.0, 0.0])
    damped, state = one(updaters.newton(solver=solver), valley, [0.0, 0.0])
    np.testing.assert_allclose(plain, 1.0, atol=1e-12)
    np.testing.assert_allclose(damped, 1.0, atol=2e-3)
    assert abs(float(state.lowest)) < 1e-12 or solver == "cg"


@pytest.mark.parametrize(("settings", "bad"), [({}, jnp.nan), (PLAIN, jnp.inf), ({"solver": "cg"}, jnp.nan)])
def test_nan_takes_no_step_and_is_reported(settings, bad):
    for extra in ({"grads": np.array([1.0, bad])}, {"product": lambda v: v * bad}):
        update, state = one(updaters.newton(**settings), saddle, [1.0, 0.1], **extra)
        np.testing.assert_array_equal(update, 0.0)
        assert not bool(state.finite)
        assert float(state.step_length) == 0
        assert bool(jnp.isfinite(state.damping))
    update, state = one(
        updaters.newton(**settings),
        lambda p: p.sum() * bad,
        [1.0, 0.1],
        grads=np.ones(2),
        product=lambda v: v,
    )
    np.testing.assert_array_equal(update, 0.0)
    assert not bool(state.finite)


def test_the_step_after_a_nan_equals_a_fresh_one():
    updater = updaters.newton()
    start = jnp.array([1.0, 0.1])
    step = jax.jit(functools.partial(updater.update, value_fn=saddle))
    _, fresh = step(jax.grad(saddle)(start), updater.init(start), start)
    _, broken = step(jnp.array([jnp.nan, 1.0]), updater.init(start), start)
    _, after = step(jax.grad(saddle)(start), broken, start)
    for name in ("damping", "step_length", "ratio", "systems"):
        np.testing.assert_allclose(getattr(after, name), getattr(fresh, name), err_msg=name)


def test_a_step_that_raises_the_loss():
    """On √(1 + x²) the full step from 2 leads to −8."""

    def loss(x):
        return jnp.sqrt(1 + x**2)

    update, state = one(updaters.newton(**PLAIN), loss, 2.0)
    np.testing.assert_allclose(update, -10.0)
    assert float(state.ratio) < 0  # the loss rose

    update, state = one(updaters.newton(adapt_damping=False), loss, 2.0)
    assert float(state.step_length) == 0.25
    np.testing.assert_allclose(update, -2.5)

    update, state = one(updaters.newton(line_search=False), loss, 2.0)
    assert int(state.systems) > 1
    assert loss(2.0 + update) < loss(2.0)
    assert float(state.ratio) > 0

    uphill = one(updaters.newton(adapt_damping=False), lambda x: jnp.cos(x), 0.5)  # H < 0: −g/H climbs
    assert float(uphill[0]) == 0
    assert float(uphill[1].step_length) == 0
    assert bool(uphill[1].finite)


def test_damping_follows_the_ratio():
    path, state = run(updaters.newton(damping=1.0), rosenbrock, [0.9, 0.8], 40)
    damping = np.asarray(state.damping)
    assert damping[0] == 1.0
    assert damping[-1] < 1e-3
    np.testing.assert_allclose(path[-1], 1.0, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_is_computed_in_float32(dtype):
    with jax.enable_x64(False):
        start = jnp.array([2.0, -1.0], dtype)
        path, state = run(
            updaters.newton(), lambda p: jnp.sum((p - 0.5) ** 2 * jnp.array([1.0, 50.0], p.dtype)), start, 3
        )
        assert path.dtype == dtype
        assert state.damping.dtype == jnp.float32
        np.testing.assert_allclose(path[-1].astype(float), 0.5, atol=float(jnp.finfo(dtype).eps))


def test_a_batch_of_models_and_the_optimum():
    starts = jnp.array([[-1.2, 1.0], [1.0, 1.0], [0.0, 2.0]])  # the second is the optimum
    updater = updaters.newton()

    def first(start):
        return updater.update(jax.grad(rosenbrock)(start), updater.init(start), start, value_fn=rosenbrock)

    updates, states = jax.jit(jax.vmap(first))(starts)
    for i in (0, 1):
        update, state = one(updater, rosenbrock, starts[i])
        np.testing.assert_allclose(updates[i], update, rtol=1e-9)
        assert int(state.systems) == int(states.systems[i])
    np.testing.assert_array_equal(updates[1], 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: updaters.newton(curvature="fisher"), "newton: curvature must be one of 'hessian', 'ggn'"),
        (
            lambda: updaters.newton(curvature="saddle_free", solver="cg"),
            "newton: saddle_free needs eigenvalues",
        ),
        (lambda: updaters.newton(damping=-1.0), "newton: damping must be at least 0, got -1.0."),
        (
            lambda: one(updaters.newton(curvature="ggn"), saddle, [1.0, 1.0]),
            "newton: curvature='ggn' needs product",
        ),
        (lambda: one(updaters.newton(), None, [1.0, 1.0], grads=jnp.ones(2)), "newton: value_fn is needed"),
        (
            lambda: one(updaters.newton(**PLAIN), None, [1.0, 1.0], grads=jnp.ones(2)),
            "newton: value_fn or product is needed",
        ),
        (lambda: updaters.newton().update(jnp.ones(2), None), "newton: params are needed, got None"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
