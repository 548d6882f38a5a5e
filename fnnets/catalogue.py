"""Every layer and loss in small configurations: one table, which the command line and the tests share.

A new layer is one new row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import fnnets as fn
from fnnets.comparison import problems
from fnnets.comparison.judge import judge
from fnnets.comparison.measure import Problem, measure
from fnnets.comparison.report import Report
from fnnets.contract import Layer
from fnnets.parameters import Stats

Draw = Callable[[np.random.Generator], Any]


class Case(NamedTuple):
    """A row of the catalogue.

    Attributes:
      name: unique; what `--only` selects by.
      problem: `(seed) -> Problem` at a random point away from initialisation, in float64.
      layer: the layer; None in a row of a loss or a penalty.
      x: `(rng) -> input`; None in a row of a loss or a penalty.
      mode: the keyword arguments of the layer's apply: train, key, mask.
      carried: whether the problem has a carry, its gradient and that of the last carry.
    """

    name: str
    problem: Callable[[int], Problem]
    layer: Layer | None
    x: Draw | None
    mode: dict[str, Any]
    carried: bool = False

    def compare(self, seed: int = 0) -> Report:
        """The row's report."""
        with jax.enable_x64(True):
            problem = self.problem(seed)
            return judge(problem, measure(problem))


def random_params(layer: Layer, rng: np.random.Generator, x: Any) -> Any:
    """Params drawn at random, biases too: where one is 0, as at the start, mistakes hide."""

    def draw(node: Any) -> Any:
        if isinstance(node, Stats):
            return Stats(rng.standard_normal(node.mean.shape), rng.uniform(0.5, 2.0, node.var.shape))  # type: ignore[arg-type]
        return 0.6 * rng.standard_normal(node.shape)

    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
    return jax.tree.map(draw, shapes, is_leaf=lambda node: isinstance(node, Stats))


def random_like(tree: Any, rng: np.random.Generator) -> Any:
    """A tree of the same shapes, standard normal."""
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), tree)


def normal(*shape: int) -> Draw:
    """Standard normal values."""
    return lambda rng: rng.standard_normal(shape)


def ids(below: int, *shape: int) -> Draw:
    """Integers from 0 on, as int32."""
    return lambda rng: rng.integers(0, below, shape, dtype=np.int32)


def probabilities(*shape: int) -> Draw:
    """Rows that are distributions."""
    return lambda rng: rng.dirichlet(np.full(shape[-1], 2.0), shape[:-1])


def log_probabilities(*shape: int) -> Draw:
    """Rows that are logarithms of distributions."""
    return lambda rng: np.log(probabilities(*shape)(rng))


def shares(*shape: int) -> Draw:
    """Numbers inside (0, 1)."""
    return lambda rng: rng.uniform(0.05, 0.95, shape)


def signs(*shape: int) -> Draw:
    """−1 and 1."""
    return lambda rng: rng.choice([-1.0, 1.0], shape)


def one_hot(classes: int, *shape: int) -> Draw:
    """One-hot rows."""
    return lambda rng: np.eye(classes)[rng.integers(0, classes, shape)]


def layer_case(
    name: str, layer: Layer, x: Draw, *, train: bool = False, mask: Any = None, carried: bool = False
) -> Case:
    """A row for a layer; the mask is a nested list of 0 and 1, or a pair; carried: with a carry drawn at random."""
    if mask is not None:
        mask = tuple(np.array(m, bool) for m in mask) if isinstance(mask, tuple) else np.array(mask, bool)
    mode: dict[str, Any] = {"train": train, "mask": mask}

    compiled = problems.functions(layer, train, with_carry=carried)

    def problem(seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        given = x(rng)
        params, key = random_params(layer, rng, given), jax.random.key(seed) if train else None
        carry = random_like(fn.zero_carry(layer, params, given), rng) if carried else None
        return problems.of_layer(layer, params, given, key=key, carry=carry, compiled=compiled, **mode)

    return Case(name, problem, layer, x, mode, carried)


def loss_case(name: str, loss: Any, y: Draw, target: Draw, *, mask: Any = None) -> Case:
    """A row for a loss."""

    def problem(seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        return problems.of_loss(loss, y(rng), target(rng), None if mask is None else np.array(mask, bool))

    return Case(name, problem, None, None, {})


def penalty_case(name: str, penalty: Any, layer: Layer, x: Draw) -> Case:
    """A row for a penalty on a network's params."""

    def problem(seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        return problems.of_penalty(penalty, random_params(layer, rng, x(rng)))

    return Case(name, problem, None, None, {})


GAPS = [[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]]  # right padding, left padding, a gap, nothing at all


def layer_cases() -> list[Case]:
    """The rows with single layers."""
    rows = [
        layer_case("dense", fn.dense(3), normal(4, 5)),
        layer_case("dense, no bias", fn.dense(3, use_bias=False), normal(4, 5)),
        layer_case("dense, square", fn.dense(4), normal(3, 4)),
        layer_case("dense, over time", fn.dense(2), normal(4, 3, 5)),
        layer_case("dense, no batch", fn.dense(3), normal(5)),
        layer_case("dense, batch of one", fn.dense(3), normal(1, 5)),
        layer_case("embedding", fn.embedding(7, 3), ids(7, 4, 5)),
        layer_case("embedding, outside", fn.embedding(7, 3), ids(5, 6)),
        layer_case("dropout, training", fn.dropout(0.3), normal(6, 5), train=True),
        layer_case("dropout, inference", fn.dropout(0.3), normal(4, 5)),
        layer_case("dropout, everything", fn.dropout(1.0), normal(4, 5), train=True),
        layer_case("flatten", fn.flatten(2), normal(4, 3, 2)),
        layer_case("reshape", fn.reshape((3, 2)), normal(4, 6)),
        layer_case("reshape, two axes", fn.reshape((6,), axes=2), normal(4, 2, 3)),
        layer_case("identity", fn.identity(), normal(4, 5)),
        layer_case("prelu", fn.prelu(), normal(4, 5)),
        layer_case("prelu, per feature", fn.prelu(per_feature=True), normal(4, 5)),
        layer_case("leaky_relu, 0.2", fn.leaky_relu(0.2), normal(4, 5)),
        layer_case("elu, 0.5", fn.elu(0.5), normal(4, 5)),
        layer_case("gelu, tanh form", fn.gelu(approximate=True), normal(4, 5)),
    ]
    plain = (
        fn.sigmoid, fn.tanh, fn.relu, fn.leaky_relu, fn.elu, fn.selu, fn.softplus, fn.gelu, fn.silu,
        fn.hard_sigmoid, fn.softmax, fn.log_softmax,
    )  # fmt: skip
    return rows + [layer_case(factory.__name__, factory(), normal(4, 5)) for factory in plain]


def network_cases() -> list[Case]:
    """The rows with combinators."""
    block = fn.serial(fn.dense(5), fn.tanh())
    deep = fn.serial(
        fn.dense(4), fn.gelu(), fn.residual(fn.serial(fn.dense(4), fn.silu())),
        fn.branch(fn.dense(2), fn.identity()), fn.dense(3), fn.log_softmax(),
    )  # fmt: skip
    return [
        layer_case("serial", fn.serial(fn.dense(4), fn.tanh(), fn.dense(2)), normal(3, 5)),
        layer_case("serial, empty", fn.serial(), normal(4, 5)),
        layer_case(
            "serial, masked", fn.serial(fn.dense(4), fn.sigmoid(), fn.dense(2)), normal(4, 3, 5), mask=GAPS
        ),
        layer_case(
            "serial, dropout", fn.serial(fn.dense(4), fn.tanh(), fn.dropout(0.5)), normal(3, 5), train=True
        ),
        layer_case("serial, ids", fn.serial(fn.embedding(6, 3), fn.dense(2)), ids(6, 4, 3), mask=GAPS),
        layer_case("residual", fn.residual(block), normal(4, 5)),
        layer_case("residual, masked", fn.residual(block), normal(4, 3, 5), mask=GAPS),
        layer_case("branch, concat", fn.branch(fn.dense(2), fn.tanh(), fn.dense(3)), normal(4, 5)),
        layer_case("branch, sum", fn.branch(fn.dense(5), fn.tanh(), merge="sum"), normal(4, 5)),
        layer_case("stack", fn.stack(block, 3), normal(4, 5)),
        layer_case(
            "stack, dropout", fn.stack(fn.serial(block, fn.dropout(0.4)), 3), normal(4, 5), train=True
        ),
        layer_case("stack, masked", fn.stack(block, 2), normal(4, 3, 5), mask=GAPS),
        layer_case("deep", deep, normal(3, 5)),
    ]


# One batch with every kind of mask: nothing masked, padding right, padding left, a gap, nothing valid.
MASKS = [[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]


def recurrent_cases() -> list[Case]:
    """The rows with recurrent layers: a covering selection of variants, lengths, masks and carries."""
    masked: dict[str, Any] = {"mask": MASKS}
    short = normal(2, 3, 2)
    x, with_carry = normal(5, 4, 2), masked | {"carried": True}
    deep = fn.serial(fn.gru(2), fn.lstm(2), fn.elman(2))
    return [
        layer_case("lstm", fn.lstm(2), short),
        layer_case("lstm, masked, carry", fn.lstm(2), x, **with_carry),
        layer_case("lstm, peephole", fn.lstm(2, peephole=True), x, **masked),
        layer_case("lstm, coupled", fn.lstm(2, coupled=True), x, **with_carry),
        layer_case("lstm, peephole, coupled", fn.lstm(2, peephole=True, coupled=True), x, **with_carry),
        layer_case("lstm, no bias", fn.lstm(2, peephole=True, use_bias=False), short, carried=True),
        layer_case("lstm, one step", fn.lstm(3), normal(2, 1, 2), carried=True),
        layer_case("lstm, 17 steps, sqrt memory", fn.lstm(2, memory="sqrt"), normal(2, 17, 2), carried=True),
        layer_case("lstm, segments, masked", fn.lstm(2, memory=3), x, **with_carry),
        layer_case("lstm, dropout inside", fn.lstm(3, recurrent_dropout=0.4), short, train=True, carried=True),
        layer_case("gru", fn.gru(2), short),
        layer_case("gru, after, old", fn.gru(2), x, **with_carry),
        layer_case("gru, after, new", fn.gru(2, update="new"), x, **masked),
        layer_case("gru, before, old", fn.gru(2, reset="before"), x, **with_carry),
        layer_case("gru, before, new", fn.gru(2, reset="before", update="new"), x, **masked),
        layer_case("gru, no bias", fn.gru(2, use_bias=False), short, carried=True),
        layer_case(
            "gru, dropout inside each step",
            fn.gru(3, recurrent_dropout=0.4, variational=False, memory=2), short, train=True,
        ),
        layer_case("elman", fn.elman(3), x, **with_carry),
        layer_case("elman, relu, time first", fn.elman(3, fn.relu(), time_major=True), normal(3, 2, 2)),
        layer_case("elman, sigmoid, no batch", fn.elman(2, fn.sigmoid(), use_bias=False), normal(4, 2)),
        layer_case("jordan", fn.jordan(3, 2), x, **with_carry),
        layer_case("jordan, softmax", fn.jordan(2, 3, fn.sigmoid(), fn.softmax()), short, carried=True),
        layer_case("recurrent, three layers", deep, x, **with_carry),
    ]  # fmt: skip


def forest(*batch: int, nodes: int, places: int, width: int) -> Draw:
    """Random trees of that many nodes with as many places for children; now and then several beside each other."""

    def draw(rng: np.random.Generator) -> Any:
        children = np.full((*batch, nodes, places), -1, np.int32)
        for tree in np.ndindex(batch):
            roots: list[int] = []
            for j in range(nodes):
                for place in rng.permutation(places)[: rng.integers(places + 1)]:
                    if roots:
                        children[(*tree, j, place)] = roots.pop(rng.integers(len(roots)))
                roots.append(j)
        return rng.standard_normal((*batch, nodes, width)), children

    return draw


def chain(batch: int, nodes: int, places: int, width: int) -> Draw:
    """Trees in which every node but the first has one child, in the first place."""
    children = np.full((batch, nodes, places), -1, np.int32)
    children[..., 0] = np.arange(nodes) - 1
    return lambda rng: (rng.standard_normal((batch, nodes, width)), children)


def tree_cases() -> list[Case]:
    """The rows with tree networks: kinds, numbers of children, masks, and chains, which are sequences."""
    pairs, triples = (forest(5, nodes=4, places=places, width=2) for places in (2, 3))
    there = np.arange(60).reshape(5, 4, 3) % 5 > 0  # some children are there by number, but masked
    two: dict[str, Any] = {"mask": (MASKS, there[..., :2])}
    three: dict[str, Any] = {"mask": (MASKS, there)}
    kinds: tuple[Any, ...] = ("child_sum", "binary")
    deep = fn.serial(
        fn.nodes(fn.serial(fn.dense(3), fn.tanh())), fn.tree_lstm(2), fn.root(), fn.dense(2), fn.softmax()
    )
    words = fn.serial(fn.nodes(fn.embedding(6, 3)), fn.recursive(2), fn.root(), fn.dense(2))
    return [
        layer_case("recursive", fn.recursive(2), pairs),
        layer_case("recursive, three places, masked", fn.recursive(2, fn.sigmoid()), triples, **three),
        layer_case("recursive, relu, no bias", fn.recursive(2, fn.relu(), use_bias=False), pairs),
        *[layer_case(f"tree_lstm, {kind}", fn.tree_lstm(2, kind), pairs) for kind in kinds],
        layer_case("tree_lstm, child_sum, three places, masked", fn.tree_lstm(2), triples, **three),
        layer_case("tree_lstm, binary, masked", fn.tree_lstm(2, "binary"), pairs, **two),
        *[layer_case(f"tree_lstm, {kind}, chain", fn.tree_lstm(2, kind), chain(3, 4, 2, 2)) for kind in kinds],
        *[
            layer_case(
                f"tree_lstm, {kind}, no bias, no batch", fn.tree_lstm(2, kind, use_bias=False),
                forest(nodes=5, places=2, width=3),
            )
            for kind in kinds
        ],
        layer_case("root", fn.root(), normal(3, 4, 2)),
        layer_case("root, masked", fn.root(), normal(5, 4, 2), mask=MASKS),
        layer_case("nodes, tree_lstm, root, dense", deep, triples, **three),
        layer_case("nodes of ids, recursive", words, lambda rng: (ids(6, 5, 4)(rng), pairs(rng)[1]), **two),
    ]  # fmt: skip


def loss_cases() -> list[Case]:
    """The rows with losses and penalties."""
    losses = fn.losses
    weights = np.array([0.5, 1.0, 2.0, 0.25, 1.5])
    rows = [
        loss_case("half_squared_error", losses.half_squared_error(), normal(4, 5), normal(4, 5)),
        loss_case("squared_error", losses.squared_error(), normal(4, 5), normal(4, 5)),
        loss_case("mse", losses.mse(), normal(4, 5), normal(4, 5)),
        loss_case("mse, masked", losses.mse(), normal(4, 3, 5), normal(4, 3, 5), mask=GAPS),
        loss_case("mae", losses.mae(), normal(4, 5), normal(4, 5)),
        loss_case("huber", losses.huber(), normal(4, 5), normal(4, 5)),
        loss_case("hinge", losses.hinge(), normal(4, 5), signs(4, 5)),
        loss_case("kl_divergence", losses.kl_divergence(), log_probabilities(4, 5), probabilities(4, 5)),
        loss_case("binary_cross_entropy", losses.binary_cross_entropy(), shares(4, 5), shares(4, 5)),
        loss_case("sigmoid_cross_entropy", losses.sigmoid_cross_entropy(), normal(4, 5), shares(4, 5)),
        loss_case(
            "sigmoid_cross_entropy, masked",
            losses.sigmoid_cross_entropy(),
            normal(4, 3, 5),
            shares(4, 3, 5),
            mask=GAPS,
        ),
    ]
    classes = (
        (losses.cross_entropy, probabilities),
        (losses.nll, log_probabilities),
        (losses.softmax_cross_entropy, normal),
    )
    for factory, y in classes:
        name, full = factory.__name__, factory(weights=weights, label_smoothing=0.1, ignore_label=2)
        rows += [
            loss_case(f"{name}, labels", factory(), y(6, 5), ids(5, 6)),
            loss_case(f"{name}, one-hot", factory(), y(6, 5), one_hot(5, 6)),
            loss_case(f"{name}, soft", factory(weights=weights), y(6, 5), probabilities(6, 5)),
            loss_case(f"{name}, all options", full, y(4, 3, 5), ids(5, 4, 3), mask=GAPS),
        ]
    net = fn.serial(fn.dense(3), fn.prelu(), fn.dense(2))
    return [
        *rows,
        penalty_case("l1", fn.l1(0.1, n=3), net, normal(4, 5)),
        penalty_case("l2", fn.l2(0.1), net, normal(4, 5)),
    ]


def cases() -> list[Case]:
    """All rows."""
    return [*layer_cases(), *network_cases(), *recurrent_cases(), *tree_cases(), *loss_cases()]
