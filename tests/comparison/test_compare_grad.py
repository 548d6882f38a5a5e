"""compare_grad: any function and any derivation, in NumPy too."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue

X = np.random.default_rng(0).standard_normal((4, 5))


def point(layer, x=X, seed=3):
    return catalogue.random_params(layer, np.random.default_rng(seed), x)


def numpy_derivation(w, x):
    return 2 * np.asarray(x).T @ (np.asarray(x) @ np.asarray(w))


def test_a_numpy_derivation_of_a_jax_function():
    w = np.random.default_rng(2).standard_normal(5)
    assert fn.compare_grad(lambda w, x: jnp.sum((x @ w) ** 2), numpy_derivation, w, X).ok
    report = fn.compare_grad(
        lambda w, x: jnp.sum((x @ w) ** 2), lambda w, x: numpy_derivation(w, x) / 4, w, X
    )
    assert report.rows[0].cause == "factor"


def test_a_derivation_that_writes_into_its_argument():
    def derivation(w):
        w[:] = 2 * w
        return w

    w = np.arange(3.0)
    assert fn.compare_grad(lambda w: jnp.sum(w**2), derivation, w).ok
    assert w.tolist() == [0, 1, 2], "the caller's array does not change"


def test_a_numpy_function_is_compared_with_differences_alone():
    def f(w):
        return float(np.sum(np.sin(np.asarray(w))))

    assert fn.compare_grad(f, np.cos, np.arange(3.0)).ok
    report = fn.compare_grad(f, lambda w: -np.cos(w), np.arange(3.0))
    assert report.rows[0].cause == "sign"
    assert "differences alone" in str(report)


def test_several_arguments_and_trees():
    f = lambda a, n, b: jnp.sum(a["p"] * b) * n
    hand = lambda a, n, b: ({"p": b * n}, a["p"] * n)
    args = ({"p": np.arange(3.0)}, 2, np.ones(3))
    report = fn.compare_grad(f, hand, *args, argnums=(0, 2))
    assert report.ok
    assert [row.path for row in report.rows] == ["args[0]['p']", "args[2]"]


def test_compare_grad_bad_use():
    with pytest.raises(ValueError, match=r"must return a scalar, got shape \(3,\).*vdot"):
        fn.compare_grad(lambda w: w, lambda w: w, np.ones(3))
    with pytest.raises(TypeError, match="no floating-point leaf"):
        fn.compare_grad(lambda w: jnp.sum(w), lambda w: w, np.arange(3))
    with pytest.raises(ValueError, match="one of the 1 arguments, got 1"):
        fn.compare_grad(lambda w: jnp.sum(w), lambda w: w, np.ones(3), argnums=1)


def test_assert_grad_matches():
    fn.assert_grad_matches(fn.dense(3), point(fn.dense(3)), X)
    fn.assert_grad_matches(lambda w: jnp.sum(w**2), lambda w: 2 * w, np.ones(3))
    with pytest.raises(AssertionError, match="constant factor of ½"):
        fn.assert_grad_matches(lambda w: jnp.sum(w**2), lambda w: w, np.ones(3))


def test_the_worst_error_of_a_report_with_nan_is_not_finite():
    report = fn.compare_grad(lambda w: jnp.sum(w**2), lambda w: w * np.nan, np.ones(3))
    assert not report.ok
    assert not math.isfinite(report.worst_autodiff)


SEQUENCE = np.random.default_rng(4).standard_normal((6, 3))


def scanned(p, x, reverse=False):
    """A plain recurrence: h_t = tanh([x_t, h_{t−1}]·w + a⊙h_{t−1} + b), E = Σ sin h_t."""

    def step(h, x):
        h = jnp.tanh(jnp.concatenate([x, h]) @ p["w"] + p["a"] * h + p["b"])
        return h, h

    return jnp.sin(jax.lax.scan(step, p["start"], x, reverse=reverse)[1]).sum()


def bptt(p, x, mistake="", reverse=False):
    """The derivation of `scanned` in NumPy."""
    x = x[::-1] if reverse else x
    h = [p["start"]]
    for row in x:
        h.append(np.tanh(np.concatenate([row, h[-1]]) @ p["w"] + p["a"] * h[-1] + p["b"]))
    dh, dz = np.zeros(2), []
    for t in reversed(range(len(x))):
        dh = (dh + np.cos(h[t + 1])) * (1 - h[t + 1] ** 2)
        dz.insert(0, dh)
        dh = p["w"][3:] @ dh + p["a"] * dh
    first = dh
    shift = {"dz of the step after": 1, "dz of the step before": -1}.get(mistake, 0)
    pairs = [(t, t + shift) for t in range(len(x)) if 0 <= t + shift < len(x)]
    if mistake == "the last step alone":
        pairs = pairs[-1:]
    late = mistake == "the state after the step"
    dw = sum(np.outer(np.concatenate([x[t], h[t + late]]), dz[s]) for t, s in pairs)
    da, db = (sum(of(t) * dz[s] for t, s in pairs) for of in (lambda t: h[t + late], lambda t: 1.0))
    return {"a": da, "b": db, "start": first, "w": dw}


@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("mistake", "says", "right"),
    [
        ("", "", "abswtart"),
        ("the state after the step", "one step late: scan pairs each step's gradient with the state after", "b"),
        ("dz of the step after", "one step off: scan pairs each step's gradient with the values of the step before", ""),
        ("dz of the step before", "one step off: scan pairs each step's gradient with the values of the step after", ""),
        ("the last step alone", "only the last step of scan counts", ""),
    ],
)  # fmt: skip
def test_recurrence_indices_off_by_one_are_named(mistake, says, right, reverse):
    rng = np.random.default_rng(5)
    p = {
        name: 0.7 * rng.standard_normal(shape)
        for name, shape in (("w", (5, 2)), ("a", 2), ("b", 2), ("start", 2))
    }
    report = fn.compare_grad(
        lambda p: scanned(p, SEQUENCE, reverse), lambda p: bptt(p, SEQUENCE, mistake, reverse), p
    )
    assert report.ok == (mistake == "")
    wrong = [row for row in report.rows if not row.ok]
    assert all(says in row.diagnosis for row in wrong), report
    assert all(row.path[9] in ("s", *right) for row in report.rows if row.ok)
