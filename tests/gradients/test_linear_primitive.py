"""The derivative by hand inside JAX's transformations: what runs, what it costs, and the fallbacks."""

import subprocess
import sys
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets.gradients import custom_derivatives, linear_primitive

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
XS = jnp.stack([X, 2 * X, -X])
NET = fn.serial(fn.dense(3), fn.tanh(), fn.dense(2))
PARAMS = NET.init(KEY, X)


@pytest.mark.quick
def test_jax_has_the_names_that_forward_mode_needs():
    assert not linear_primitive.MISSING, (
        f"jax {jax.__version__} has moved or removed a name that fnnets/gradients/linear_primitive.py needs: "
        f"{linear_primitive.MISSING}. Until this is fixed, by_hand falls back to jax.custom_vjp, without forward mode."
    )


def test_without_these_names_by_hand_warns_once_and_keeps_reverse_mode(monkeypatch):
    monkeypatch.setattr(linear_primitive, "MISSING", "module 'jax' has no attribute 'x'")
    custom_derivatives._warn_of_missing_names.cache_clear()
    with pytest.warns(UserWarning, match="no attribute 'x'.*reverse mode only") as warned:
        net = fn.by_hand(NET)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fn.by_hand(NET)
    energy = lambda net: lambda params: (net.apply(params, X) ** 2).sum()
    chex.assert_trees_all_close(jax.grad(energy(net))(PARAMS), jax.grad(energy(NET))(PARAMS), rtol=1e-5)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(energy(net), (PARAMS,), (PARAMS,))
    custom_derivatives._warn_of_missing_names.cache_clear()


# ---------------------------------------------------------------- what runs


def total(net):
    return lambda params, x=X: jnp.sum(net.apply(params, x) ** 2)


def over_scan(net):
    step = lambda params: lambda sofar, x: (sofar + total(net)(params, x), None)
    return lambda params: jax.lax.scan(step(params), 0.0, XS)[0]


def over_vmap(net):
    return lambda params: jax.vmap(total(net), (None, 0))(params, XS).sum()


TRACES = {  # how often the backward is traced, and so appears in the program
    "grad": (1, lambda net: jax.grad(total(net))),
    "grad of jit": (1, lambda net: jax.grad(jax.jit(total(net)))),
    "vjp": (1, lambda net: lambda params: jax.vjp(lambda p: net.apply(p, X), params)[1](jnp.ones((4, 2)))),
    "jacrev": (1, lambda net: jax.jacrev(total(net))),
    "grad of scan": (1, lambda net: jax.grad(over_scan(net))),
    "grad of checkpoint": (1, lambda net: jax.grad(jax.checkpoint(total(net)))),
    "grad of vmap, shared params": (1, lambda net: jax.grad(over_vmap(net))),
    "vmap of grad": (1, lambda net: lambda p: jax.vmap(jax.grad(total(net)), (None, 0))(p, XS)),
    "hessian-vector product": (1, lambda net: lambda p: jax.jvp(jax.grad(total(net)), (p,), (p,))),
    "value": (0, total),
    "jvp": (0, lambda net: lambda params: jax.jvp(total(net), (params,), (params,))),
    "jacfwd": (0, lambda net: jax.jacfwd(total(net))),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", TRACES)
def test_reverse_mode_runs_the_backward_once_and_forward_mode_never(name):
    traces, transformed = TRACES[name]
    calls = []
    counted = toys.with_backward(NET, lambda dparams, dx: (calls.append(1), (dparams, dx))[1])
    run = jax.jit(transformed(fn.by_hand(counted)))
    for scale in (1.0, 2.0):
        run(jax.tree.map(lambda leaf, scale=scale: scale * leaf, PARAMS))
    assert len(calls) == traces


def test_the_backward_defines_the_gradient_in_every_transformation():
    double = toys.with_backward(NET, lambda dparams, dx: jax.tree.map(lambda leaf: 2 * leaf, (dparams, dx)))
    for name in ("grad", "vjp", "grad of scan", "grad of checkpoint", "grad of vmap, shared params"):
        wrong, right = (
            jax.jit(TRACES[name][1](net))(PARAMS) for net in (fn.by_hand(double), fn.by_hand(NET))
        )
        chex.assert_trees_all_close(wrong, jax.tree.map(lambda leaf: 2 * leaf, right), rtol=1e-5)


# ---------------------------------------------------------------- what it costs

IMAGE = jnp.ones((2, 8, 8, 2))
WORDS = jnp.ones((4, 9, 3))
BUDGETED = {
    "dense": (fn.serial(fn.dense(16), fn.relu(), fn.dropout(0.2), fn.dense(4)), jnp.ones((8, 12))),
    "lstm": (fn.serial(fn.lstm(8), fn.last(), fn.dense(3)), WORDS),
    "conv": (
        fn.serial(fn.conv(3, 3), fn.batch_norm(), fn.relu(), fn.max_pool(2), fn.flatten(3), fn.dense(4)),
        IMAGE,
    ),
}


def cost(function, *given):
    """Flops, bytes accessed and temporary memory of the compiled program."""
    program = jax.jit(function).lower(*given).compile()
    analysis = program.cost_analysis()
    memory = program.memory_analysis().temp_size_in_bytes
    return np.array([analysis["flops"], analysis["bytes accessed"], memory])


@pytest.mark.parametrize("name", BUDGETED)
def test_a_training_step_costs_the_same_as_with_custom_vjp(name):
    net, x = BUDGETED[name]
    params, key = net.init(KEY, x), jax.random.key(1)

    def step(of):
        def loss(params):
            y, _, saved = of(net, True).forward(params, x, None, key, None)
            return jnp.sum(y**2), saved

        return lambda params: jax.value_and_grad(loss, has_aux=True)(params)

    ours, theirs = (
        cost(step(of), params) for of in (custom_derivatives.every_mode, custom_derivatives.reverse_only)
    )
    assert ours[0] == theirs[0]
    assert (ours[1:] <= theirs[1:]).all(), (ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


SHARED = [
    (fn.dense(300), jnp.ones((2, 300))),
    (fn.embedding(2000, 16), jnp.ones(3, int)),
    (fn.lstm(60), jnp.ones((3, 60))),
]


@pytest.mark.parametrize(("net", "x"), SHARED, ids=[repr(net) for net, _ in SHARED])
def test_gradients_of_shared_params_are_summed_inside_the_backward(net, x):
    """A hundred examples under vmap take little more temporary memory than autodiff, far less than a hundred params."""
    examples = 100
    params, xs = net.init(KEY, x), jnp.stack([x] * examples)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))

    def memory(net):
        together = lambda params, xs: jax.vmap(lambda x: jnp.sum(net.apply(params, x) ** 2))(xs).sum()
        return cost(jax.grad(together), params, xs)[2]

    ours, plain = memory(fn.by_hand(net)), memory(net)
    assert ours <= 1.1 * plain
    assert ours < 0.2 * examples * size


def in_a_loop(dy):
    return jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, 2 * s[1]), (0, dy))[1]


def by_a_branch(dy):
    return 2 * jax.lax.cond(dy.sum() > 0, lambda: dy, lambda: 1.0 * dy)


def by_its_size(dy):
    return 2 * dy / jnp.maximum(1, jnp.abs(dy).max())


@pytest.mark.parametrize("twice", [in_a_loop, by_a_branch, by_its_size])
def test_gradients_of_a_backward_that_jax_cannot_transpose_are_summed_outside(twice):
    """JAX raises a different error for each of these."""
    calls = []

    def backward(a, x, dy):
        calls.append(1)
        dy = twice(dy)
        return (dy * x).sum(0), dy * a

    net = fn.by_hand(
        fn.layer(lambda key, x: x[0], lambda a, x: 2 * a * x, lambda a, x: (2 * a * x, x), backward)
    )
    together = lambda a: jax.vmap(lambda x: net.apply(a, x).sum())(XS).sum()
    np.testing.assert_allclose(jax.grad(together)(X[0]), 2 * XS.sum((0, 1)), rtol=1e-5)
    assert len(calls) == 1, "one trace serves both the check and the gradient"


def test_an_error_in_the_backward_is_raised_when_examples_share_the_params():
    calls = []

    def backward(params, saved, dy):
        calls.append(1)
        raise NotImplementedError("a derivation is missing")

    net = fn.by_hand(fn.layer(lambda key, x: x[0], lambda a, x: a * x, lambda a, x: (a * x, x), backward))
    together = lambda a: jax.vmap(lambda x: net.apply(a, x).sum())(XS).sum()
    with pytest.raises(NotImplementedError, match="a derivation is missing"):
        jax.grad(together)(X[0])
    assert len(calls) == 1, "the backward does not run again after the error"


# ---------------------------------------------------------------- dtypes, and inputs without a tangent


def test_dtypes_are_those_of_the_plain_layer():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    point = (params, X)
    for transformed in (
        lambda net: jax.eval_shape(jax.grad(total(net), argnums=(0, 1)), *point),
        lambda net: jax.eval_shape(lambda *point: jax.jvp(total(net), point, point), *point),
        lambda net: jax.eval_shape(lambda xs: jax.grad(over_vmap(net))(params), XS),
    ):
        chex.assert_trees_all_equal_shapes_and_dtypes(transformed(fn.by_hand(NET)), transformed(NET))


@pytest.mark.quick
def test_only_differentiated_inputs_have_a_tangent(x64):
    net = fn.serial(fn.embedding(4, 3), fn.dropout(0.5), toys.integrator(), fn.dense(2))
    ids, mask = jnp.array([[1, 2, 0]]), jnp.array([[True, True, False]])
    params, mode = net.init(KEY, ids), {"key": KEY, "train": True, "mask": mask}
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)
    carry = (None, None, jnp.full((1, 3), 0.2), None)
    direction = jax.tree.map(jnp.cos, (params, carry))

    def of(net):
        run = lambda params, carry: net.forward(params, ids, carry, **mode)[:2]
        frozen = lambda w: run((*params[:3], params[3]._replace(w=w)), carry)[0].sum()
        each = lambda ids: net.apply(params, ids, key=KEY, train=True).sum()
        stacked = jnp.stack([ids, 3 - ids])
        return (
            jax.jvp(run, (params, carry), direction),
            jax.jvp(lambda carry: run(params, carry), (carry,), (direction[1],)),
            jax.grad(frozen)(params[3].w),
            jax.jacfwd(frozen)(params[3].w),
            jax.grad(lambda params: jax.vmap(lambda ids: run_ids(net, params, ids))(stacked).sum())(params),
            jax.jvp(each, (ids,), (np.zeros(ids.shape, jax.dtypes.float0),)),
        )

    def run_ids(net, params, ids):
        return net.apply(params, ids, key=KEY, train=True).sum()

    chex.assert_trees_all_close(*(jax.jit(of, static_argnums=0)(each) for each in (fn.by_hand(net), net)))


def test_moving_statistics_are_constants_to_every_derivative(x64):
    net = fn.serial(fn.batch_norm(), toys.centred())
    params = jax.tree.map(lambda leaf: leaf.astype(float) + 0.5, net.init(KEY, X))
    energy = total(fn.by_hand(net))
    x = X.astype(float)
    v = jax.tree.map(jnp.ones_like, params)
    first = jax.jit(jax.grad(energy))(params, x)
    second = jax.jit(lambda params: jax.jvp(jax.grad(energy), (params, x), (v, x))[1])(params)
    expected = jax.jit(lambda params: jax.jvp(jax.grad(total(net)), (params, x), (v, x))[1])(params)
    chex.assert_trees_all_close(second, expected, rtol=1e-10, atol=1e-10)
    assert not any(leaf.any() for leaf in jax.tree.leaves((first[0].stats, second[0].stats, second[1].stats)))


@pytest.mark.quick
def test_by_hand_inside_by_hand_and_third_derivatives(x64):
    """Second derivatives pass through the saved of the inner layers; third derivatives do so twice."""
    block = fn.serial(fn.dense(3), fn.sigmoid())
    net = fn.serial(block, fn.stack(block, 2), fn.tanh())
    nested = fn.serial(fn.by_hand(block), fn.stack(fn.by_hand(block), 2), fn.tanh())
    params = jax.tree.map(lambda leaf: leaf.astype(float), net.init(KEY, X))
    x, loss, v = X.astype(float), fn.losses.mse(), jax.tree.map(jnp.cos, params)

    def of(net, gradient):
        along = lambda s: total(net)(params, s * x)
        return (
            jax.jvp(gradient(net), (params,), (v,)),
            jax.jacfwd(jax.hessian(along))(1.3),
            jax.grad(jax.grad(jax.grad(along)))(1.3),
        )

    def plain(net):
        return jax.grad(lambda params: loss.apply(net.apply(params, x), jnp.zeros((4, 3))))

    def no_autodiff(net):
        return lambda params: fn.value_and_grad_by_hand(net, loss)(params, x, jnp.zeros((4, 3)))[1]

    expected = jax.jit(lambda: of(net, plain))()
    for each, gradient in ((fn.by_hand(nested), plain), (nested, plain), (nested, no_autodiff)):
        chex.assert_trees_all_close(jax.jit(lambda e=each, g=gradient: of(e, g))(), expected, rtol=1e-9)


# ---------------------------------------------------------------- kinks

ZEROS = jnp.array(
    [[0.0, 1.0, -1.0, 0.0], [3.0, -3.0, 0.0, 2.0]]
)  # the kinks of the rectifiers and of hard_sigmoid
KINKS = [
    *[(make(), ZEROS) for make in (fn.relu, fn.elu, fn.hard_sigmoid, fn.prelu)],
    (fn.max_pool(3, strides=1), jnp.zeros((1, 4, 4, 1))),
    (fn.global_max_pool(), jnp.zeros((1, 2, 2, 1))),
    (fn.max_over_time(), jnp.zeros((1, 3, 2))),
]


@pytest.mark.parametrize(("layer", "x"), KINKS, ids=[repr(layer) for layer, _ in KINKS])
def test_second_derivatives_at_kinks_and_ties_equal_autodiff(x64, layer, x):
    """relu″(0) = 0, and the shares of tied maxima have derivative 0, as in the plain equations."""
    x = x.astype(float)
    params = layer.init(KEY, x)

    @jax.jit
    def derivatives(x):
        def of(net):
            def energy(x):
                y = net.apply(params, x).ravel()
                return jnp.sum(jnp.cos(jnp.arange(y.size)) * (y + y**2))

            return (
                jax.grad(energy)(x),
                jax.jacfwd(energy)(x),
                jax.hessian(energy)(x),
                jax.jacrev(jax.grad(energy))(x),
            )

        return of(fn.by_hand(layer)), of(layer)

    chex.assert_trees_all_close(*derivatives(x), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- several devices

DEVICES = """
import functools, jax, jax.numpy as jnp, numpy as np, fnnets as fn
from jax.sharding import AxisType, PartitionSpec as P

mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
net = fn.serial(fn.dense(3), fn.batch_norm(axis_name="d"), fn.tanh(), fn.dropout(0.4))
alone = fn.serial(fn.dense(3), fn.batch_norm(), fn.tanh(), fn.dropout(0.4))
x = jax.random.normal(jax.random.key(1), (4, 3))
params = jax.tree.map(lambda leaf: leaf + 0.1, alone.init(jax.random.key(0), x))
v = jax.tree.map(jnp.cos, (params, x))

def results(net):
    def loss(params, x):
        y = net.apply(params, x, key=jax.random.key(3), train=True)
        return jax.lax.psum(jnp.sum(y ** 2 * jnp.cos(x)), "d")

    total = jax.shard_map(loss, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())
    gradient = jax.grad(total, argnums=(0, 1))
    return jax.jvp(total, (params, x), v), jax.jvp(gradient, (params, x), v)

hand, plain = (jax.jit(functools.partial(results, each))() for each in (fn.by_hand(net), net))
for ours, theirs in zip(jax.tree.leaves(hand), jax.tree.leaves(plain), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
print(len(jax.tree.leaves(hand)), "agree")
"""


def test_two_devices_with_shared_statistics(tmp_path):
    """`shard_map` with JAX's check of varying axes: psum inside, the same params and key on every device."""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    environment = {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": ":".join(sys.path),
    }
    run = subprocess.run(
        [sys.executable, "-c", DEVICES],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.endswith("agree\n")


def test_named_axes_of_vmap(x64):
    net = fn.serial(fn.dense(3), fn.batch_norm(axis_name="i"), fn.tanh())
    xs = XS.astype(float)
    params = jax.tree.map(
        lambda leaf: leaf.astype(float), fn.serial(fn.dense(3), fn.batch_norm(), fn.tanh()).init(KEY, X)
    )
    v = jax.tree.map(jnp.cos, params)

    @jax.jit
    def both(params):
        def of(net):
            one = lambda params, x: jnp.sum(net.apply(params, x, train=True) ** 2 * jnp.cos(x[:, :3]))
            together = lambda params: jax.vmap(one, (None, 0), axis_name="i")(params, xs).sum()
            return (
                jax.grad(together)(params),
                jax.jvp(jax.grad(together), (params,), (v,)),
                jax.jvp(together, (params,), (v,)),
            )

        return of(fn.by_hand(net)), of(net)

    chex.assert_trees_all_close(*both(params), rtol=1e-9, atol=1e-11)
