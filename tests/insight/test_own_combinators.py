"""Tools that look inside networks see as much in a user's own combinators as in the library's."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_combinators import met, piled

import fnnets as fn
from fnnets import catalogue

DEPTH, T = 3, 4
X = np.random.default_rng(0).standard_normal((2, T, 2))


class Pair(NamedTuple):
    """A user's combinator, and the combinator of the library that must give the same."""

    name: str
    own: Callable[[fn.Layer], fn.Layer]
    theirs: str
    ours: Callable[[fn.Layer], fn.Layer]

    def renamed(self, text):
        """A text about the library's combinator, with the name of the user's."""
        return text.replace(self.theirs, self.name)


PILED = Pair("piled", lambda layer: piled(layer, DEPTH), "stack", lambda layer: fn.stack(layer, DEPTH))
MET = Pair("met", met, "bidirectional", lambda layer: fn.bidirectional(layer, "sum"))
each = pytest.mark.parametrize("pair", [PILED, MET], ids=lambda pair: pair.name)
ELMAN, RELU = fn.elman(2, use_bias=False), fn.elman(2, fn.relu(), use_bias=False)


def around(combinator, layer):
    """A network with the combinator inside, and a recurrent layer inside the combinator."""
    inner = fn.serial(layer, fn.dense(2, use_bias=False))
    return fn.serial(fn.dense(2, use_bias=False), combinator(inner))


def both(pair, layer):
    return around(pair.own, layer), around(pair.ours, layer)


def elman_with(change):
    """An Elman layer whose backward step is `change(dh, dz, h)` of the right one; h is the state after the step."""
    cell = ELMAN.info.recurrence.cell

    def backward(params, h, saved, dh):
        return change(*cell.backward(params, h, saved, dh), saved)

    return fn.recurrent(cell._replace(backward=backward, info="mine"))


def point(net):
    return jax.tree.map(jnp.float32, catalogue.random_params(net, np.random.default_rng(1), X))


def same(found, expected, pair):
    """The same paths in the same order, and the same values."""
    assert list(found) == [pair.renamed(path) for path in expected]
    chex.assert_trees_all_close(list(found.values()), list(expected.values()), rtol=1e-5)


@each
def test_the_summary_is_the_same(pair):
    own, ours = (fn.summary(net, jnp.float32(X)) for net in both(pair, ELMAN))
    assert str(own).split() == pair.renamed(str(ours)).split()
    assert [row.shape for row in own.rows] == [row.shape for row in ours.rows]


def test_a_summary_refuses_params_that_are_not_one_for_each_child():
    net = piled(fn.dense(2), DEPTH)
    net = net._replace(info=dataclasses.replace(net.info, unwrapped=False))
    with pytest.raises(
        TypeError, match=r"piled\(…\): params must be a tuple of 1.*got Dense of 2; .*unwrapped=True"
    ):
        fn.summary(net, jnp.float32(X))


@each
def test_intermediates_and_the_trace_are_the_same(pair):
    own, ours = both(pair, ELMAN)
    params, x = point(ours), jnp.float32(X)
    same(*(fn.intermediates(net, params, x) for net in (own, ours)), pair)
    found, expected = (fn.trace_backward(net, params, x, jnp.ones_like(x)) for net in (own, ours))
    assert any("dh_before" in values for values in found.values())
    same(found, expected, pair)


OVERFLOW = {  # huge recurrent weights: in the last copy; in the layer that reads from the end
    "piled": (
        lambda params: (params[0]._replace(u=params[0].u.at[-1].set(1e20)), params[1]),
        "forward: h[2, 0, 2, 0] of 1.piled/0.serial/0.elman, copy 2, step 2, is inf",
    ),
    "met": (
        lambda params: (params[0], (params[1][0]._replace(u=1e20 * params[1][0].u), params[1][1])),
        "forward: h[0, 2, 0] of 1.met/1.serial/0.elman, step 1 of x, which it reads from the end, is inf",
    ),
}
DIVISION = {  # the first backward step at which h is 0
    "piled": "backward: dz[2, 0, 1, 0] of 1.piled/0.serial/0.mine, copy 2, step 1, is",
    "met": "backward: dz[0, 1, 0] of 1.met/1.serial/0.mine, step 2 of x, which it reads from the end, is",
}


@each
def test_an_overflow_is_located(pair):
    net, (grown, says) = around(pair.own, RELU), OVERFLOW[pair.name]
    first, inside = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), point(net))
    assert str(fn.locate_nan(net, (first, grown(inside)), jnp.ones((2, T, 2)))).startswith(says)


@each
def test_a_division_in_the_backward_pass_is_located(pair):
    net, x = around(pair.own, elman_with(lambda dh, dz, h: (dh, dz / h))), jnp.ones((2, T, 2))
    x = x.at[:, :2].set(0.0) if pair is PILED else x.at[:, 2:].set(0.0)
    found = fn.locate_nan(net, point(net), x, dy=jnp.ones_like(x))
    assert str(found).startswith(DIVISION[pair.name])


# The mistake is made where the first unit of the first example lies between 0.05 and 0.25.
MISTAKE = {
    "piled": "t = 2 (of 0…3): dh_before of mine at 1.piled/0.serial/0.mine, copy 0",
    "met": "t = 1 (of 0…3, from the end): dh_before of mine at 1.met/1.serial/0.mine",
}


@each
def test_a_planted_mistake_is_found(pair):
    right = around(pair.own, ELMAN)
    assert fn.compare(right, point(right), X).ok
    wrong = elman_with(lambda dh, dz, h: (jnp.where(abs(h[0, 0] - 0.15) < 0.1, 2.0, 1.0) * dh, dz))
    report = fn.compare(around(pair.own, wrong), point(right), X)
    assert report.notes[0] == f"the backward pass first departs from autodiff at {MISTAKE[pair.name]}"
    layers = {row.layer for row in report.rows if row.path.startswith("params[1]")}
    assert layers == {"mine", "dense(2, use_bias=False)"}, "the rows name the layers inside"
