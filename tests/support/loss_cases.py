"""Shared by the tests of the losses: a table of cases and the numbers in it."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn
from fnnets import catalogue

REFERENCES = json.loads((Path(__file__).parents[1] / "references" / "losses.json").read_text())["losses"]
SHAPE, CLASSES, IGNORED = (4, 3), 5, 1
MASK = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1]], bool)
WEIGHTS = (0.5, 1.0, 2.0, 0.25, 1.5)
SUMS = ("half_squared_error", "squared_error")

draw = np.random.default_rng(0)
numbers = draw.normal(size=(*SHAPE, CLASSES))
other_numbers = draw.normal(size=(*SHAPE, CLASSES))
signs = draw.choice([-1.0, 1.0], size=(*SHAPE, CLASSES))
shares = draw.uniform(0.05, 0.95, size=(*SHAPE, CLASSES))
distributions = draw.dirichlet(np.ones(CLASSES), size=SHAPE)
soft_targets = draw.dirichlet(np.ones(CLASSES), size=SHAPE)
labels = draw.integers(0, CLASSES, size=SHAPE)
labels[0, 0] = labels[3, 1] = IGNORED


class Case(NamedTuple):
    """One row of the table of cases, on which every property is tested."""

    loss: str
    options: dict
    y: np.ndarray
    target: np.ndarray

    def build(self):
        return getattr(fn.losses, self.loss)(**self.options)


def from_the_catalogue():
    """Cases for the catalogue's losses whose targets have the shape of y, with default options, in SHAPE."""
    rng = np.random.default_rng(1)
    for row in catalogue.loss_cases():
        if row.y is not None and row.name == row.made.info.name:
            y, target = (np.stack([draw(rng) for _ in range(SHAPE[1])], 1) for draw in (row.y, row.target))
            yield Case(row.name, {}, y, target)


def table():
    yield from from_the_catalogue()
    yield Case("huber", {"delta": 0.3}, numbers, other_numbers)
    some = ({}, {"weights": WEIGHTS}, {"label_smoothing": 0.2}, {"weights": WEIGHTS, "label_smoothing": 0.2})
    for loss, y in (("binary_cross_entropy", shares), ("sigmoid_cross_entropy", numbers)):
        yield from (Case(loss, options, y, soft_targets) for options in some)
        yield Case(loss, {}, y, signs > 0)
    for loss, y in (
        ("cross_entropy", distributions),
        ("nll", np.log(distributions)),
        ("softmax_cross_entropy", numbers),
    ):
        yield from (Case(loss, options, y, labels) for options in some)
        yield from (Case(loss, options | {"ignore_label": IGNORED}, y, labels) for options in some[::3])
        yield from (Case(loss, options, y, soft_targets) for options in some[::3])
        yield Case(loss, {"weights": WEIGHTS}, y, np.eye(CLASSES, dtype=int)[labels])


def label(case):
    kind = "labels" if case.target.shape == SHAPE else case.target.dtype
    return "-".join([case.loss, *(key for key in case.options if case.options[key]), str(kind)])


CASES = list(table())
every_case = pytest.mark.parametrize("case", CASES, ids=label)
FULLEST = {case.loss: case for case in sorted(CASES, key=lambda case: len(case.options))}
one_of_each = pytest.mark.parametrize("case", FULLEST.values(), ids=label)
on_logits = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
CLASSIFIED = ("cross_entropy", "nll", "softmax_cross_entropy")
classified = pytest.mark.parametrize("name", CLASSIFIED)


def close(got, expected, rtol=1e-12):
    np.testing.assert_allclose(got, np.asarray(expected), rtol=rtol, atol=1e-15)


class Numbers(NamedTuple):
    """A loss's value and gradient, by hand and by autodiff."""

    value: np.ndarray  # from forward
    dy: np.ndarray  # from backward
    applied: np.ndarray  # from apply
    autodiff: np.ndarray  # the autodiff gradient of apply


def both_ways(loss, y, target, mask=None, dvalue=1.0):
    # Not under jit: all cases use the same few operations, each compiled once.
    value, saved = loss.forward(y, target, mask)
    applied, gradient = jax.value_and_grad(loss.apply)(jnp.asarray(y), target, mask)
    return Numbers(*map(np.asarray, (value, loss.backward(saved, dvalue), applied, gradient)))
