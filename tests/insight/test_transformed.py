"""Tools that look inside networks, under jax's transformations: of the tool, and of the children."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

B, T, D = 3, 4, 2
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, D)), jnp.float32)
DY = jnp.asarray(np.random.default_rng(1).standard_normal((B, T, 2)), jnp.float32)
INSIDE = fn.serial(fn.lstm(2), fn.tanh())


def network(child):
    return fn.serial(fn.dense(2), child, fn.dense(2))


NET = network(INSIDE)
PARAMS = NET.init(jax.random.key(0), X)


def each(function, map_):
    """The function of (params, *rows) with the rows mapped over by `map_`."""
    return lambda params, *rows: map_(lambda *row: function(params, *row), *rows)


def by_rows(inside, map_):
    """A layer that maps over its examples, as a user's own combinator may call its child."""

    def by_row(function, x):  # a single example has no rows
        return each(function, map_) if x.ndim > 2 else function

    def backward(params, saved, dy, dcarry=None):
        dparams, dx, dcarry = each(inside.backward, map_)(params, saved, dy, dcarry)
        return jax.tree.map(lambda leaf: leaf.sum(0), dparams), dx, dcarry

    return inside._replace(
        apply=lambda params, x, **mode: by_row(inside.apply, x)(params, x),
        forward=lambda params, x, carry=None, **mode: by_row(inside.forward, x)(params, x, carry),
        backward=backward,
    )


def wrapped(inside, transformation):
    """A layer with each function transformed once, so that what is compiled is used again."""
    return inside._replace(
        apply=transformation(lambda params, x: inside.apply(params, x)),
        forward=transformation(lambda params, x, carry: inside.forward(params, x, carry)),
        backward=transformation(inside.backward),
    )


def without_mode(layer):
    """A layer that accepts the keyword arguments and ignores them."""
    return layer._replace(
        apply=lambda params, x, **mode: layer.apply(params, x),
        forward=lambda params, x, carry=None, **mode: layer.forward(params, x, carry),
        backward=lambda params, saved, dy, dcarry=None: layer.backward(params, saved, dy, dcarry),
    )


def scanned(function, *rows):
    return jax.lax.scan(lambda _, row: (None, function(*row)), None, rows)[1]


CHILDREN = {
    "jit": lambda inside: without_mode(wrapped(inside, jax.jit)),
    "checkpoint": lambda inside: without_mode(wrapped(inside, jax.checkpoint)),
    "vmap": lambda inside: by_rows(inside, lambda function, *rows: jax.vmap(function)(*rows)),
    "scan": lambda inside: by_rows(inside, scanned),
}


TOOLS = {
    "intermediates": lambda net, params, x: fn.intermediates(net, params, x),
    "trace_backward": lambda net, params, x: fn.trace_backward(net, params, x, DY),
    "gradient_flow": lambda net, params, x: fn.gradient_flow(net, params, x, dy=DY)._asdict(),
    "locate_nan": lambda net, params, x: fn.locate_nan(net, params, x.at[1, 2, 0].set(jnp.inf), dy=DY),
}


@functools.cache
def plain(tool):
    return TOOLS[tool](NET, PARAMS, X)


def same(found, expected):
    if isinstance(expected, fn.NonFinite):
        assert str(found) == str(expected)
        return
    assert list(found) == list(expected) or sorted(found) == sorted(expected)
    chex.assert_trees_all_close(dict(found), dict(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_gives_the_same_for_a_transformed_child(tool, child):
    net = network(CHILDREN[child](INSIDE))
    net.apply(PARAMS, X)  # compiled before the tool looks inside
    same(TOOLS[tool](net, PARAMS, X), plain(tool))
    if child == "jit":  # and again, now that the recording is compiled too
        same(TOOLS[tool](net, PARAMS, X), plain(tool))


def leaky(forgets):
    """h_t = a ⊙ h_{t−1} + x_t; if it forgets, the derivation misses the path through the first unit's carry."""
    path = jnp.array([0.0, 1.0]) if forgets else 1.0
    return fn.recurrent(
        fn.Cell(
            init=lambda key, x: jnp.array([0.5, 0.7]),
            start=lambda a, batch: jnp.zeros((*batch, 2)),
            project=lambda a, x: x,
            step=lambda a, h, z: a * h + z,
            forward=lambda a, h, z: (a * h + z, None),
            backward=lambda a, h, saved, dh: (path * a * dh, dh),
            collect=lambda a, x, h, saved, dz: (jnp.einsum("...k,...k->k", h, dz), dz),
            info="leaky",
        )
    )


@pytest.mark.parametrize("child", CHILDREN)
def test_a_mistake_in_a_transformed_child_is_placed_in_time(child):
    right, wrong = (network(CHILDREN[child](fn.serial(leaky(forgets)))) for forgets in (False, True))
    params = right.init(jax.random.key(0), X)
    assert fn.compare(right, params, X).ok
    report = fn.compare(wrong, params, X)
    assert not report.ok
    assert "at t = 3 (of 0…3): dh_before of leaky at 1.serial/0.leaky" in " ".join(report.notes)


def under_jit(function):
    compiled = jax.jit(function)
    compiled(2 * X)
    return compiled(X)


def under_vmap(function):
    return jax.tree.map(lambda leaf: leaf[1], jax.vmap(function)(jnp.stack([2 * X, X])))


def under_scan(function):
    found = jax.lax.scan(lambda _, x: (None, function(x)), None, jnp.stack([2 * X, X]))[1]
    return jax.tree.map(lambda leaf: leaf[1], found)


@pytest.mark.parametrize("around", [under_jit, under_vmap, under_scan])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_gives_the_same_under_a_transformation(tool, around):
    same(around(lambda x: TOOLS[tool](NET, PARAMS, x)), plain(tool))


def test_a_layer_that_cannot_be_recorded_is_refused_by_name():
    looped = INSIDE._replace(
        apply=lambda params, x, **mode: jax.lax.while_loop(
            lambda at: at[0] < 1, lambda at: (at[0] + 1, INSIDE.apply(params, at[1])), (0, x)
        )[1]
    )
    with pytest.raises(ValueError, match=r"inside while cannot be recorded: .*1\.serial/0\.lstm"):
        fn.intermediates(network(looped), PARAMS, X)


def test_recording_leaves_no_tracer_and_does_not_change_the_program():
    net = network(CHILDREN["jit"](INSIDE))
    with jax.checking_leaks():
        fn.intermediates(net, PARAMS, X)
    before = jax.make_jaxpr(net.apply)(PARAMS, X)
    fn.trace_backward(net, PARAMS, X, DY)
    assert str(jax.make_jaxpr(net.apply)(PARAMS, X)) == str(before)
    assert "fnnets_tag" not in str(before)
