"""Tree networks against a loop over nodes written from the papers, against sequences, and on bad input."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fnnets as fn
from fnnets import catalogue

KINDS = {
    "recursive": fn.recursive(3),
    "child_sum": fn.tree_lstm(3),
    "binary": fn.tree_lstm(3, "binary"),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_paper(kind, params, features, children):
    """The states h of one tree, node by node: Socher et al. (2011), Tai et al. (2015) eqs. 2-8 and 9-14."""
    w, u, b = (np.asarray(leaf) for leaf in params)
    size = len(u) // 2 if kind in ("recursive", "binary") else len(u)
    missing = np.zeros(size), np.zeros(size)
    states = []
    for x, row in zip(features, children, strict=True):
        below = [states[k] if k >= 0 else missing for k in row]
        if kind == "recursive":
            h = np.tanh(np.concatenate([h for h, _ in below]) @ u + x @ w + b)
            states.append((h, None))
            continue
        w_i, w_f, w_u, w_o = np.split(w, 4, 1)
        b_i, b_f, b_u, b_o = np.split(b, 4)
        if kind == "child_sum":
            u_i, u_f, u_u, u_o = np.split(u, 4, 1)
            h_tilde = sum(h for h, _ in below)
            forget = [sigmoid(x @ w_f + h @ u_f + b_f) for h, _ in below]
            inner = [h_tilde @ part for part in (u_i, u_u, u_o)]
        else:
            u_i, u_l, u_r, u_u, u_o = np.split(u, 5, 1)
            (h_l, _), (h_r, _) = below

            def of(part, h_l=h_l, h_r=h_r):
                return h_l @ part[:size] + h_r @ part[size:]

            forget = [sigmoid(x @ w_f + of(part) + b_f) for part in (u_l, u_r)]
            inner = [of(part) for part in (u_i, u_u, u_o)]
        i, o = sigmoid(x @ w_i + inner[0] + b_i), sigmoid(x @ w_o + inner[2] + b_o)
        c = i * np.tanh(x @ w_u + inner[1] + b_u) + sum(
            f * c for f, (_, c) in zip(forget, below, strict=True)
        )
        states.append((o * np.tanh(c), c))
    return np.stack([h for h, _ in states])


def at(kind, seed=0, batch=4, nodes=7):
    """A layer, random params and a batch of random trees."""
    rng = np.random.default_rng(seed)
    x = catalogue.forest(batch, nodes=nodes, places=2, width=2)(rng)
    return KINDS[kind], *jax.tree.map(jnp.asarray, (catalogue.random_params(KINDS[kind], rng, x), x))


@functools.partial(jax.jit, static_argnums=0)
def gradients(net, params, x, mask=None, dy=None):
    y, _, saved = net.forward(params, x, mask=mask)
    return y, net.backward(params, saved, jnp.ones_like(y) if dy is None else dy)[:2]


# ---------------------------------------------------------------- values


@kinds
def test_states_match_the_papers(kind, x64):
    net, params, x = at(kind)
    expected = np.stack([by_paper(kind, params, *tree) for tree in zip(*x, strict=True)])
    chex.assert_trees_all_close(net.apply(params, x), expected, rtol=1e-13, atol=1e-13)
    chex.assert_trees_all_close(net.forward(params, x)[0], expected, rtol=1e-13, atol=1e-13)


def test_three_nodes_by_hand(x64):
    children = np.array([[-1, -1], [-1, -1], [0, 1]])
    plain = fn.Recursive(w=np.array([[2.0]]), u=np.array([[3.0], [5.0]]), b=np.array([1.0]))
    x = np.array([[1.0], [2.0], [0.0]]), children
    # leaves 2·1 + 1 = 3 and 2·2 + 1 = 5; the root 3·3 + 5·5 + 1 = 35
    y, (dparams, dx) = gradients(fn.recursive(1, fn.identity()), plain, x, dy=np.array([[0.0], [0.0], [1.0]]))
    assert y.ravel().tolist() == [3, 5, 35]
    # dE/du = (3, 5); the leaves receive 3 and 5: db = 1 + 3 + 5, dw = 3·1 + 5·2
    assert [leaf.ravel().tolist() for leaf in dparams] == [[13], [3, 5], [9]]
    assert dx[0].ravel().tolist() == [6, 10, 2]
    assert dx[1] is None
    # Only g sees x, only f the children, no bias. Leaves: c = ½tanh(x), h = ½tanh(c), for x = 1 and −2:
    # c = 0.3807970780, −0.4820137900; h = 0.1816997422, −0.2239274687. Root: f = σ(h), c = Σ f·c = −0.0064862683.
    gated = np.array([[0.0, 0, 1, 0]]), np.array([[0.0, 1, 0, 0]]), np.zeros(4)
    y = fn.tree_lstm(1).apply(fn.ChildSumTreeLSTM(*gated), (np.array([[1.0], [-2.0], [0.0]]), children))
    np.testing.assert_allclose(y.ravel(), [0.1816997422, -0.2239274687, -0.0032430887], atol=1e-9)


def test_a_batch_equals_its_trees_one_by_one():
    net, params, x = at("child_sum")
    dy = np.random.default_rng(1).standard_normal((4, 7, 3)).astype(np.float32)
    y, (dparams, dx) = gradients(net, params, x, dy=dy)
    each = [gradients(net, params, (x[0][i], x[1][i]), dy=dy[i]) for i in range(4)]
    chex.assert_trees_all_close(y, np.stack([y for y, _ in each]), atol=1e-5)
    chex.assert_trees_all_close(dx[0], np.stack([dx[0] for _, (_, dx) in each]), atol=1e-5)
    chex.assert_trees_all_close(
        dparams, jax.tree.map(lambda *parts: sum(parts), *[d for _, (d, _) in each]), atol=1e-4
    )
    two_axes = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), x)
    chex.assert_trees_all_close(net.apply(params, two_axes), y.reshape(2, 2, 7, 3), atol=1e-6)


@pytest.mark.parametrize(
    ("tree", "sequence", "places"),
    [
        (fn.tree_lstm(3), fn.lstm(3), 3),
        (fn.tree_lstm(3, "binary"), fn.lstm(3), 2),
        (fn.recursive(3), fn.elman(3), 1),
    ],
    ids=["child_sum", "binary", "recursive"],
)
def test_a_chain_equals_a_sequence(tree, sequence, places, x64):
    x, children = np.random.default_rng(0).standard_normal((4, 5, 2)), np.full((4, 5, places), -1, np.int32)
    children[..., 0] = np.arange(5) - 1
    params = catalogue.random_params(sequence, np.random.default_rng(1), x)
    u = params.u
    if places == 2:  # the left child's f is the forget gate; there is no right child
        i, f, g, o = np.split(u, 4, 1)
        u = np.concatenate([np.concatenate([i, f, 0 * f, g, o], 1), np.ones((3, 15))])
    own = tree.init(jax.random.key(0), (x, children))._replace(w=params.w, u=u, b=params.b)
    chex.assert_trees_all_close(
        tree.apply(own, (x, children)), sequence.apply(params, x), rtol=1e-13, atol=1e-13
    )


def test_only_child_sum_ignores_the_order_of_children():
    for kind in KINDS:
        net, params, (features, children) = at(kind)
        apply = jax.jit(net.apply)
        same = np.allclose(
            apply(params, (features, children)), apply(params, (features, children[..., ::-1])), atol=1e-6
        )
        assert same == (kind == "child_sum"), kind


def test_a_node_with_two_parents_gets_both_gradients():
    net, params, _ = at("binary")
    children = np.array([[-1, -1], [0, 0], [0, 1]])
    report = fn.compare(net, params, (np.random.default_rng(0).standard_normal((3, 2)), children))
    assert report.ok, report


def test_one_compilation_for_a_hundred_trees():
    net = fn.serial(fn.nodes(fn.embedding(9, 2)), fn.tree_lstm(3), fn.last(), fn.dense(1))
    rng, traced = np.random.default_rng(0), []

    def random_tree(leaves):
        if leaves == 1:
            return int(rng.integers(1, 9))
        left = int(rng.integers(1, leaves))
        return random_tree(left), random_tree(leaves - left)

    @jax.jit
    def step(params, x, mask):
        traced.append(1)
        return fn.value_and_grad_by_hand(net, fn.losses.mse())(params, x, jnp.zeros((1, 1)), mask=mask)

    batches = [fn.pad_trees([random_tree(int(rng.integers(1, 9)))], size=15, arity=2) for _ in range(100)]
    params = net.init(jax.random.key(0), batches[0].x)
    for x, mask in batches:
        (value, _), grads = step(params, x, mask)
        chex.assert_tree_all_finite((value, grads))
    assert len(traced) == 1


def test_weight_gradients_are_summed_outside_the_loop():
    for kind in KINDS:
        net, params, x = at(kind)
        equations = jax.make_jaxpr(functools.partial(gradients.__wrapped__, net))(params, x).eqns
        loops = [equation for equation in equations if equation.primitive.name == "scan"]
        products = [str(loop.params["jaxpr"]).count("dot_general") for loop in loops]
        assert products == [1, 1], f"{kind}: one product a node, forward and back"


# ---------------------------------------------------------------- padding


@kinds
def test_padding_anywhere_changes_nothing_and_its_nan_stays_there(kind):
    net, params, (features, children) = at(kind, batch=1)
    y, (dparams, dx) = gradients(net, params, (features, children))
    apply = jax.jit(net.apply)
    for places in ([0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9], [0, 2, 3, 5, 6, 8, 9]):
        wide = np.full((1, 10, 2), np.nan, features.dtype)
        wide[:, places] = features
        moved = np.full((1, 10, 2), 7, np.int32)  # invalid children in the padding
        moved[:, places] = np.where(children >= 0, np.take(places, children), -1)
        keep = np.zeros((1, 10), bool)
        keep[:, places] = True
        mask = keep, moved >= 0
        padded, (dpadded, (dwide, _)) = gradients(net, params, (wide, moved), mask)
        chex.assert_trees_all_close(padded[:, places], y, atol=1e-6)
        chex.assert_trees_all_close(apply(params, (wide, moved), mask=mask), padded, atol=1e-6)
        chex.assert_trees_all_close(dpadded, dparams, atol=1e-5)
        chex.assert_trees_all_close(dwide[:, places], dx[0], atol=1e-5)
        assert not np.delete(padded, places, 1).any()
        assert not np.delete(dwide, places, 1).any()


def test_nan_in_the_padding_stays_there_under_autodiff():
    net = fn.serial(fn.tree_lstm(3), fn.last(), fn.dense(2))
    x, mask = fn.pad_trees([((np.ones(2), np.ones(2)), np.ones(2)), np.ones(2)])
    bad = jnp.where(mask[0][..., None], x[0], jnp.nan), x[1]
    params = net.init(jax.random.key(0), x)
    value_and_grad = jax.jit(jax.value_and_grad(lambda params, x: net.apply(params, x, mask=mask).sum()))
    chex.assert_tree_all_finite(value_and_grad(params, bad))
    chex.assert_trees_all_close(value_and_grad(params, bad), value_and_grad(params, x), atol=1e-6)


@kinds
def test_a_child_that_is_not_before_its_parent_gives_nan_up_to_the_root(kind):
    net, params, _ = at(kind)
    good = [[-1, -1], [-1, -1], [0, 1], [2, -1], [-1, -1]]
    late, itself, outside = np.array([good] * 3)
    late[2, 1], itself[2, 1], outside[2, 1] = 3, 2, 99
    x = np.ones((4, 5, 2), np.float32), np.stack([good, late, itself, outside])
    for y in (net.apply(params, x), net.forward(params, x)[0]):
        assert np.isnan(y).all(-1).tolist() == [[False] * 5] + 3 * [[False, False, True, True, False]]


# ---------------------------------------------------------------- layers at nodes, networks


def test_nodes_passes_on_key_mask_statistics_and_children():
    net = fn.nodes(fn.serial(fn.dropout(0.5), toys.centred()))
    one = np.ones(2, np.float32)
    x, mask = fn.pad_trees([((one, one), one), one])
    params = net.init(jax.random.key(0), x)
    key = jax.random.key(1)
    (y, children), _, saved = net.forward(params, x, key=key, train=True, mask=mask)
    (alone, _) = fn.serial(fn.dropout(0.5), toys.centred()).forward(
        params[0], x[0], key=jax.random.fold_in(key, 0), train=True, mask=mask[0]
    )[::2]
    chex.assert_trees_all_equal(y, alone)
    chex.assert_trees_all_equal(children, x[1] * mask[1])
    assert net.update_stats(params, saved)[0][1].stats.mean.any()
    assert net.backward(params, saved, (y, None))[1][1] is None


def test_a_network_on_trees_can_be_summarised_observed_and_trained():
    net = fn.serial(fn.nodes(fn.embedding(6, 4)), fn.tree_lstm(3), fn.last(), fn.dense(2))
    x, mask = fn.pad_trees([((1, 2), 3), (2, 4)])
    params = net.init(jax.random.key(0), x)
    assert "nodes" in str(fn.summary(net, x))
    shapes = [leaf.shape for leaf in jax.tree.leaves(fn.intermediates(net, params, x, mask=mask))]
    assert shapes == [(2, 5, 4), (2, 5, 2), (2, 5, 4), (2, 5, 3), (2, 3), (2, 2)]
    loss, t = fn.losses.softmax_cross_entropy(), np.array([0, 1])
    (value, _), grads = fn.value_and_grad_by_hand(net, loss)(params, x, t, mask=mask)
    by_hand = fn.by_hand(net)
    other = jax.value_and_grad(lambda params: loss.apply(by_hand.apply(params, x, mask=mask), t))(params)
    chex.assert_trees_all_close((value, grads), other, atol=1e-6)


def test_the_report_names_the_forget_gate():
    net, params, x = at("binary")
    wrong = toys.with_backward(net, lambda dparams, dx: (dparams._replace(u=dparams.u.at[:, 6:9].set(0)), dx))
    assert "the block of f_right is zero" in str(fn.compare(wrong, params, x))


# ---------------------------------------------------------------- nested Python trees


def test_pad_trees():
    x, mask = fn.pad_trees([((1, 2), 3), [4, 5, 6], 7], size=6, arity=4)
    assert x[0].tolist() == [[0, 1, 2, 0, 3, 0], [0, 0, 4, 5, 6, 0], [0, 0, 0, 0, 0, 7]]
    assert x[1].shape == (3, 6, 4)
    assert x[1][:, -1].tolist() == [[3, 4, -1, -1], [2, 3, 4, -1], [-1, -1, -1, -1]]
    assert x[1][0, 3].tolist() == [1, 2, -1, -1]
    assert (x[0].dtype, x[1].dtype) == (jnp.int32, jnp.int32)
    assert mask[0].sum(1).tolist() == [5, 4, 1]
    chex.assert_trees_all_equal(mask[1], x[1] >= 0)
    assert fn.pad_trees([1.5]).x[1].shape == (1, 1, 1)
    assert fn.pad_trees([(np.zeros(3), np.ones(3))]).x[0].shape == (1, 3, 3)


def test_pad_trees_of_other_objects():
    tree = {"word": 3, "below": [{"word": 1, "below": []}, {"word": 2, "below": []}]}
    x, _ = fn.pad_trees([tree], children=lambda tree: tree["below"], value=lambda tree: tree["word"])
    assert x[0].tolist() == [[1, 2, 3]]
    assert x[1].tolist() == [[[-1, -1], [-1, -1], [0, 1]]]


def test_pad_trees_handles_deep_trees():
    deep = 1
    for _ in range(5000):
        deep = (deep,)
    assert fn.pad_trees([deep]).x[1][0, 1:, 0].tolist() == list(range(5000))


def test_a_subtree_may_occur_twice():
    pair = (1, 2)
    assert fn.pad_trees([(pair, pair)]).x[0].tolist() == [[1, 2, 0, 1, 2, 0, 0]]


def cycle():
    tree = [1]
    tree.append([tree])
    return tree


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.pad_trees([]), "at least one tree, got none"),
        (lambda: fn.pad_trees([(1, 2)], size=2), "size is 2, but there are 3 nodes"),
        (lambda: fn.pad_trees([(1, 2, 3)], arity=2), "arity is 2, but there are 3 children"),
        (lambda: fn.pad_trees([1, cycle()]), "tree 1 contains itself"),
        (lambda: fn.pad_trees([("a", "b")]), "values must be numbers, got <U1"),
        (lambda: fn.pad_trees([(np.ones(2), np.ones(3))]), "must have one shape, got (2,) and (3,)"),
        (lambda: fn.pad_trees([1], size=0), "size must be a whole number of at least 1"),
        (lambda: fn.tree_lstm(3, "ternary"), "kind must be one of 'child_sum', 'binary'"),
        (lambda: fn.tree_lstm(0), "features must be a whole number"),
        (lambda: fn.recursive(3, fn.prelu()), "without params"),
        (lambda: fn.nodes(fn.tanh), "call it: fn.tanh(…)"),
    ],
)
def test_bad_settings_and_trees(call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call()


FEATURES, CHILDREN = np.ones((4, 5, 2), np.float32), np.full((4, 5, 2), -1)


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (FEATURES, None, "x must be a pair (features, children), got ndarray; fn.pad_trees builds it"),
        ((FEATURES, CHILDREN, CHILDREN), None, "got a tuple of 3"),
        ((CHILDREN[..., 0], CHILDREN), None, "fn.nodes(fn.embedding(…))"),
        ((FEATURES, FEATURES), None, "children must hold integers, got float32"),
        ((FEATURES[0, 0], CHILDREN), None, "features must have at least 2 axes"),
        ((FEATURES, CHILDREN[:3]), None, "children without its last axis must have shape (4, 5), got (3, 5)"),
        ((FEATURES[..., :1], CHILDREN), None, "features must have shape (…, 2), got (5, 4, 1)"),
        ((FEATURES, CHILDREN[..., :1]), None, "2 places on the last axis, got shape (4, 5, 1)"),
        ((FEATURES, CHILDREN), np.ones((4, 5), bool), "mask must be a pair"),
        ((FEATURES, CHILDREN), (FEATURES[..., 0], CHILDREN >= 0), "mask must hold bools, got float32"),
        (
            (FEATURES, CHILDREN),
            (np.ones((4, 4), bool), CHILDREN >= 0),
            "the nodes' mask must have shape (4, 5)",
        ),
        ((FEATURES, CHILDREN), (np.ones((4, 5), bool),) * 2, "the children's mask must have shape (4, 5, 2)"),
    ],
)
def test_bad_input(x, mask, message):
    net = fn.tree_lstm(3, "binary")
    params = net.init(jax.random.key(0), (FEATURES, CHILDREN))
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        net.apply(params, x, mask=mask)
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        net.forward(params, x, mask=mask)


def test_other_bad_input():
    net = fn.recursive(3)
    params = net.init(jax.random.key(0), (FEATURES, CHILDREN))
    with pytest.raises(ValueError, match="the children's states, side by side, must have shape"):
        net.apply(params, (FEATURES, CHILDREN[..., :1]))
    with pytest.raises(TypeError, match="params must be ChildSumTreeLSTM"):
        fn.tree_lstm(3).apply(params, (FEATURES, CHILDREN))
    with pytest.raises(TypeError, match="x must be a pair"):
        fn.nodes(fn.dense(2)).init(jax.random.key(0), FEATURES)
    with pytest.raises(ValueError, match="2 places"):
        fn.tree_lstm(3, "binary").init(jax.random.key(0), (FEATURES, np.full((4, 5, 3), -1)))
