"""The settings of a training: an error names the function that the user called."""

import jax
import numpy as np
import pytest

import fnnets as fn

KEY, X = jax.random.key(0), np.ones((6, 2), np.float32)
NET, MSE, SGD = fn.dense(2), fn.losses.mse(), fn.updaters.sgd(0.1)


def fit(net=NET, **options):
    fn.train.fit(net, MSE, SGD, (X, X), epochs=1, key=KEY, **options)


def ensemble(net=NET, **options):
    fn.train.ensemble(net, MSE, SGD, (X, X), models=2, epochs=1, key=KEY, **options)


def cross_validate(net=NET, **options):
    fn.train.cross_validate(net, MSE, SGD, (X, X), fn.data.kfold(KEY, 6, 2), epochs=1, key=KEY, **options)


def sweep(net=NET, **options):
    def make(rate):
        return fn.train.Recipe(net, MSE, fn.updaters.sgd(rate))

    fn.train.sweep(make, (X, X), (X, X), numbers={"rate": (0.1,)}, epochs=1, key=KEY, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": fn.dense}, "layer 0 must be a Layer, got dense"),
        ({"net": fn.lstm(2, time_major=True)}, "the first axis of x must be the examples"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"remainder": "rest"}, "remainder must be one of 'pad', .*, got 'rest'"),
        ({"gradient": "numeric"}, "gradient must be one of 'hand', 'autodiff', got 'numeric'"),
        ({"metrics": fn.train.accuracy}, "metrics must be functions by name"),
        ({"mesh": "all"}, "mesh must be a jax.sharding.Mesh, got str"),
    ],
)
@pytest.mark.parametrize("call", [fit, ensemble, cross_validate, sweep], ids=lambda call: call.__name__)
def test_invalid_settings_are_refused_in_the_callers_name(call, options, message):
    with pytest.raises((TypeError, ValueError), match=f"^{call.__name__}: {message}"):
        call(**options)
