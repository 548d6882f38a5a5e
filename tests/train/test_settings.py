"""The settings of a training: who asks for them is named where they are refused."""

import jax
import numpy as np
import pytest

import fnnets as fn

KEY, X = jax.random.key(0), np.ones((6, 2), np.float32)
NET, MSE, SGD = fn.dense(2), fn.losses.mse(), fn.updaters.sgd(0.1)


def fit(net=NET, **given):
    fn.train.fit(net, MSE, SGD, (X, X), epochs=1, key=KEY, **given)


def ensemble(net=NET, **given):
    fn.train.ensemble(net, MSE, SGD, (X, X), models=2, epochs=1, key=KEY, **given)


def cross_validate(net=NET, **given):
    fn.train.cross_validate(net, MSE, SGD, (X, X), fn.data.kfold(KEY, 6, 2), epochs=1, key=KEY, **given)


def sweep(net=NET, **given):
    def make(rate):
        return fn.train.Recipe(net, MSE, fn.updaters.sgd(rate))

    fn.train.sweep(make, (X, X), (X, X), numbers={"rate": (0.1,)}, epochs=1, key=KEY, **given)


@pytest.mark.parametrize(
    ("given", "message"),
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
def test_what_cannot_be_trained_with_is_refused_in_the_callers_name(call, given, message):
    with pytest.raises((TypeError, ValueError), match=f"^{call.__name__}: {message}"):
        call(**given)
