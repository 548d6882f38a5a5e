"""The rows of the catalogue, and how their numbers are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import fnnets as fn
from fnnets.comparison import problems
from fnnets.comparison.measurement import Problem, measure
from fnnets.comparison.report import Report
from fnnets.comparison.verdict import judge
from fnnets.core.layer import Info, Layer
from fnnets.core.parameters import Stats

Draw = Callable[[np.random.Generator], Any]


class Case(NamedTuple):
    """A row of the catalogue.

    Attributes:
      name: unique; `--only` selects by it.
      problem: `(seed) -> Problem` at random params, away from initialisation, in float64.
      layer: the layer; None in the row of a loss or a penalty.
      x: `(rng) -> input`; None in the row of a loss or a penalty.
      mode: the keyword arguments of the layer's apply: train, key, mask.
      carried: whether the problem compares a carry and its gradient too.
      made: the layer, loss or penalty of the row.
      y: `(rng) -> output`, in the row of a loss.
      target: `(rng) -> target`, in the row of a loss.
    """

    name: str
    problem: Callable[[int], Problem]
    layer: Layer | None
    x: Draw | None
    mode: dict[str, Any]
    carried: bool = False
    made: Any = None
    y: Draw | None = None
    target: Draw | None = None

    def factories(self) -> set[str]:
        """The names of all factories in the row: "serial" and "dense" for a network of dense layers."""

        def names(info: Info) -> set[str]:
            return {info.name}.union(*(names(child.info) for child in info.children))

        return names(self.made.info)

    def compare(self, seed: int = 0) -> Report:
        """Compares the row's gradients and returns the report."""
        with jax.enable_x64(True):
            problem = self.problem(seed)
            return judge(problem, measure(problem))


def random_params(layer: Layer, rng: np.random.Generator, x: Any) -> Any:
    """Random params, biases too: a bias of 0, as at the start, hides mistakes."""

    def draw(node: Any) -> Any:
        if isinstance(node, Stats):
            weight = jax.tree.map(lambda leaf: rng.uniform(0.1, 1.0, leaf.shape), node.weight)
            return Stats(rng.standard_normal(node.mean.shape), rng.uniform(0.5, 2.0, node.var.shape), weight)  # type: ignore[arg-type]
        return 0.6 * rng.standard_normal(node.shape)

    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.tree.map(draw, shapes, is_leaf=lambda node: isinstance(node, Stats))


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    """A tree of the same shapes with standard normal values."""
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), tree)


def normal(*shape: int) -> Draw:
    """Standard normal values."""
    return lambda rng: rng.standard_normal(shape)


def ids(below: int, *shape: int) -> Draw:
    """Integers of at least 0 and less than `below`, as int32."""
    return lambda rng: rng.integers(0, below, shape, dtype=np.int32)


def probabilities(*shape: int) -> Draw:
    """Rows that are distributions."""
    return lambda rng: rng.dirichlet(np.full(shape[-1], 2.0), shape[:-1])


def log_probabilities(*shape: int) -> Draw:
    """Rows that are logarithms of distributions."""
    return lambda rng: np.log(probabilities(*shape)(rng))


def shares(*shape: int) -> Draw:
    """Numbers between 0.05 and 0.95."""
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def signs(*shape: int) -> Draw:
    """−1 and 1."""
    return lambda rng: rng.choice([-1.0, 1.0], shape)


def one_hot(classes: int, *shape: int) -> Draw:
    """One-hot rows."""
    return lambda rng: np.eye(classes)[rng.integers(0, classes, shape)]


def several(*draws: Draw) -> Draw:
    """A tuple of draws."""
    return lambda rng: tuple(draw(rng) for draw in draws)


def bools(mask: Any) -> Any:
    """Converts a mask of nested lists of 0 and 1 to an array of bools, or a tuple of masks to a tuple."""
    if isinstance(mask, tuple):
        return tuple(map(bools, mask))
    return None if mask is None else np.array(mask, bool)


def layer_case(
    name: str, layer: Layer, x: Draw, *, train: bool = False, mask: Any = None, carried: bool = False
) -> Case:
    """A row for a layer.

    The mask is a nested list of 0 and 1, or a tuple of such lists if x is a tuple. `carried` adds a random carry.
    """
    mode: dict[str, Any] = {"train": train, "mask": bools(mask)}

    compiled = problems.functions(layer, train, with_carry=carried)

    def problem(seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        inputs = x(rng)
        params, key = random_params(layer, rng, inputs), jax.random.key(seed) if train else None
        carry = random_like(fn.zero_carry(layer, params, inputs), rng) if carried else None
        return problems.of_layer(layer, params, inputs, key=key, carry=carry, compiled=compiled, **mode)

    return Case(name, problem, layer, x, mode, carried, made=layer)


def loss_case(name: str, loss: Any, y: Draw, target: Draw, *, mask: Any = None) -> Case:
    """A row for a loss."""

    def problem(seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        return problems.of_loss(loss, y(rng), target(rng), bools(mask))

    return Case(name, problem, None, None, {}, made=loss, y=y, target=target)


def penalty_case(name: str, penalty: Any, layer: Layer, x: Draw) -> Case:
    """A row for a penalty on a network's params."""

    def problem(seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        return problems.of_penalty(penalty, random_params(layer, rng, x(rng)))

    return Case(name, problem, None, None, {}, made=penalty)


# Padding on the right, on the left, a gap, everything masked.
GAPS = [[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]]

# A batch with every kind of mask: none, padding on the right, on the left, a gap, everything masked.
MASKS = [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]
