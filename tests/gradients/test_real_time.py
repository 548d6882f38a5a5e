"""Real-time recurrent learning, against backpropagation through time."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

B, T, D = 5, 4, 2  # B and T fit the masks of the catalogue
MSE, SUM, LABELS = fn.losses.mse(), fn.losses.half_squared_error(), fn.losses.softmax_cross_entropy()
MASK = np.array(catalogue.MASKS, bool)
WHERE = MASK[::-1]  # a different mask, for the loss
NET = fn.serial(fn.lstm(2), fn.dense(2))
DEEP = fn.serial(fn.embedding(6, 3), fn.gru(2), fn.elman(3), fn.dense(3))
IDS = np.random.default_rng(5).integers(0, 6, (B, T))
ROWS = {
    "elman": (fn.elman(3), MSE, {"carry": True, "mask": MASK, "loss_mask": WHERE}),
    "lstm": (fn.lstm(2), MSE, {"carry": True, "mask": MASK}),
    "lstm, coupled": (fn.lstm(2, coupled=True), LABELS, {}),
    "lstm, peephole, coupled": (fn.lstm(2, peephole=True, coupled=True), MSE, {"mask": MASK, "carry": True}),
    "gru, before, new": (fn.gru(2, reset="before", update="new"), SUM, {}),
    "ids, deep": (DEEP, LABELS, {"x": IDS, "mask": MASK, "loss_mask": MASK}),
    "a stack": (fn.stack(fn.residual(fn.elman(2)), 2), MSE, {"carry": True}),
    "a custom layer": (toys.integrator(), MSE, {"mask": MASK, "carry": True}),
}
VARIANTS = {
    "gru": (fn.gru(2), MSE, {"mask": MASK, "loss_mask": WHERE}),
    "no batch": (NET, SUM, {"x": np.random.default_rng(6).standard_normal((T, D))}),
    "jordan": (fn.jordan(3, 2), MSE, {}),
    "lstm, peephole": (fn.lstm(2, peephole=True), SUM, {"mask": MASK}),
    "gru, before, old": (fn.gru(2, reset="before"), SUM, {}),
    "gru, after, new": (fn.gru(2, update="new", use_bias=False), MSE, {"mask": MASK}),
    "lstm, no bias": (fn.lstm(2, use_bias=False, peephole=True), MSE, {"mask": MASK}),
    "lstm, coupled, no bias": (fn.lstm(2, use_bias=False, coupled=True), MSE, {"mask": MASK}),
    "elman, relu, no bias": (fn.elman(3, fn.relu(), use_bias=False), SUM, {"carry": True}),
    "jordan, softmax": (fn.jordan(2, 3, fn.sigmoid(), fn.softmax()), SUM, {"carry": True}),
    "sqrt memory": (fn.lstm(2, memory="sqrt"), MSE, {}),
    "two batch axes": (
        NET,
        MSE,
        {"x": np.random.default_rng(6).standard_normal((2, 3, T, D)), "carry": True},
    ),
}


def drawn(net, loss, options):
    """Random (params, x, target, carry), and the masks."""
    rng = np.random.default_rng(0)
    x = options.get("x", rng.standard_normal((B, T, D)))
    params = catalogue.random_params(net, rng, x)
    y = jax.eval_shape(net.apply, params, x)
    target = (
        rng.standard_normal(y.shape) if loss is not LABELS else rng.integers(0, y.shape[-1], y.shape[:-1])
    )
    carry = catalogue.random_like(fn.zero_carry(net, params, x), rng) if options.get("carry") else None
    return params, x, target, carry, {name: options.get(name) for name in ("mask", "loss_mask")}


@pytest.mark.parametrize("name", [*ROWS, *(pytest.param(name, marks=pytest.mark.full) for name in VARIANTS)])
def test_value_and_gradient_equal_those_of_bptt(name, x64):
    net, loss, options = (ROWS | VARIANTS)[name]
    params, x, target, carry, masks = drawn(net, loss, options)

    def both(params, x, target, carry):
        (value, aux), dparams = fn.rtrl(net, loss).whole(params, x, target, carry, **masks)
        (same, full), grads = fn.value_and_grad_by_hand(net, loss)(params, x, target, carry=carry, **masks)
        return (value, aux.y, aux.carry, dparams), (same, full.y, full.carry, grads)

    ours, expected = jax.jit(both)(params, x, target, carry)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[-1]))
    assert scale > 1e-3, "the gradient is not trivial"
    chex.assert_trees_all_close(ours, expected, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.quick
def test_a_stream_step_by_step(x64):
    """`so_far` equals BPTT over the steps so far, and the losses and gradients of single steps add up to it."""
    net, loss = NET, MSE
    params, x, target, carry, _ = drawn(net, loss, {"carry": True})
    x[MASK == 0] = np.nan
    rtrl, bptt = fn.rtrl(net, loss), fn.value_and_grad_by_hand(net, loss)

    @jax.jit
    def stream(params, x, target, carry):
        def advance(state, at):
            x, target, mask, loss_mask = at
            state, ((value, _), dparams) = rtrl.step(params, state, x, target, mask=mask, loss_mask=loss_mask)
            return state, ((value, dparams), rtrl.so_far(state))

        by_step = (jnp.swapaxes(each, 0, 1) for each in (x, target, MASK, WHERE))
        state, (steps, sums) = jax.lax.scan(advance, rtrl.start(params, x[:, 0], carry), tuple(by_step))
        return steps, sums, state.carry

    @jax.jit
    def windows(params, x, target, carry):
        results = []
        for t in (2, T):
            masks = {"mask": MASK[:, :t], "loss_mask": WHERE[:, :t]}
            (value, aux), grads = bptt(params, x[:, :t], target[:, :t], carry=carry, **masks)
            results.append((value, grads))
        return results, aux.carry

    steps, sums, last = stream(params, x, target, carry)
    expected, same = windows(params, x, target, carry)
    for t, prefix in zip((2, T), expected, strict=True):
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, t=t: leaf[t - 1], sums), prefix, rtol=1e-10, atol=1e-12
        )
    chex.assert_trees_all_close(last, same, rtol=1e-10, atol=1e-12)
    weights = WHERE.sum(0) / WHERE.sum()
    mean = jax.tree.map(lambda each: jnp.tensordot(weights, each, 1), steps)
    chex.assert_trees_all_close(mean, expected[-1], rtol=1e-10, atol=1e-12)


def test_params_behind_the_carry_have_no_influence_with_by_hand():
    net, x = fn.serial(fn.elman(2), fn.dense(1)), jnp.ones((3, D))
    params = net.init(jax.random.key(0), x[:, None])
    state = jax.eval_shape(fn.rtrl(fn.by_hand(net), MSE).start, params, x)
    assert state.influence[0].u is not None
    assert state.influence[1].w is None


def test_the_influence_is_the_derivative_of_the_state(x64):
    net = fn.serial(fn.gru(2), fn.dense(1))
    params, x, target, _, _ = drawn(net, MSE, {})
    rtrl = fn.rtrl(net, MSE)

    def run(params, x, target):
        state = rtrl.start(params, x[:, 0])
        for t in range(3):
            state, _ = rtrl.step(params, state, x[:, t], target[:, t])
        return state.influence, jax.jacfwd(lambda params: net.forward(params, x[:, :3])[1][0])(params)

    influence, expected = jax.jit(run)(params, x, target)
    chex.assert_trees_all_close(influence[0], expected[0], rtol=1e-10, atol=1e-12)
    assert influence[1] == fn.Dense(None, None), "the readout is left out"
    assert not any(leaf.any() for leaf in jax.tree.leaves(expected[1]))


def program(steps):
    net = fn.serial(fn.lstm(4, peephole=True), fn.dense(2))
    shape = jax.ShapeDtypeStruct((3, steps, 2), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), shape)
    return jax.jit(fn.rtrl(net, MSE).whole).lower(params, shape, shape).compile()


@pytest.mark.quick
def test_rtrl_compiles_to_one_loop_with_constant_memory():
    short, long = program(10), program(1000)
    assert short.as_text().count(" while(") == 1, "one scan over the steps, and none inside a step"
    assert long.memory_analysis().temp_size_in_bytes <= short.memory_analysis().temp_size_in_bytes
    influence = 3 * 8 * (4 * 4 * (2 + 4 + 1) + 3 * 4)
    assert short.memory_analysis().temp_size_in_bytes >= 4 * influence, "the analysis counts the influence"


def test_rtrl_takes_a_cell_and_works_under_vmap_over_params():
    cell, x = fn.elman(2).info.recurrence.cell, jax.ShapeDtypeStruct((3, T, 2), jnp.float32)
    params = jax.eval_shape(
        lambda: jax.vmap(lambda key: fn.elman(2).init(key, x))(jax.random.split(jax.random.key(0), 7))
    )
    (value, aux), dparams = jax.eval_shape(jax.vmap(fn.rtrl(cell, MSE).whole, (0, None, None)), params, x, x)
    assert (value.shape, aux.y.shape, aux.carry.shape) == ((7,), (7, 3, T, 2), (7, 3, 2))
    chex.assert_trees_all_equal_shapes_and_dtypes(dparams, params)


def test_rtrl_keeps_the_dtypes(x64):
    x = jax.ShapeDtypeStruct((3, T, 2), jnp.bfloat16)
    params = jax.eval_shape(NET.init, jax.random.key(0), x)
    carry = jax.eval_shape(
        lambda params, x: fn.zero_carry(NET, params, x), params, x
    )  # float64, for all dtypes of the params
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float64):
        like = jax.tree.map(lambda leaf, dtype=dtype: jax.ShapeDtypeStruct(leaf.shape, dtype), params)
        (value, aux), dparams = jax.eval_shape(fn.rtrl(NET, MSE).whole, like, x, x, carry)
        assert value.dtype == jnp.promote_types(dtype, jnp.float32)
        chex.assert_trees_all_equal_dtypes(dparams, like)
        assert aux.y.dtype == dtype


def test_wrong_inputs_raise():
    x, target = jnp.ones((3, T, 2)), jnp.ones((3, T, 2))

    def run(net, loss=MSE, x=x, target=target, **masks):
        params = jax.eval_shape(net.init, jax.random.key(0), x)
        return jax.eval_shape(lambda params: fn.rtrl(net, loss).whole(params, x, target, **masks), params)

    with pytest.raises(TypeError, match=r"rtrl: serial\(…\) must have a carry"):
        run(fn.serial(fn.dense(2), fn.tanh()))
    with pytest.raises(TypeError, match="must have a carry"):
        run(fn.bidirectional(fn.elman(2)))
    with pytest.raises(ValueError, match="one row for each step"):
        run(fn.serial(fn.elman(2), fn.last()))
    with pytest.raises(TypeError, match="mask must hold bools"):
        run(NET, mask=jnp.ones((3, T)))
    with pytest.raises(ValueError, match="target must have shape"):
        run(NET, target=target[..., :1])
    custom = MSE._replace(
        forward=lambda y, target, mask: (MSE.apply(y, target), y), backward=lambda y, dvalue=1.0: y
    )
    with pytest.raises(TypeError, match=r"must be one of fn\.losses"):
        run(NET, custom)
    with pytest.raises(TypeError, match="layer 0 must be a Layer"):
        fn.rtrl(fn.lstm, MSE)
