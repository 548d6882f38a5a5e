"""The layers one by one: numbers worked out by hand, conventions, and errors on bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 5)), jnp.float32)
ACTIVATIONS = [case.layer for case in catalogue.activation_cases()]


def test_dense_equals_numbers_worked_out_on_paper():
    layer, params = fn.dense(2), fn.Dense(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([10.0, 20.0]))
    y, _, saved = layer.forward(params, jnp.array([[1.0, 2.0], [0.0, -1.0]]))
    assert y.tolist() == [[17.0, 30.0], [7.0, 16.0]]
    dparams, dx, _ = layer.backward(params, saved, jnp.array([[1.0, 0.0], [2.0, 1.0]]))
    assert dparams.w.tolist() == [[1.0, 0.0], [0.0, -1.0]]
    assert dparams.b.tolist() == [3.0, 1.0]
    assert dx.tolist() == [[1.0, 3.0], [4.0, 10.0]]


def test_dense_uses_its_initialisers():
    ones = jax.nn.initializers.ones
    params = fn.dense(3, kernel_init=ones, bias_init=ones).init(KEY, X)
    assert params.w.tolist() == np.ones((5, 3)).tolist()
    assert params.b.tolist() == [1, 1, 1]
    wide = fn.dense(4000).init(KEY, X)
    assert float(wide.w.std()) == pytest.approx(5**-0.5, rel=0.05), "LeCun normal: variance 1/D"
    assert not wide.b.any()


def test_params_have_the_default_dtype_of_jax():
    assert fn.dense(3).init(KEY, X).w.dtype == jnp.float32
    with jax.enable_x64(True):
        assert fn.dense(3).init(KEY, np.ones((2, 5))).w.dtype == jnp.float64


def test_numpy_input_and_numpy_params_work():
    for layer, x in ((fn.dense(3), np.ones((4, 5))), (fn.embedding(6, 2), np.array([1, 2]))):
        params = layer.init(KEY, x)
        results = []
        for own in (params, jax.tree.map(np.asarray, params)):
            y, _, saved = layer.forward(own, x)
            results.append((y, layer.backward(own, saved, jnp.ones_like(y))[0]))
        chex.assert_trees_all_equal(*results)


def test_embedding_gathers_and_scatters():
    layer, params = fn.embedding(4, 2), fn.Embedding(jnp.arange(8.0).reshape(4, 2))
    y, _, saved = layer.forward(params, jnp.array([3, 1, 3]))
    assert y.tolist() == [[6, 7], [2, 3], [6, 7]]
    dparams, dx, _ = layer.backward(params, saved, jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert dparams.w.tolist() == [[0, 0], [3, 4], [0, 0], [6, 8]]
    assert dx is None


@pytest.mark.parametrize("outside", [-1, 4, 1000])
def test_an_id_outside_the_table_gives_nan_and_no_gradient(outside):
    layer, params = fn.embedding(4, 2), fn.Embedding(jnp.ones((4, 2)))
    y, _, saved = layer.forward(params, jnp.array([outside, 2]))
    assert jnp.isnan(y[0]).all()
    assert not jnp.isnan(y[1]).any()
    dparams, _, _ = layer.backward(params, saved, jnp.ones((2, 2)))
    assert dparams.w.sum(1).tolist() == [0, 0, 2, 0]


def test_dropout_drops_the_right_share_and_keeps_the_mean():
    y = fn.dropout(0.3).apply((), jnp.ones(100_000), key=KEY, train=True)
    assert float((y == 0).mean()) == pytest.approx(0.3, abs=0.01)
    assert float(y.mean()) == pytest.approx(1, abs=0.01)
    assert jnp.unique(y).shape == (2,)


def test_dropout_draws_the_same_places_in_every_dtype():
    layer = fn.dropout(0.5)
    places = [
        layer.apply((), jnp.ones(200, dtype), key=KEY, train=True) == 0 for dtype in ("float32", "bfloat16")
    ]
    with jax.enable_x64(True):
        places.append(layer.apply((), jnp.ones(200), key=KEY, train=True) == 0)
    assert all((np.asarray(places[0]) == np.asarray(other)).all() for other in places[1:])


def test_dropout_at_inference_reads_no_key_and_changes_nothing():
    assert fn.dropout(0.5).apply((), X) is X
    y = fn.dropout(0.0).apply((), X, key=KEY, train=True)
    assert (y == X).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=str)
@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activations_survive_large_input(layer, dtype):
    x = jnp.array([[1e4, -1e4, 0.0, 30.0, -30.0, 1.0]], dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), layer.init(KEY, x))
    y, _, saved = layer.forward(params, x)
    _, dx, _ = layer.backward(params, saved, jnp.ones_like(y))
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(dx).all()
    assert jnp.isfinite(jax.grad(lambda x: layer.apply(params, x).astype("float32").sum())(x)).all()


@pytest.mark.parametrize(
    ("layer", "x", "slope"),
    [
        (fn.relu(), 0.0, 0.0),
        (fn.leaky_relu(0.1), 0.0, 1.0),
        (fn.elu(0.5), 0.0, 0.5),
        (fn.hard_sigmoid(), 3.0, 0.0),
        (fn.hard_sigmoid(), -3.0, 0.0),
    ],
    ids=repr,
)
def test_slopes_at_kinks_are_as_documented_and_as_in_autodiff(layer, x, slope):
    x = jnp.array([x])
    _, _, saved = layer.forward((), x)
    _, dx, _ = layer.backward((), saved, jnp.ones(1))
    assert float(dx[0]) == pytest.approx(slope)
    assert float(jax.grad(lambda x: layer.apply((), x).sum())(x)[0]) == pytest.approx(slope)


def test_flatten_and_reshape_change_the_last_axes():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    assert fn.flatten(2).apply((), x).tolist() == x.reshape(2, 12).tolist()
    assert fn.flatten(1).apply((), x).shape == (2, 3, 4)
    assert fn.reshape((2, 2)).apply((), x).shape == (2, 3, 2, 2)
    assert fn.reshape((6, 2), axes=2).apply((), x).shape == (2, 6, 2)
    assert fn.flatten(3).apply((), x).shape == (24,)


# --- bad input: an error that names the layer, what it expects and what it got; or a correct result ---


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: fn.dense(8).init(KEY, jnp.ones(())), ValueError, r"dense\(8\): x must have at least 1 axis, got shape \(\)"),
        (lambda: fn.dense(8).apply(fn.dense(8).init(KEY, X), X[:, :3]), ValueError, r"dense\(8\): x must have shape \(…, 5\), got \(4, 3\)"),
        (lambda: fn.dense(8).apply(fn.dense(8).init(KEY, X), jnp.float32(1)), ValueError, r"dense\(8\): x must have shape \(…, 5\), got \(\)"),
        (lambda: fn.dense(8).init(KEY, jnp.ones((4, 5), int)), TypeError, r"dense\(8\): x must be floating point, got int32; .*fn.embedding"),
        (lambda: fn.dense(8).init(KEY, [[1.0, 2.0]]), TypeError, r"dense\(8\): x must be an array, got list"),
        (lambda: fn.dense(0), ValueError, "dense: features must be a whole number of at least 1, got 0"),
        (lambda: fn.dense(2.5), ValueError, "dense: features must be a whole number of at least 1, got 2.5"),
        (lambda: fn.dense(3, bias=False), TypeError, "unexpected keyword argument 'bias'"),
        (lambda: fn.dense(3).apply((X, X), X), TypeError, r"dense\(3\): params must be Dense\(w, b\), got tuple"),
        (lambda: fn.tanh().apply((), X, trian=True), TypeError, r"tanh\(\).apply\(\) got an unexpected keyword argument 'trian'"),
        (lambda: fn.tanh().forward((), X, jnp.ones(3)), TypeError, r"tanh\(\): has no carry, got one of"),
        (lambda: fn.tanh().apply((), X.astype(int)), TypeError, r"tanh\(\): x must be floating point, got int32"),
        (lambda: fn.softmax().apply((), jnp.float32(1)), ValueError, r"softmax\(\): x must have at least 1 axis"),
        (lambda: fn.embedding(4, 2).init(KEY, X), TypeError, r"embedding\(4, 2\): x must hold integers, got float32"),
        (lambda: fn.embedding(4, 2).apply(fn.Dense(X, X), jnp.array([1])), TypeError, r"params must be Embedding\(w\), got Dense"),
        (lambda: fn.dropout(1.5), ValueError, "dropout: rate must lie between 0 and 1, got 1.5"),
        (lambda: fn.dropout(0.5).apply((), X, train=True), ValueError, r"dropout\(0.5\): train=True needs a key, got key=None"),
        (lambda: jax.jit(lambda t: fn.dropout(0.5).apply((), X, key=KEY, train=t))(True), TypeError, "train must be a Python bool.*static"),
        (lambda: fn.flatten(3).apply((), X), ValueError, r"flatten\(3\): x must have at least 3 axes, got shape \(4, 5\)"),
        (lambda: fn.reshape((2, 2)).apply((), X), ValueError, r"reshape\(\(2, 2\)\): the last 1 axes of x must hold 4 values, got shape \(4, 5\)"),
        (lambda: fn.prelu(per_feature=True).apply(fn.PReLU(jnp.ones(3)), X), ValueError, r"prelu\(per_feature=True\): x must have shape \(…, 3\)"),
        (lambda: fn.elu(-1.0), ValueError, "elu: alpha must be at least 0, got -1.0"),
    ],
)  # fmt: skip
def test_bad_input_raises(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize(
    "layer", [fn.dense(3), fn.tanh(), fn.serial(fn.dense(3), fn.softmax()), fn.prelu()], ids=repr
)
def test_an_empty_batch_works(layer):
    x = jnp.zeros((0, 5))
    params = layer.init(KEY, x)
    y, _, saved = layer.forward(params, x)
    assert y.shape[0] == 0
    dparams, dx, _ = layer.backward(params, saved, jnp.zeros(y.shape))
    assert dx.shape == x.shape
    assert all(not leaf.any() for leaf in jax.tree.leaves(dparams))


def test_nan_in_one_example_stays_there():
    net = fn.serial(fn.dense(3), fn.tanh(), fn.dense(2), fn.log_softmax())
    params = net.init(KEY, X)
    y, _, saved = net.forward(params, X.at[1, 2].set(jnp.nan))
    assert jnp.isnan(y).any(1).tolist() == [False, True, False, False]
    _, dx, _ = net.backward(params, saved, jnp.ones_like(y))
    assert jnp.isnan(dx).any(1).tolist() == [False, True, False, False]


# --- a user's own layer ---


def test_own_layer_takes_only_the_keywords_it_names():
    layer = fn.layer(
        lambda key, x: (),
        lambda params, x, *, train: x * (2 if train else 1),
        lambda params, x, *, train, mask: (x * (2 if train else 1), train),
        lambda params, saved, dy: ((), dy * (2 if saved else 1)),
        name="doubling",
    )
    assert repr(layer) == "doubling"
    assert (layer.apply((), X, train=True) == 2 * X).all()
    assert fn.compare(layer, (), X, train=True).ok
    assert fn.compare(layer, (), X).ok


@pytest.mark.parametrize(
    ("forward", "backward", "says"),
    [
        (lambda p, x: x, lambda p, s, dy: ((), dy), r"mine: forward must return \(y, saved\), got"),
        (
            lambda p, x: (x, x, x),
            lambda p, s, dy: ((), dy),
            r"mine: forward must return \(y, saved\), got a tuple of 3",
        ),
        (lambda p, x: (x, x), lambda p, s, dy: dy, r"mine: backward must return \(dparams, dx\), got"),
    ],
)
def test_own_layer_that_returns_something_else_raises(forward, backward, says):
    layer = fn.layer(lambda key, x: (), lambda p, x: x, forward, backward, name="mine")
    with pytest.raises(TypeError, match=says):
        layer.backward((), layer.forward((), X)[2], X)
