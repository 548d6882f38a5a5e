"""Were the two operands exchanged? Read from the tree, from the text, and from the words alone: `python examples/trees.py`.

Every expression of Python's own standard library with an operator on top, such as `start + len(prefix)`, is taken
twice: as it stands, and with the operands of that operator exchanged, `len(prefix) + start`. A network is
shown one of the two and says which it is. Nothing tells it but how programmers write.

Three networks of about the same size read the same labels of the same nodes. A binary Tree-LSTM reads
the syntax tree, an LSTM reads the text from left to right, with a bracket around every operation, and the bag of
nodes has their mean. The bag cannot do better than chance, 50 %: both versions have the same nodes.

The files are parted 70:15:15. An expression that stands in several files, either way round, belongs to the first of
them alone. The epoch is chosen on the second part, and the third is used once, at the end.

`--quick` takes a few files and epochs; `--out DIR` says where the picture goes.
"""

from __future__ import annotations

import ast
import collections
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from common import BLUE, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

SMALLEST, LARGEST = 5, 31  # nodes of an expression
RARE = 3  # a label must stand in so many training expressions to have a vector of its own
EMBEDDED, BATCH, EPOCHS, SEED = 24, 64, 8, 0
SKIPPED = {"site-packages", "test", "tests", "idlelib", "__pycache__"}
OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.MatMult: "@", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip
NOTHING, UNKNOWN, OPEN, CLOSE = range(4)  # what is no label has a number too
TRIVIAL = (ast.Is, ast.IsNot)  # the right operand is None

Tree = tuple[Any, ...]  # (label, left, right), (label, operand) or (label,)


class Expressions(NamedTuple):
    """Expressions of one part of the files: as they stand, and their source."""

    trees: list[Tree]
    source: list[str]


class Input(NamedTuple):
    """What a network reads; one row for each version: all as they stand, then all exchanged."""

    x: Any
    mask: Any


# ---------------------------------------------------------------- the expressions


def as_tree(node: ast.AST) -> Tree:
    """A syntax tree with at most two children at every node, so that left and right have a meaning.

    What has more is applied one by one: f(a, b) is ((f a) b).
    """
    match node:
        case ast.BinOp(left, op, right) | ast.Compare(left, [op], [right]):
            return OPERATORS[type(op)], as_tree(left), as_tree(right)
        case ast.Name(name):
            return (name,)
        case ast.Constant(value):
            small = value is None or (isinstance(value, int) and abs(value) <= 16)
            return (repr(value) if small else f"a {type(value).__name__}",)
        case ast.Attribute(value, name):
            return ".", as_tree(value), (name,)
        case ast.Call(function, arguments, keywords):
            return folded("call", [function, *arguments, *(keyword.value for keyword in keywords)])
    return folded(
        type(node).__name__, [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    )


def folded(label: str, parts: Sequence[ast.AST]) -> Tree:
    """The parts two by two from the left."""
    if len(parts) < 2:
        return (label, *map(as_tree, parts))
    tree = as_tree(parts[0])
    for part in parts[1:]:
        tree = label, tree, as_tree(part)
    return tree


def size(tree: Tree) -> int:
    """The number of nodes."""
    return 1 + sum(map(size, tree[1:]))


def labels(tree: Tree) -> Iterator[str]:
    """The labels of all nodes."""
    yield tree[0]
    for child in tree[1:]:
        yield from labels(child)


def exchanged(tree: Tree) -> Tree:
    """The tree with the operands of its root exchanged."""
    label, left, right = tree
    return label, right, left


def expressions(file: Path) -> Iterator[tuple[Tree, str]]:
    """The expressions of a file with an operator on top."""
    with warnings.catch_warnings(action="ignore"):  # of strange escapes in strings
        try:
            parsed = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # some files are templates, or examples of errors
            return
    for node in ast.walk(parsed):
        match node:
            case ast.BinOp(op=op) | ast.Compare(ops=[op]) if not isinstance(op, TRIVIAL):
                tree = as_tree(node)
                if SMALLEST <= size(tree) <= LARGEST and tree != exchanged(tree):
                    yield tree, ast.unparse(node)


def load(quick: bool) -> tuple[Expressions, ...]:
    """The expressions of the standard library in three parts, no file and no expression in two of them."""
    top = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in sorted(top.rglob("*.py")) if not SKIPPED & set(file.relative_to(top).parts)]
    if not files:
        sys.exit(f"{top} holds no sources of the standard library to read")
    np.random.default_rng(SEED).shuffle(files)
    files = files[:60] if quick else files
    ends = len(files) * 70 // 100, len(files) * 85 // 100
    seen: set[Any] = set()
    parts = tuple(Expressions([], []) for _ in range(3))
    for i, file in enumerate(progress(files, "reading")):
        part = parts[sum(i >= end for end in ends)]
        for tree, source in expressions(file):
            if (either := (tree[0], frozenset(tree[1:]))) not in seen:
                seen.add(either)
                part.trees.append(tree)
                part.source.append(source)
    return parts


# ---------------------------------------------------------------- three ways to read them


def numbering(trees: Iterable[Tree]) -> dict[str, int]:
    """The numbers of the labels that are not rare in training."""
    counts = collections.Counter(label for tree in trees for label in set(labels(tree)))
    return {label: i for i, (label, n) in enumerate(counts.most_common(), start=CLOSE + 1) if n >= RARE}


def as_text(tree: Tree, number: dict[str, int]) -> list[int]:
    """The labels from left to right, with a bracket around every operation."""
    parts = [as_text(child, number) for child in tree[1:]]
    own = [number.get(tree[0], UNKNOWN)]
    if not parts:
        return own
    left, right = (parts[0], parts[1]) if len(parts) == 2 else ([], parts[0])
    return [OPEN, *left, *own, *right, CLOSE]


def readings(trees: Sequence[Tree], number: dict[str, int]) -> dict[str, Input]:
    """The same trees as a tree network, an LSTM and a bag of nodes read them."""
    x, mask = fn.pad_trees(
        trees,
        children=lambda tree: tree[1:],
        value=lambda tree: number.get(tree[0], UNKNOWN),
        size=LARGEST,
        arity=2,
    )
    text = fn.pad_sequences([np.array(as_text(tree, number), np.int32) for tree in trees])
    return {"tree": Input(x, mask), "text": Input(*text), "bag": Input(x[0], mask[0])}


def networks(words: int) -> dict[str, fn.Layer]:
    """The three networks, of about the same size."""

    def embedded() -> fn.Layer:
        return fn.serial(fn.embedding(words, EMBEDDED), fn.dropout(0.3))

    return {
        "tree": fn.serial(fn.nodes(embedded()), fn.tree_lstm(32, "binary"), fn.last(), fn.dense(2)),
        "text": fn.serial(embedded(), fn.lstm(46), fn.last(), fn.dense(2)),
        "bag": fn.serial(embedded(), fn.mean_over_time(), fn.dense(500), fn.tanh(), fn.dense(2)),
    }


# ---------------------------------------------------------------- training


class Learned(NamedTuple):
    """The params that did best on the validation part, and their score there."""

    params: Any
    validation: float


def both(part: Expressions) -> tuple[list[Tree], np.ndarray]:
    """Every expression as it stands, labelled 0, then every one exchanged, labelled 1."""
    n = len(part.trees)
    return [*part.trees, *map(exchanged, part.trees)], np.repeat([0, 1], n)


def trained(
    name: str, net: fn.Layer, given: Input, t: np.ndarray, check: Callable[[Any], float], epochs: int
) -> Learned:
    """Trains with the gradient derived by hand, and keeps the epoch that is best by `check(params)`."""
    value_and_grad = fn.value_and_grad_by_hand(net, fn.losses.softmax_cross_entropy())
    updater = optax.adam(3e-3)
    given, t = jax.device_put((given, t))

    def step(state: Any, now: Any) -> tuple[Any, None]:
        (params, memory), (batch, key) = state, now
        x, mask = jax.tree.map(lambda leaf: leaf[batch], given)
        _, grads = value_and_grad(params, x, t[batch], mask=mask, key=key, train=True)
        updates, memory = updater.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), None

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> Any:
        order = jax.random.permutation(key, len(t))[: len(t) // BATCH * BATCH].reshape(-1, BATCH)
        return jax.lax.scan(step, state, (order, jax.random.split(key, len(order))))[0]

    init_key, key = jax.random.split(jax.random.key(SEED))
    params = jax.jit(net.init)(init_key, given.x)
    state, best = (params, updater.init(params)), Learned(params, 0.0)
    for i in progress(range(epochs), name):
        state = epoch(state, jax.random.fold_in(key, i))
        if (score := check(state[0])) > best.validation:
            best = Learned(state[0], score)
    return best


def exchange_probability(net: fn.Layer) -> Callable[[Any, Input], np.ndarray]:
    """The probability that a network gives to "exchanged", for each row."""
    run = jax.jit(lambda params, given: jax.nn.softmax(net.apply(params, given.x, mask=given.mask))[..., 1])
    return lambda params, given: np.asarray(run(params, given))


def right(probabilities: np.ndarray) -> np.ndarray:
    """For each expression the share of its two versions that was told right: 0, ½ or 1."""
    as_it_stands, exchanged = np.split(probabilities, 2)
    return ((as_it_stands < 0.5) + 1.0 * (exchanged > 0.5)) / 2


# ---------------------------------------------------------------- what came out


class Row(NamedTuple):
    """A network and what it made of the test."""

    name: str
    weights: int  # but for the embedding, which all of them have
    validation: float
    right: np.ndarray  # (N,) for each expression of the test

    @property
    def error(self) -> float:
        """The standard error of the accuracy."""
        return float(self.right.std(ddof=1) / np.sqrt(len(self.right)))


NAMES = {
    "tree": "binary Tree-LSTM on the tree",
    "text": "LSTM on the text",
    "bag": "dense layers on the bag of nodes",
}
COLOURS = {"tree": BLUE, "text": ORANGE, "bag": GREY}


def print_rows(rows: dict[str, Row], test: Expressions) -> None:
    """The table, and the answer."""
    shown = (
        (row.name, row.weights, f"{row.validation:.1%}", f"{row.right.mean():.1%} ± {row.error:.1%}")
        for row in rows.values()
    )
    print(table(("", "weights", "validation", "test"), shown))
    gap = rows["tree"].right - rows["text"].right
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    print(
        f"\nthe tree is told right {gap.mean():+.1%} ± {error:.1%} more often than the text (standard errors)"
    )
    print("\nfor example, where the tree was told right and the text was not:")
    for i in np.flatnonzero(gap == 1)[:6]:
        print(f"  {test.source[i]}")


def draw(
    figure: Any, rows: dict[str, Row], test: Expressions, drawn: Sequence[tuple[str, Tree, np.ndarray]]
) -> None:
    """The accuracies, overall and for each operator, and one expression node by node."""
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    overall, by_operator = upper.subplots(1, 2, width_ratios=(1, 2))
    for i, (key, row) in enumerate(rows.items()):
        overall.bar(i, row.right.mean(), yerr=1.96 * row.error, color=COLOURS[key], capsize=4)
        overall.text(i, row.right.mean() + 0.035, f"{row.right.mean():.1%}", ha="center")
    overall.set(ylim=(0.4, 1), title="Told right, of the test", xticks=range(len(rows)))
    overall.set_xticklabels([row.name.replace(" on ", "\non ") for row in rows.values()])
    overall.axhline(0.5, color="black", linewidth=1)

    operators = np.array([tree[0] for tree in test.trees])
    common = [name for name, _ in collections.Counter(operators.tolist()).most_common(9)]
    for shift, key in ((-0.2, "tree"), (0.2, "text")):
        values = [rows[key].right[operators == name].mean() for name in common]
        by_operator.bar(
            np.arange(len(common)) + shift, values, 0.38, color=COLOURS[key], label=rows[key].name
        )
    by_operator.set(ylim=(0.4, 1), title="By the operator on top", xticks=range(len(common)))
    by_operator.set_xticklabels([f"{name}\n{(operators == name).sum()}" for name in common])
    by_operator.axhline(0.5, color="black", linewidth=1)
    by_operator.legend(loc="upper right", ncols=2)
    for axes, (title, tree, probabilities) in zip(lower.subplots(1, len(drawn)), drawn, strict=True):
        draw_tree(axes, tree, probabilities)
        axes.set_title(title)


def draw_tree(axes: Any, tree: Tree, probabilities: np.ndarray) -> None:
    """A tree, and at each operator the probability that its operands were exchanged."""
    count = iter(range(size(tree)))  # in postorder, as fn.pad_trees numbers the nodes
    places = iter(range(size(tree)))

    def place(tree: Tree, depth: int) -> tuple[float, float]:
        below = [place(child, depth + 1) for child in tree[1:]]
        p, x = probabilities[next(count)], np.mean([x for x, _ in below]) if below else float(next(places))
        for other in below:
            axes.plot(*zip((x, -depth), other, strict=True), color="#bbbbbb", linewidth=1, zorder=0)
        operator = tree[0] in OPERATORS.values()
        colour = RED if operator and p > 0.5 else BLUE if operator else "#555555"
        text = f"{tree[0]}\n{p:.0%}" if operator else tree[0]
        box = {
            "boxstyle": "round",
            "facecolor": "white",
            "edgecolor": colour if operator else "none",
            "pad": 0.25,
        }
        axes.text(x, -depth, text, ha="center", va="center", color=colour, fontsize=9, bbox=box)
        return x, -depth

    place(tree, 0)
    axes.margins(0.12)
    axes.set_axis_off()


def at_every_node(net: fn.Layer, params: Any, tree: Tree, number: dict[str, int]) -> np.ndarray:
    """What the tree network says of every subtree: its last layer at every node instead of the root alone."""
    nodes, lstm, _, dense = net.info.children
    everywhere = fn.serial(nodes, lstm, dense)
    given = readings([tree], number)["tree"]
    found = exchange_probability(everywhere)((params[0], params[1], params[3]), given)
    return found[0, -size(tree) :]


def main(argv: Sequence[str] | None = None) -> int:
    """Reads, trains three networks, tests them once."""
    chosen = options(__doc__, argv)
    train, validation, test = load(chosen.quick)
    number = numbering(train.trees)
    parts = [both(part) for part in (train, validation, test)]
    (read, t), (checked, _), (tested, _) = ((readings(trees, number), labels) for trees, labels in parts)
    counts = ", ".join(str(len(part.trees)) for part in (train, validation, test))
    print(f"{counts} expressions for training, validation and test; {len(number)} labels\n")

    rows, params, probability = {}, {}, {}
    for key, net in networks(len(number) + CLOSE + 1).items():
        probability[key] = exchange_probability(net)

        def check(params: Any, key: str = key) -> float:
            return float(right(probability[key](params, checked[key])).mean())

        learned = trained(NAMES[key], net, read[key], t, check, 1 if chosen.quick else EPOCHS)
        params[key] = learned.params
        weights = fn.count_params(learned.params) - EMBEDDED * (len(number) + CLOSE + 1)
        rows[key] = Row(
            NAMES[key], weights, learned.validation, right(probability[key](learned.params, tested[key]))
        )
    print_rows(rows, test)

    good = np.flatnonzero(rows["tree"].right - rows["text"].right == 1)
    good = good if len(good) else np.arange(len(test.trees))
    i = max(good, key=lambda i: (size(test.trees[i]) <= 13, size(test.trees[i])))
    drawn = [
        (title, tree, at_every_node(networks(len(number) + CLOSE + 1)["tree"], params["tree"], tree, number))
        for title, tree in (("As it stands", test.trees[i]), ("Exchanged", exchanged(test.trees[i])))
    ]
    with picture(chosen.out / "trees.png", 12, 7.5) as figure:
        draw(figure, rows, test, drawn)
    return 0


if __name__ == "__main__":
    run(main)
