"""Layers in both directions of time: compared with a recurrence in NumPy, with padding anywhere."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0]], bool)
X = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
KEY = jax.random.key(0)
NET = fn.bidirectional(fn.elman(2))


def point(net, x=X):
    return jax.tree.map(jnp.float32, catalogue.random_params(net, np.random.default_rng(1), x))


def recurrence(params, x):
    """An Elman network on one sequence, in NumPy."""
    w, u, b = (np.asarray(leaf, np.float64) for leaf in params)
    h, hs = np.zeros(len(u)), []
    for step in x:
        h = np.tanh(step @ w + h @ u + b)
        hs.append(h)
    return np.stack(hs)


MERGES = {
    "concat": lambda a, b: np.concatenate([a, b], -1),
    "sum": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "mul": lambda a, b: a * b,
}


@pytest.mark.parametrize("merge", MERGES)
def test_both_directions_agree_with_numpy_wherever_the_padding_is(merge):
    net = fn.bidirectional(fn.elman(2), merge)
    params = point(net)
    y = np.asarray(jax.jit(net.apply)(params, X, mask=MASK))
    for row, x, valid in zip(y, X, MASK, strict=True):
        if valid.any():
            ahead, back = recurrence(params[0], x[valid]), recurrence(params[1], x[valid][::-1])[::-1]
            np.testing.assert_allclose(row[valid], MERGES[merge](ahead, back), rtol=1e-4, atol=1e-6)
        assert not row[~valid].any(), "padding stays in its place"


@jax.jit
def gradient(params, x, dy, mask=None):
    y, _, saved = NET.forward(params, x, mask=mask)
    return y, *NET.backward(params, saved, dy)[:2]


def test_masking_equals_cutting_the_sequence_short(x64):
    params, x = catalogue.random_params(NET, np.random.default_rng(1), X), X[1:].astype(float)
    dy, mask = np.random.default_rng(2).standard_normal((4, 4, 4)), MASK[1:]
    _, dparams, dx = gradient(params, x, dy, mask)
    total = jax.tree.map(jnp.zeros_like, dparams)
    for n, valid in enumerate(mask[:3]):
        _, dparams_cut, dx_cut = gradient(params, x[n, valid], dy[n, valid])
        np.testing.assert_allclose(dx[n, valid], dx_cut, rtol=1e-9)
        total = jax.tree.map(jnp.add, total, dparams_cut)
    chex.assert_trees_all_close(dparams, total, rtol=1e-9)
    assert not np.asarray(dx)[~mask].any()


def test_padding_has_no_effect():
    params, dy = point(NET), np.ones((5, 4, 4), np.float32)
    dirty = np.where(MASK[..., None], X, np.float32(np.nan))
    chex.assert_trees_all_equal(gradient(params, X, dy, MASK), gradient(params, dirty, dy, MASK))
    plain = jax.jit(jax.grad(lambda params: NET.apply(params, dirty, mask=MASK).sum()))(params)
    chex.assert_trees_all_close(plain, gradient(params, X, dy, MASK)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        fn.bidirectional(fn.serial(fn.elman(2), fn.gru(2))),
        fn.serial(fn.bidirectional(fn.elman(2)), fn.bidirectional(fn.gru(2), "mul")),
        fn.bidirectional(fn.serial(fn.elman(2), fn.last())),
    ],
    ids=["one stack per direction", "every layer bidirectional", "reduced over time"],
)
def test_deep_networks_agree(net, x64):
    x, params = X.astype(float), catalogue.random_params(net, np.random.default_rng(1), X)

    @jax.jit
    def both(params, x):
        y, _, saved = net.forward(params, x, mask=MASK)
        dy = jnp.cos(jnp.arange(y.size, dtype=float)).reshape(y.shape)
        plain = jax.grad(lambda params, x: (net.apply(params, x, mask=MASK) * dy).sum(), (0, 1))(params, x)
        return net.backward(params, saved, dy)[:2], plain

    by_hand, plain = both(params, x)
    chex.assert_trees_all_close(by_hand, plain, rtol=1e-9, atol=1e-12)


def test_a_layer_that_reduces_time_returns_both_ends():
    net = fn.bidirectional(fn.serial(fn.elman(2), fn.last()))
    params = point(net)
    whole = fn.bidirectional(fn.elman(2)).apply((params[0][0], params[1][0]), X)
    ends = jnp.concatenate([whole[:, -1, :2], whole[:, 0, 2:]], -1)
    chex.assert_trees_all_close(net.apply(params, X), ends, rtol=1e-6)


def test_the_second_copy_is_observed_in_its_own_time():
    params = point(NET)
    inside = fn.intermediates(NET, params, X)
    assert list(inside) == ["0.elman", "1.elman"]
    both = jnp.concatenate([inside["0.elman"], inside["1.elman"][:, ::-1]], -1)
    chex.assert_trees_all_close(both, NET.apply(params, X), rtol=1e-6)
    rows = fn.summary(NET, X).rows
    assert [(row.path, row.params) for row in rows] == [("", 24), ("0.elman", 12), ("1.elman", 12)]


def test_the_copies_draw_independently():
    layer = fn.bidirectional(fn.dropout(0.5), "concat")
    y = np.asarray(layer.apply(((), ()), jnp.ones((4, 9, 5)), key=KEY, train=True))
    assert (y[..., :5] != y[:, ::-1, 5:]).any()
    first, second = NET.init(KEY, X)
    assert (first.w != second.w).any()


def test_other_layers_of_the_network_keep_their_carry():
    net = fn.serial(fn.elman(2), NET)
    params = point(net)
    start = fn.zero_carry(net, params, X)
    assert start[1] is None
    _, carry, _ = net.forward(params, X, start)
    assert (carry[0].shape, carry[1]) == ((5, 2), None)


def test_statistics_of_both_copies_are_updated():
    net = fn.bidirectional(toys.centred())
    params = net.init(KEY, X)
    _, _, saved = net.forward(params, X)
    first, second = net.update_stats(params, saved)
    np.testing.assert_allclose(first.stats.mean, 0.1 * X.reshape(-1, 3).mean(0), rtol=1e-5)
    np.testing.assert_allclose(second.stats.mean, first.stats.mean, rtol=1e-5)


def test_ids_without_a_batch():
    net = fn.bidirectional(fn.serial(fn.embedding(6, 3), fn.elman(2)))
    ids = jnp.array([1, 2, 5])
    params = point(net, ids)
    y, _, saved = net.forward(params, ids)
    assert y.shape == (3, 4)
    assert net.backward(params, saved, y)[1] is None


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fn.bidirectional(fn.elman), TypeError, r"bidirectional: layer 0 must be a Layer, got elman; call it"),
        (lambda: fn.bidirectional(fn.elman(2), "max"), ValueError, "bidirectional: merge must be one of 'concat', 'sum', 'mean', 'mul', got 'max'"),
        (lambda: NET.forward(NET.init(KEY, X), X, (jnp.ones((5, 2)),) * 2), TypeError, r"bidirectional\(…\): takes no carry, got tuple; one direction starts at the end of the sequence"),
        (lambda: NET.backward(None, None, X, X), TypeError, r"bidirectional\(…\): takes no dcarry"),
        (lambda: NET.init(KEY, jnp.ones(3)), ValueError, r"bidirectional\(…\): x must have at least 2 axes, got shape \(3,\)"),
        (lambda: NET.apply(NET.init(KEY, X)[:1], X), TypeError, "params must be a tuple of 2, one for each layer, got 1"),
        (lambda: NET.apply(NET.init(KEY, X), X, mask=MASK[:, :2]), ValueError, r"bidirectional\(…\): mask must have shape \(5, 4\), got \(5, 2\)"),
        (lambda: fn.bidirectional(fn.reshape((2, 6), axes=2)).apply(((), ()), X), ValueError, r"the layer's output must have shape \(5, 4, …\) or, without time, \(5, …\), got \(5, 2, 6\)"),
    ],
)  # fmt: skip
def test_bad_input_raises(call, error, says):
    with pytest.raises(error, match=says):
        call()
