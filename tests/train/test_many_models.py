"""Many models in one program: each is the model that `fit` trains alone."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
X = 5 + RNG.standard_normal((13, 3))
T = np.sin(X[:, :1])
NET = fn.serial(fn.dense(3, use_bias=False), fn.batch_norm(), fn.dropout(0.3), fn.tanh(), fn.dense(1))
PLAIN = fn.serial(fn.dense(2), fn.tanh(), fn.dense(1))
MSE, ADAM = fn.losses.mse(), fn.updaters.adam(0.05)
ERROR = {"error": lambda y, t: jnp.abs(y - t)[:, 0]}
close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)


def own(i):
    return jax.random.fold_in(KEY, i)


@pytest.mark.parametrize("remainder", ["pad", pytest.param("drop", marks=pytest.mark.full)])
def test_folds_of_different_sizes_are_separate_fits(remainder, x64):
    """8, 9 and 9 rows in batches of 4: the numbers of steps differ too."""
    scaler, settings = fn.data.standardise(), {"epochs": 3, "batch_size": 4, "remainder": remainder}
    splits = fn.data.kfold(jax.random.key(1), 13, 3)
    found = fn.train.cross_validate(
        NET, MSE, ADAM, (X, T), splits, key=KEY, scaler=scaler, metrics=ERROR, **settings
    )
    for i, (train, test) in enumerate(splits.each()):
        scale = scaler.fit(X[train])
        examples = scaler.apply(scale, X[train]), T[train]
        alone = fn.train.fit(NET, MSE, ADAM, examples, key=own(i), **settings)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], (found.params, found.scales)), (alone.params, scale))
        close(found.history.loss[i], alone.history.loss)
        steps = found.history.steps[i]
        np.testing.assert_allclose(steps[np.isfinite(steps)], alone.history.steps.ravel(), rtol=1e-10)
        held = scaler.apply(scale, X[test]), T[test]
        scores = fn.train.evaluate(NET, MSE, alone.params, held, metrics=ERROR)
        close({name: values[i] for name, values in found.scores.items()}, jax.device_get(scores))
    assert str(found).splitlines()[-1].split()[1] == f"{found.scores['loss'].std(ddof=1):.4g}"


def test_test_rows_do_not_change_their_own_fold():
    """A fold's params and scale are the same, bit for bit, for any values in its test rows."""
    splits = fn.data.kfold(jax.random.key(1), 13, 3)
    again = partial(
        fn.train.cross_validate, PLAIN, MSE, ADAM, splits=splits, epochs=2, key=KEY, batch_size=4,
        scaler=SCALER,
    )  # fmt: skip
    before = again((X, T))
    for i, (_, test) in enumerate(splits.each()):
        x, target = X.copy(), T.copy()
        x[test], target[test] = 1e3, -7.0
        after = again((x, target))
        same = [jax.tree.map(lambda leaf, i=i: leaf[i], (run.params, run.scales)) for run in (before, after)]
        chex.assert_trees_all_equal(*same)


SCALER = fn.data.min_max()


def test_models_of_an_ensemble_are_separate_fits(x64):
    settings = {
        "epochs": 4,
        "batch_size": 5,
        "validation": (X, T),
        "early_stopping": fn.train.early_stopping(1),
    }
    found = fn.train.ensemble(NET, MSE, ADAM, (X, T), models=3, key=KEY, **settings)
    ends = []
    for i in range(3):
        alone = fn.train.fit(NET, MSE, ADAM, (X, T), key=own(i), **settings)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], found.params), alone.params)
        ends.append(len(alone.history.loss))
        assert np.isfinite(found.history.loss[i]).sum() == ends[-1], "a stopped model does not change"
    assert len(set(ends)) > 1
    outputs = np.stack(
        [NET.apply(jax.tree.map(lambda leaf, i=i: leaf[i], found.params), X) for i in range(3)]
    )
    mean, spread = fn.train.predict(NET, found.params, X, transform=jnp.exp)
    close((mean, spread), (np.exp(outputs).mean(0), np.exp(outputs).std(0, ddof=1)))


def test_models_of_bagging_are_separate_fits(x64):
    settings = {"epochs": 2, "batch_size": 5}
    found = fn.train.ensemble(PLAIN, MSE, ADAM, (X, T), models=2, key=KEY, bootstrap=True, **settings)
    for i in range(2):
        rows = fn.data.bootstrap(jax.random.fold_in(own(i), 3), 13).train
        alone = fn.train.fit(PLAIN, MSE, ADAM, (X[rows], T[rows]), key=own(i), **settings)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], found.params), alone.params)


def make(rate, penalty, units):
    net = fn.serial(fn.dense(units), fn.tanh(), fn.dense(1))
    return fn.train.Recipe(net, MSE, fn.updaters.sgd(rate), fn.l2(penalty))


def swept(**options):
    settings = {"epochs": 2, "batch_size": 5, "key": KEY, "metrics": ERROR}
    return fn.train.sweep(make, (X[:9], T[:9]), (X[9:], T[9:]), **{**settings, **options})


def test_points_of_a_sweep_are_separate_fits(x64):
    numbers = {"rate": (0.01, 0.1, 1e200), "penalty": (0.0, 0.5)}
    found = swept(numbers=numbers, structures={"units": {"two": 2}}, seeds=2)
    assert list(found.axes) == ["units", "rate", "penalty", "seed"]
    assert found.scores["error"].shape == (1, 3, 2, 2)
    assert found.history.loss.shape == (1, 3, 2, 2, 2)
    assert np.isnan(found.scores["loss"][:, 2]).all(), "a training that diverges has no score"
    recipe = make(0.1, 0.5, 2)
    alone = fn.train.fit(
        recipe.net, MSE, recipe.updater, (X[:9], T[:9]),
        epochs=2, batch_size=5, key=own(1), penalty=recipe.penalty,
    )  # fmt: skip
    close(found.history.steps[0, 1, 1, 1], alone.history.steps)
    held = fn.train.evaluate(recipe.net, MSE, alone.params, (X[9:], T[9:]))
    np.testing.assert_allclose(found.scores["loss"][0, 1, 1, 1], held["loss"], rtol=1e-10)
    means = found.scores["loss"].mean(-1)
    best = np.unravel_index(np.nanargmin(means), means.shape)
    assert found.best() == {
        "units": "two",
        "rate": numbers["rate"][best[1]],
        "penalty": numbers["penalty"][best[2]],
    }
    lines = found.table().splitlines()
    assert lines[0].split() == ["units", "rate", "penalty", "loss", "deviation"]
    assert len(lines) == 2 + 6
    assert "nan" in lines[-1]
    assert found.table("error", larger_is_better=True, rows=1).count("\n") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: swept(), "there is nothing to sweep"),
        (lambda: swept(numbers={"rate": (1.0,)}, structures={"rate": (1,)}), "the name 'rate' is used twice"),
        (lambda: swept(numbers={"seed": (1.0,)}), "the name 'seed' is used twice"),
        (lambda: swept(numbers={"rate": ()}), "rate must have at least one value"),
        (lambda: swept(numbers={"rate": (1.0,)}, seeds=0), "seeds must be a whole number of at least 1"),
        (
            lambda: fn.train.sweep(lambda rate: 3, (X, T), (X, T), numbers={"rate": (1.0,)}, epochs=1, key=KEY),
            "make must return a fn.train.Recipe, got int",
        ),
        (lambda: validated(fn.data.holdout(KEY, 13)), r"splits.train must have shape \(k, a\), got \(9,\)"),
        (lambda: swept(numbers={"rate": 0.1}), r"rate must have a sequence of values, got 0.1; give \(0.1,\)"),
        (lambda: swept(structures={"units": "tanh"}), "units must have a sequence of values, got 'tanh'"),
        (lambda: validated(3), "splits must be a Split"),
        (lambda: validated(fn.data.kfold(KEY, 13, 3), scaler="z"), "scaler must be a scaler, .* got 'z'"),
        (lambda: validated(fn.data.Split(-np.ones((2, 4), int), np.ones((2, 1), int))), "got row -1"),
        (lambda: validated(fn.data.kfold(KEY, 15, 3)), "splits must be of the 13 examples, got row 14"),
        (lambda: validated(fn.data.kfold(KEY, 13, 3), remainder="keep"), "remainder must be one of 'pad', 'drop'"),
        (lambda: validated(fn.data.kfold(KEY, 13, 3), batch_size=10), "at most the number of rows, 9, got 10"),
        (lambda: fn.train.predict(PLAIN, PLAIN.init(KEY, X), X), "those of at least two models"),
        (lambda: fn.train.ensemble(PLAIN, MSE, ADAM, (X, T), models=0, epochs=1, key=KEY), "models must be"),
    ],
)  # fmt: skip
def test_errors_name_the_mistake(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def validated(splits, **options):
    settings = {"epochs": 1, "key": KEY, "batch_size": 4, **options}
    return fn.train.cross_validate(PLAIN, MSE, ADAM, (X, T), splits, **settings)
