"""Properties of networks and inputs that hypothesis generates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import fnnets as fn
from fnnets import catalogue
from fnnets.comparison.diagnosis import causes

ACTIVATIONS = [case.layer for case in catalogue.activation_cases()]
few = settings(max_examples=6, deadline=None, derandomize=True)
many = settings(max_examples=100, deadline=None, derandomize=True)


def networks(width: int) -> st.SearchStrategy:
    """Networks that keep the width of their input, nested freely."""
    leaves = st.one_of(
        st.sampled_from(ACTIVATIONS),
        st.booleans().map(lambda use_bias: fn.dense(width, use_bias=use_bias)),
        st.floats(0, 1).map(lambda rate: fn.dropout(round(rate, 2))),
    )

    def compose(inner: st.SearchStrategy) -> st.SearchStrategy:
        several = st.lists(inner, min_size=1, max_size=3)
        return st.one_of(
            several.map(lambda layers: fn.serial(*layers)),
            inner.map(fn.residual),
            several.map(lambda layers: fn.branch(*layers, merge="sum")),
            several.map(lambda layers: fn.serial(fn.branch(*layers), fn.dense(width))),
            st.tuples(inner, st.integers(1, 3)).map(lambda drawn: fn.stack(*drawn)),
        )

    return st.recursive(leaves, compose, max_leaves=5)


@few
@given(
    net=networks(3),
    batch=st.lists(st.integers(1, 3), max_size=2),
    train=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_network_agrees(net, batch, train, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*batch, 3))
    mask = rng.random(batch) < 0.7 if batch else None
    params = catalogue.random_params(net, rng, x)
    report = fn.compare(
        net, params, x, key=jax.random.key(seed), train=train, mask=mask if net.info.children else None
    )
    assert report.ok, report


@few
@given(net=networks(3), seed=st.integers(0, 99))
def test_values_in_the_padding_change_nothing(net, seed):
    net, rng = fn.serial(net), np.random.default_rng(seed)
    x, mask = rng.standard_normal((2, 3, 3)), rng.random((2, 3)) < 0.6
    params = jax.tree.map(jnp.float32, catalogue.random_params(net, rng, x))

    @jax.jit
    def run(x):
        y, _, saved = net.forward(params, x, mask=mask)
        return net.backward(params, saved, jnp.ones_like(y))[:2]

    dirty = np.where(mask[..., None], x, rng.choice([np.nan, np.inf, 1e30], x.shape))
    chex.assert_trees_all_equal(run(jnp.float32(x)), run(jnp.float32(dirty)))


@many
@given(
    shape=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    factor=st.floats(-10, 10).filter(lambda factor: abs(factor) > 0.01 and abs(factor - 1) > 0.01),
    seed=st.integers(0, 1000),
)
def test_any_factor_is_recognised(shape, factor, seed):
    true = np.random.default_rng(seed).standard_normal(shape)
    cause = causes.diagnose("w", factor * true, true, causes.Context())
    assert cause.kind == ("sign" if abs(factor + 1) < 1e-6 else "factor")
    if cause.kind == "factor":
        assert ("wrong sign" in cause.text) == (factor < 0)


@many
@given(shape=st.lists(st.integers(2, 4), min_size=2, max_size=4), seed=st.integers(0, 1000), data=st.data())
def test_any_transpose_is_recognised(shape, seed, data):
    true = np.random.default_rng(seed).standard_normal(shape)
    order = data.draw(st.permutations(range(len(shape))))
    cause = causes.diagnose("w", true.transpose(order), true, causes.Context())
    assert order == sorted(order) or cause.kind == "transpose"


@many
@given(n=st.integers(2, 4), size=st.integers(1, 3), seed=st.integers(0, 1000), data=st.data())
def test_any_exchange_of_blocks_is_recognised(n, size, seed, data):
    true = np.random.default_rng(seed).standard_normal((3, n * size))
    i, j = sorted(data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)))
    parts = np.split(true, n, -1)
    parts[i], parts[j] = parts[j], parts[i]
    context = causes.Context(blocks={"w": tuple("abcd"[:n])})
    cause = causes.diagnose("w", np.concatenate(parts, -1), true, context)
    assert cause == (
        "exchanged blocks",
        f"the block of {'abcd'[i]} and the block of {'abcd'[j]} are exchanged",
    )


@many
@given(seed=st.integers(0, 10_000))
def test_noise_gets_no_invented_cause(seed):
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((4, 6))
    wrong = true + rng.standard_normal((4, 6))
    assert causes.diagnose("w", wrong, true, causes.Context({"the batch (4)": 4.0})).kind == "unknown"
