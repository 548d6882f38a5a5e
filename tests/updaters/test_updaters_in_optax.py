"""The updaters meet optax's own standards: structure, dtype, schedules, composition, corner cases."""

import inspect
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from updater_cases import FIRST_ORDER, RULES, rosenbrock, step_of

import fnnets as fn
from fnnets import updaters

# ---------------------------------------------------------------- what optax expects of an updater


def parabola(p):
    return jnp.sum((p - jnp.array([1.0, -1.0, 1.0], p.dtype)) ** 2)


@pytest.mark.quick
@pytest.mark.parametrize("name", RULES)
def test_it_converges_and_compiles_once(name):
    updater, traces = RULES[name].make(), []
    for loss, start, end in (
        (parabola, [-1.0, 10.0, 1.0], [1.0, -1.0, 1.0]),
        (rosenbrock, [0.0, 0.0], [1.0, 1.0]),
    ):
        params = jnp.array(start)
        state = updater.init(params)
        step = step_of(updater, loss, traces)
        traces.clear()
        for _ in range(3):
            params, state = step(params, state)
        assert len(traces) == 1
        steps = 30 if RULES[name].order == 2 else 10_000
        params, state = jax.jit(
            lambda p, s, step=step, steps=steps: jax.lax.fori_loop(0, steps, lambda _, c: step(*c), (p, s))
        )(params, state)
        np.testing.assert_allclose(params, end, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_structure_and_dtype_stay(dtype):
    with jax.enable_x64(dtype == "float64"):
        start = {"w": jnp.array([-1.0, 2.0], dtype), "none": None, "b": (jnp.array(1.0, dtype),)}

        def loss(p):
            return jnp.sum(p["w"] ** 2) + p["b"][0] ** 2

        def step(updater, params, state):
            grads = jax.grad(loss)(params)
            updates, state = jax.lax.cond(  # both branches need the same structure and dtype
                params["w"][0] < 0,
                lambda: updater.update(grads, state, params, value_fn=loss),
                lambda: (grads, state),
            )
            return updates, state, optax.apply_updates(params, updates)

        second_order = {"float16": ["newton cg"], "float32": ["newton"], "float64": ["newton saddle_free"]}
        rules = {name: RULES[name].make() for name in FIRST_ORDER + second_order.get(dtype, [])}
        states = jax.jit(lambda: {name: rule.init(start) for name, rule in rules.items()})()
        one_each = jax.jit(
            lambda params, states: {name: step(rules[name], params[name], states[name]) for name in rules}
        )
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), states)
        params = dict.fromkeys(rules, start)
        for _ in range(2):
            taken = one_each(params, states)
            updates, states, params = ({name: each[i] for name, each in taken.items()} for i in range(3))
            assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), states) == shapes
            for name in rules:
                assert jax.tree.structure(updates[name]) == jax.tree.structure(start)
                assert {leaf.dtype for leaf in jax.tree.leaves((updates[name], params[name]))} == {
                    jnp.dtype(dtype)
                }
                assert float(loss(params[name])) <= 6, name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_low_precision_follows_float32(name, dtype):
    """Gradients of 1e-4, whose squares underflow in float16, give the steps of float32."""
    updater = RULES[name].make()
    paths = []
    for kind in (dtype, "float32"):
        state, total = updater.init(jnp.zeros(2, kind)), jnp.zeros(2)
        for scale in (1.0, -0.5, 2.0):
            grads = jnp.array([1e-4, 2.0], dtype) * jnp.asarray(scale, dtype)
            updates, state = updater.update(grads.astype(kind), state, jnp.zeros(2, kind))
            assert updates.dtype == kind
            total += updates
        paths.append(total)
    np.testing.assert_allclose(*paths, rtol=3 * float(jnp.finfo(dtype).eps), atol=1e-7)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_schedules_and_extra_arguments(name):
    case = RULES[name]
    constant, rate = case.make(), case.settings["learning_rate"]
    scheduled = case.make(learning_rate=optax.constant_schedule(rate))
    params = jnp.array([1.0, 2.0])
    one, _ = constant.update(params, constant.init(params), params)
    two, _ = scheduled.update(params, scheduled.init(params), params, value=1.0, unknown=2)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    frozen = case.make(learning_rate=lambda count: 0.1 * count)
    first, _ = frozen.update(params, frozen.init(params), params)
    np.testing.assert_array_equal(first, 0.0)  # the first step's count is 0


# ---------------------------------------------------------------- composing

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.7])}


def bowl(p):
    p = {key: PARAMS[key] if isinstance(leaf, optax.MaskedNode) else leaf for key, leaf in p.items()}
    return jnp.sum(p["w"] ** 2) + 2 * jnp.sum(p["b"] ** 2) + jnp.sum(p["w"] @ p["b"])


COMPOSED = [*FIRST_ORDER, "newton cg"]


def first_updates(wrap, loss=bowl, steps=1):
    """The last of `steps` updates at the same params, for every wrapped updater, in one jit."""

    def one(updater):
        state = updater.init(PARAMS)
        for _ in range(steps):
            updates, state = updater.update(jax.grad(loss)(PARAMS), state, PARAMS, value_fn=loss)
        return updates

    return jax.jit(lambda: {name: one(wrap(name)) for name in COMPOSED})()


@pytest.fixture(scope="module")
def alone():
    return first_updates(lambda name: RULES[name].make())


def assert_close(one, two):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, two)


def assert_zero(tree):
    assert_close(tree, jax.tree.map(jnp.zeros_like, tree))


def test_chain(alone):
    doubled = first_updates(lambda name: optax.chain(RULES[name].make(), optax.scale(2.0)))
    assert_close(doubled, jax.tree.map(lambda u: 2 * u, alone))


def test_masked_freeze_and_multi_transform():
    grads = jax.grad(bowl)(PARAMS)
    masked = first_updates(lambda name: optax.masked(RULES[name].make(), {"w": True, "b": False}))
    frozen = first_updates(lambda name: fn.freeze(RULES[name].make(), {"w": False, "b": True}))
    split = first_updates(
        lambda name: optax.multi_transform(
            {"ours": RULES[name].make(), "sgd": optax.sgd(0.1)}, {"w": "ours", "b": "sgd"}
        )
    )
    for name in COMPOSED:
        assert_close(masked[name]["b"], grads["b"])  # optax.masked passes b through
        assert_zero(frozen[name]["b"])
        assert_close(masked[name]["w"], frozen[name]["w"])
        assert_close(split[name], {"w": frozen[name]["w"], "b": -0.1 * grads["b"]})


def test_inject_hyperparams(alone):
    injected = {
        name: optax.inject_hyperparams(RULES[name].factory)(**RULES[name].settings) for name in COMPOSED
    }
    assert_close(first_updates(injected.get), alone)
    for name in FIRST_ORDER:
        state = injected[name].init(PARAMS)
        state.hyperparams["learning_rate"] *= 0
        assert_zero(injected[name].update(PARAMS, state, PARAMS)[0])


def test_multi_steps(alone):
    assert_zero(first_updates(lambda name: optax.MultiSteps(RULES[name].make(), 2)))
    assert_close(first_updates(lambda name: optax.MultiSteps(RULES[name].make(), 2), steps=2), alone)


def test_apply_if_finite(alone):
    assert_close(first_updates(lambda name: optax.apply_if_finite(RULES[name].make(), 3)), alone)
    assert_zero(
        first_updates(
            lambda name: optax.apply_if_finite(RULES[name].make(), 3), loss=lambda p: bowl(p) * jnp.nan
        )
    )


@pytest.mark.parametrize("name", [*FIRST_ORDER, "newton cg"])
def test_vmap_scan_and_donation(name):
    """Three models in one vmapped scan end where each ends alone, in a Python loop with donated buffers."""
    updater = RULES[name].make()
    starts = jnp.array([[0.1, 0.2], [-0.5, 0.5], [1.5, 1.0]])

    def run(start):
        def step(carry, _):
            params, state = carry
            updates, state = updater.update(jax.grad(rosenbrock)(params), state, params, value_fn=rosenbrock)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (start, updater.init(start)), length=4)[0][0]

    together = jax.jit(jax.vmap(run))(starts)
    step = jax.jit(step_of(updater, rosenbrock), donate_argnums=(0, 1))
    for start, end in zip(starts, together, strict=True):
        params, state = start + 0, updater.init(start)
        for _ in range(4):
            before, old = params, state
            params, state = step(params, state)
            assert before.is_deleted()
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old) if leaf.shape == (2,))
        np.testing.assert_allclose(params, end, rtol=1e-4, atol=1e-5)


SHARDED = """
import warnings; warnings.simplefilter("error")
import jax, jax.numpy as jnp, numpy as np, optax, fnnets as fn
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
spread = NamedSharding(mesh, PartitionSpec("d"))
whole = jnp.arange(8.0) + 1
loss = lambda p: jnp.sum(p**4)
for updater in (fn.updaters.adam(0.1), fn.updaters.newton(solver="cg")):
    ends = []
    for start in (whole, jax.device_put(whole, spread)):
        params, state = start, updater.init(start)
        step = jax.jit(lambda p, s: updater.update(jax.grad(loss)(p), s, p, value_fn=loss))
        for _ in range(2):
            updates, state = step(params, state)
            params = optax.apply_updates(params, updates)
        ends.append(params)
    assert params.sharding.is_equivalent_to(spread, 1), params.sharding
    assert all(leaf.sharding.is_equivalent_to(spread, 1) for leaf in jax.tree.leaves(state) if leaf.shape == (8,))
    np.testing.assert_allclose(*ends, rtol=1e-3)
print("sharded")
"""


def test_sharded_params_stay_sharded():
    flags = "--xla_force_host_platform_device_count=4"
    environment = {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(pathlib.Path(fn.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "sharded", done.stderr


# ---------------------------------------------------------------- corner cases


def test_a_zero_gradient_gives_a_zero_update():
    """Even with ε = 0, where the rule is 0/0."""
    rows = [case for case in RULES.values() if "eps" in inspect.signature(case.factory).parameters]
    zero = {"adagrad": {"initial_accumulator": 0.0}}
    for updater in (
        *[case.make(eps=0.0, **zero.get(case.name, {})) for case in rows],
        updaters.adam(1.0, eps=0.0, eps_place="uncorrected"),
    ):
        update, state = updater.update(jnp.zeros(3), updater.init(jnp.zeros(3)), jnp.zeros(3))
        np.testing.assert_array_equal(update, 0.0)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state))


def test_a_constant_gradient_has_no_negative_variance():
    updater = updaters.rmsprop(0.1, eps=1e-30, eps_place="outside", centered=True)
    state = updater.init(jnp.zeros(3))
    for _ in range(300):
        update, state = updater.update(jnp.array([0.1, 1 / 3, 1e3]), state)
    assert bool(jnp.isfinite(update).all())


def test_the_first_step_of_adam_has_all_its_digits():
    """The first |Δ| is η for any g; with 1 − 0.999 rounded to float32 it would be 2e-5 too small."""
    updater = updaters.adam(1.0, eps=0.0)
    update, _ = updater.update(jnp.array([1e-3, 7.0]), updater.init(jnp.zeros(2)))
    np.testing.assert_allclose(update, -1.0, rtol=5e-7)


def test_decay_reaches_only_the_masked_leaves():
    params = (fn.Dense(jnp.ones((2, 2)), jnp.ones(2)), fn.Dense(jnp.ones((2, 2)), jnp.ones(2)))
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask, expected in (
        (None, (1, 1, 1, 1)),
        (fn.kernels, (1, 0, 1, 0)),
        ((True, False), (1, 1, 0, 0)),
    ):
        updater = updaters.adamw(0.5, weight_decay=0.1, mask=mask)
        updates, _ = updater.update(zeros, updater.init(params), params)
        decayed = [float(-20 * leaf.mean()) for leaf in jax.tree.leaves(updates)]
        np.testing.assert_allclose(decayed, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: updaters.sgd(-0.1), "sgd: learning_rate must be at least 0, got -0.1."),
        (lambda: updaters.momentum(0.1, 1.0), "momentum: rho must be at least 0 and below 1, got 1.0."),
        (
            lambda: updaters.nesterov(0.1, rate_place="in"),
            "nesterov: rate_place must be one of 'inside', 'outside'",
        ),
        (
            lambda: updaters.adam(0.1, eps_place="root"),
            "adam: eps_place must be one of 'outside', 'uncorrected'",
        ),
        (lambda: updaters.rmsprop(0.1, eps=-1.0), "rmsprop: eps must be at least 0, got -1.0."),
        (
            lambda: updaters.adamw(0.1).update(PARAMS, updaters.adamw(0.1).init(PARAMS)),
            "adamw: params are needed",
        ),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
