"""Values that are not finite are planted, and located."""

import functools
import itertools

import catalogue_rows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue
from fnnets.insight import non_finite

T = 5
HUGE = float(np.finfo(np.float32).max)
MSE = fn.losses.mse()


def pointwise(name, f, slope):
    return fn.layer(
        lambda key, x: (), lambda _, x: f(x), lambda _, x: (f(x), x),
        lambda _, x, dy: ((), dy * slope(x)), name=name,
    )  # fmt: skip


LOG = pointwise("log", jnp.log, lambda x: 1 / x)
EXP = pointwise("exp", jnp.exp, jnp.exp)
ROOT = pointwise("root", jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x))


def find(net, params, x, target=None, loss=None, **settings):
    """Locates as a training step does: inside jit, decoded outside."""
    train = settings.pop("train", False)
    run = jax.jit(lambda *given, **more: fn.locate_nan(net, *given, loss, train=train, **more))
    return run(params, x, target, **settings)


def started(net, x):
    """Params that are the same in every version of jax."""
    return jax.tree.map(np.float32, catalogue.random_params(net, np.random.default_rng(1), x))


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def log_of_a_negative():
    net, x = fn.serial(fn.dense(2), LOG, fn.dense(1)), jnp.ones((3, 2)).at[1, 0].set(-4.0)
    return net, (fn.Dense(jnp.eye(2), None), (), started(fn.dense(1), x)), x, {}


def a_gate(memory="all"):
    """h is 0 up to step 1 and almost 1 after step 2; then h·u_n overflows, and the reset gate of 0 makes it NaN."""
    net, x = fn.gru(2, memory=memory), jnp.zeros((2, T, 1)).at[1, 2].set(30.0)
    w, b = (jnp.array([row]).repeat(2, -1) for row in ([0.0, -1.0, 1.0], [-200.0, 0.0, 0.0]))
    u = jnp.zeros((2, 6)).at[:, 4:].set(HUGE)
    return net, fn.GRU(w, u, b[0], jnp.zeros(2)), x, {}


def a_projection():
    """The input gate's projection overflows; the gate itself is 1, and everything after it is finite."""
    net, x = fn.lstm(2, use_bias=False), jnp.zeros((2, T, 1)).at[0, 3].set(HUGE)
    w = jnp.array([[0.5, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    return net, fn.LSTM(w, jnp.zeros((2, 8)), None, None), x, {}


def a_state():
    """h grows by 300 in each step; float16 ends at 65504."""
    net, x = fn.serial(fn.elman(1, fn.identity(), use_bias=False)), jnp.zeros((1, T, 1), jnp.float16)
    params = fn.Elman(*(jnp.full((1, 1), value, jnp.float16) for value in (1, 300)), None)
    return net, (params,), x.at[0, 1].set(1), {}


def a_weight():
    net, params, x, _ = log_of_a_negative()
    return net, (params[0]._replace(w=params[0].w.at[1, 0].set(jnp.nan)), *params[1:]), x, {}


def an_exponential():
    net, x = fn.serial(fn.identity(), EXP), jnp.array([[1.0, 2.0], [11.0, 12.0]], jnp.float16)
    return net, ((), ()), x, {}


def a_copy():
    """Each copy takes the logarithm of its bias; the second's is negative."""
    block = fn.serial(fn.dense(2), LOG)
    net, x = fn.serial(fn.dense(2), fn.stack(block, 3)), jnp.ones((2, 2))
    b = jnp.array([[2.0, 2.0], [2.0, -1.0], [-1.0, -1.0]])
    return net, (started(fn.dense(2), x), (fn.Dense(jnp.zeros((3, 2, 2)), b), ())), x, {}


def from_the_end():
    net, x = fn.bidirectional(fn.elman(1, fn.relu(), use_bias=False)), jnp.ones((2, T, 1))
    calm, wild = (fn.Elman(jnp.ones((1, 1)), jnp.full((1, 1), u), None) for u in (0.5, 1e20))
    return net, (calm, wild), x, {}


def a_tree():
    """h grows by the factor u at every node above; the second tree is higher."""
    net = fn.serial(fn.nodes(fn.embedding(5, 2)), fn.recursive(2, fn.relu()), fn.last())
    trees = fn.pad_trees([(1, 2), ((1, 2), 3)])
    params = started(net, trees.x)
    grown = params[1]._replace(u=jnp.full_like(params[1].u, 1e20), w=0 * params[1].w, b=jnp.ones(2))
    return net, (params[0], grown, ()), trees.x, {"mask": trees.mask}


def a_residual_net(last=ROOT):
    body = fn.serial(fn.conv(2, (2, 2)), fn.batch_norm(), fn.relu(), last)
    net = fn.serial(fn.residual(body), fn.global_avg_pool(), fn.dense(1))
    x = normal(2, 3, 3, 2)
    return net, started(net, x), x, {"target": jnp.ones((2, 1)), "loss": MSE, "train": True}


def a_root_at_zero():
    net, x = fn.serial(fn.identity(), ROOT), jnp.ones((3, 2)).at[2, 1].set(0.0)
    return net, ((), ()), x, {"dy": jnp.ones((3, 2))}


def a_step_back(memory="all", mask=None):
    """A cell whose backward step divides by h, which is 0 where the input is 0."""
    cell = fn.elman(2, use_bias=False).info.recurrence.cell

    def backward(params, h, saved, dh):
        dh, dz = cell.backward(params, h, saved, dh)
        return dh, dz / saved  # saved is h after the step

    broken = fn.recurrent(cell._replace(backward=backward, info="broken"), memory=memory)
    net, x = fn.serial(broken, fn.dense(1)), normal(2, T, 2).at[:, :2].set(0.0)
    return net, started(net, x), x, {"dy": jnp.ones((2, T, 1)), "mask": mask}


def a_kernels_gradient():
    wrong = toys.with_backward(
        fn.dense(2), lambda dparams, dx: (dparams._replace(w=dparams.w.at[0, 1].set(jnp.nan)), dx)
    )
    net, x = fn.serial(fn.tanh(), wrong, fn.tanh()), normal(3, 2)
    return net, started(net, x), x, {"target": x, "loss": MSE}


def a_copys_gradient():
    """Both copies take the root of 0; the backward pass reaches the second copy first."""
    block = fn.residual(fn.serial(fn.dense(2), ROOT))
    net, x = fn.stack(block, 2), jnp.zeros((2, 2))
    b = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    return net, ((fn.Dense(jnp.zeros((2, 2, 2)), b), ()),), x, {"dy": jnp.ones((2, 2))}


def a_label():
    net, x = fn.serial(fn.dense(3)), normal(2, T, 2)
    target = jnp.zeros((2, T), int).at[1, 3].set(7)
    return net, started(net, x), x, {"target": target, "loss": fn.losses.softmax_cross_entropy()}


def a_sum():
    """The loss of every example is finite, but their sum is not."""
    net, x = fn.identity(), jnp.full((4, 1), 1.5e19)
    return net, (), x, {"target": 0 * x, "loss": fn.losses.half_squared_error()}


def a_merge():
    """Both directions are finite, but their product is not."""
    net, x = fn.bidirectional(fn.dense(1), "mul"), jnp.ones((1, 2, 1)).at[0, 1].set(1e20)
    one = fn.Dense(jnp.ones((1, 1)), None)
    return net, (one, fn.Dense(jnp.full((1, 1), 1e15), None)), x, {}


def a_target():
    net, params, x, _ = log_of_a_negative()
    return net, params, x, {"target": jnp.ones((3, 1)).at[2].set(jnp.inf), "loss": MSE}


def a_carry():
    net, params, x, _ = a_projection()
    return (
        net,
        params,
        x,
        {"carry": fn.LSTMCarry(jnp.zeros((2, 2)), jnp.zeros((2, 2)).at[0, 1].set(-jnp.inf))},
    )


PLANTED = {
    log_of_a_negative: "forward: y[1, 0] of 1.log is nan",
    a_gate: "forward: n[1, 3, 0] of gru, step 3, is nan",
    a_projection: "forward: z_i[0, 3, 1] of lstm, step 3, is inf",
    a_state: "forward: h[0, 3, 0] of 0.elman, step 3, is inf",
    a_weight: "params[0].w[1, 0] is nan before anything was computed",
    an_exponential: "forward: y[1, 1] of 1.exp is inf",
    a_copy: "forward: y[1, 0, 1] of 1.stack/0.serial/1.log, copy 1, is nan",
    from_the_end: "forward: h[0, 2, 0] of 1.elman, step 2 of x, which it reads from the end, is inf",
    a_tree: "forward: y[1, 4, 0] of 1.recursive is inf",
    a_residual_net: "backward: dx[0, 0, 0, 0] of 0.residual/0.serial/3.root is",
    functools.partial(a_residual_net, LOG): "forward: y[0, 0, 0, 0] of 0.residual/0.serial/3.log is -inf",
    a_root_at_zero: "backward: dx[2, 1] of 1.root is inf",
    functools.partial(a_step_back, 2): "backward: dz[0, 1, 0] of 0.broken, step 1, is",
    a_kernels_gradient: "backward: dparams[1].w[0, 1] of 1.dense is nan",
    a_copys_gradient: "backward: dx[1, 0, 0] of 0.residual/0.serial/1.root, copy 1, is inf",
    a_label: "loss: per_example[1, 3] is nan",
    a_sum: "loss: value is inf",
    a_merge: "forward: y[0, 1, 0] of bidirectional is inf",
    a_target: "target[2, 0] is inf before anything was computed",
    a_carry: "carry.c[0, 1] is -inf before anything was computed",
}  # fmt: skip


def name_of(planted):
    function, given = getattr(planted, "func", planted), getattr(planted, "args", ())
    return " ".join([function.__name__, *(getattr(it, "__repr__", str)() for it in given)])


@pytest.mark.parametrize("planted", PLANTED, ids=name_of)
def test_a_planted_value_is_located(planted):
    net, params, x, settings = planted()
    found = find(net, params, x, **settings)
    assert found, "it is true if a value is not finite"
    says, expected = str(found), PLANTED[planted]
    assert says.startswith(expected)
    if found.direction != "input":
        assert says.endswith(", the first that is not finite")


@pytest.mark.quick
def test_a_result_has_its_parts_as_properties():
    net, params, x, _ = a_gate()
    found = fn.locate_nan(net, params, x)
    assert (found.direction, found.layer, found.quantity) == ("forward", "gru", "n")
    assert (found.step, found.copies, found.at, found.value) == (3, (), (1, 3, 0), "nan")
    calm = fn.locate_nan(net, params, x, when=False)
    assert str(calm) == "every value is finite"
    parts = (calm.direction, calm.layer, calm.quantity, calm.at, calm.copies, calm.step, calm.value)
    assert parts == (None,) * 7
    assert "table=…" in repr(calm)


def test_a_result_has_the_copy_and_the_index():
    net, params, x, _ = a_copy()
    found = fn.locate_nan(net, params, x)
    assert (found.copies, found.step, found.at) == ((1,), None, (1, 0, 1))
    log = fn.intermediates(net, params, x)[found.layer]
    assert tuple(map(int, np.argwhere(~np.isfinite(log))[0])) == found.at


def test_padding_does_not_count():
    """The padding of x and of the target is NaN, and the padding of y is log 0."""
    net = fn.serial(fn.bidirectional(fn.elman(1, fn.sigmoid())), LOG)
    mask = np.array([[True, True, False, True, False], [False] * T])
    x, target = (np.where(mask[..., None], one, np.nan) for one in (np.ones((2, T, 2)), np.ones((2, T, 2))))
    params = started(net, x)
    run = jax.jit(lambda x: fn.locate_nan(net, params, x, target, MSE, mask=mask, loss_mask=mask))
    calm = run(x)
    assert not calm, str(calm)
    x[0, 3, 1] = np.inf
    assert str(run(x)).startswith("x[0, 3, 1] is inf")


def test_a_masked_step_does_not_count():
    mask = jnp.ones((2, T), bool).at[:, 1].set(False)
    net, params, x, settings = a_step_back(mask=mask)
    found = find(net, params, x, **settings)
    assert (found.quantity, found.step) == ("dz", 0)


def test_it_works_with_time_first_and_under_vmap():
    net = fn.gru(2, time_major=True)
    _, params, x, _ = a_gate()
    found = fn.locate_nan(net, params, jnp.moveaxis(x, 1, 0))
    assert (found.step, found.at) == (3, (3, 1, 0))
    each = jax.jit(jax.vmap(lambda x: fn.locate_nan(net, params, x)))(x)
    calm, wrong = (jax.tree.map(lambda leaf, i=i: leaf[i], each) for i in range(2))
    assert (bool(calm), wrong.at) == (False, (3, 0))


@pytest.mark.quick
def test_a_training_step_searches_only_if_a_value_is_not_finite():
    net, params, x, settings = a_root_at_zero()

    def step(x):
        y, _, saved = net.forward(params, x)
        _, dx, _ = net.backward(params, saved, jnp.ones_like(y))
        return fn.locate_nan(net, params, x, when=~jnp.isfinite(dx).all(), **settings)

    compiled = jax.jit(step)
    assert not compiled(jnp.ones_like(x))
    assert str(compiled(x)).startswith("backward: dx[2, 1] of 1.root is inf")
    assert " cond[" in str(jax.make_jaxpr(step)(x))


def test_a_layer_inside_a_by_hand_network_is_located():
    net, params, x, _ = log_of_a_negative()
    found = find(fn.serial(fn.by_hand(net), fn.tanh()), (params, ()), x)
    assert found.layer == "0.serial/1.log"


def test_an_empty_batch_is_finite():
    net, empty = fn.dense(2), jnp.zeros((0, 2))
    assert not find(net, fn.Dense(jnp.ones((2, 2)), None), empty)


def test_bad_arguments_are_refused():
    net, params, x, _ = log_of_a_negative()
    for given in ({"target": x}, {"loss": MSE}, {"target": x, "loss": MSE, "dy": x}):
        with pytest.raises(TypeError, match="give a target and a loss, or dy, or none"):
            fn.locate_nan(net, params, x, **given)


def test_the_search_does_not_change_the_program():
    net, params, x, _ = a_gate()

    def gradient(params, x):
        y, _, saved = net.forward(params, x)
        return net.backward(params, saved, jnp.ones_like(y))

    before = str(jax.make_jaxpr(gradient)(params, x))
    fn.locate_nan(net, params, x, dy=jnp.ones((2, T, 2)))
    assert str(jax.make_jaxpr(gradient)(params, x)) == before


EVERYDAY = {
    "lstm, peephole", "gru, before, old", "stack, masked", "nodes of ids, recursive",
    "residual block with a projection, pool",
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.name in EVERYDAY else [pytest.mark.full])
        for case in catalogue_rows.LAYERS
    ],
)
def test_a_finite_computation_has_no_location(case):
    params, x, mode = catalogue_rows.at(case)
    y = jax.eval_shape(lambda: case.layer.forward(params, x, **mode)[0])
    found = fn.locate_nan(
        case.layer, params, x, dy=jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), y), **mode
    )
    assert not found, str(found)


def test_orders_compare_as_tuples_do():
    """The quantity of the least order is located, for every choice; an index along an axis counts as a number."""
    along = non_finite.Along(0)
    orders = [(1, 2), (1, along, 5), (1, 1, 7), (1, 1), (0, non_finite.END)]
    known = [
        (1, 2),
        (1, 1, 5),
        (1, 1, 7),
        (1, 1),
        (0, non_finite.END),
    ]  # the first value along the axis that is not finite is at 1

    def run(chosen):
        where = functools.partial(non_finite.Where, direction="forward", layer="", quantity="", shape=(3, 2))
        wrong = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        values = [jnp.where(wrong * here > 0, jnp.nan, 1.0) for here in chosen]
        return non_finite.first(
            [non_finite.Value(where(order), it) for order, it in zip(orders, values, strict=True)]
        )

    choices = np.array(list(itertools.product([0.0, 1.0], repeat=len(orders))))
    found = np.asarray(jax.jit(jax.vmap(run))(choices).code)
    for chosen, code in zip(choices, found, strict=True):
        there = [order for order, here in zip(known, chosen, strict=True) if here]
        expected = 1 + known.index(min(there, key=lambda order: (*order, 0))) if there else 0
        assert code[0] == expected
