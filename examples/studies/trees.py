"""The value of `a + b * c == d` from the tree, from the text, and from the symbols alone: `python examples/studies/trees.py`.

The expressions have the shapes of real code: the study takes every expression in Python's own standard library with the
operators + - * == != < <= > >= and or not; everything else in it, such as names and calls, is an operand. The operands
are random numbers, 0, 1 or 2, and the networks learn the value, by Python's rules except that arithmetic is modulo 3:
`2 + 2 == 1 and not 0` is 1.

Three networks of about the same size read the same symbols. A binary Tree-LSTM reads the syntax tree. An LSTM reads
the text from left to right, with brackets around every operation, so that it has the same information. The third
network gets only the mean of the symbols, a bag, and does not know how they belong together.

A shape belongs to the first file that contains it, and the files are split 70:15:15, so that the shapes of the test are
new to the networks. They learn from shapes with at most eight operands; the test also has the larger shapes of all
files. The second part chooses the epoch; the third part and the larger shapes are used once, at the end.

`--quick` takes a few files and epochs; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

import ast
import operator
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from support.common import BLUE, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

MODULUS = 3
LEAST, LEARNED, MOST = 3, 8, 16  # operands of the smallest shape, of the largest in training, of the largest
DRAWS = 30  # how many times the operands of a shape are drawn
EMBEDDED, BATCH, EPOCHS, SEED = 16, 64, 12, 0
SKIPPED = {"site-packages", "test", "tests", "idlelib", "__pycache__"}
SYMBOLS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
    ast.GtE: ">=", ast.Is: "==", ast.IsNot: "!=", ast.And: "and", ast.Or: "or", ast.Not: "not", ast.USub: "neg",
}  # fmt: skip
MEANING: dict[str, Callable[..., int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "and": lambda a, b: a and b, "or": lambda a, b: a or b, "not": operator.not_, "neg": operator.neg,
}  # fmt: skip
NUMBER = {label: i for i, label in enumerate((*MEANING, *map(str, range(MODULUS)), "(", ")"), start=1)}

Tree = tuple[Any, ...]  # (symbol, left, right), (symbol, operand) or (operand,)


class Input(NamedTuple):
    """The input of a network."""

    x: Any
    mask: Any


# ---------------------------------------------------------------- the expressions


def shape_of(node: ast.AST) -> Tree:
    """The operators of an expression; `a and b and c` is `(a and b) and c`."""
    match node:
        case ast.BinOp(left, op, right) | ast.Compare(left, [op], [right]) if type(op) in SYMBOLS:
            return SYMBOLS[type(op)], shape_of(left), shape_of(right)
        case ast.UnaryOp(op, operand) if type(op) in SYMBOLS:
            return SYMBOLS[type(op)], shape_of(operand)
        case ast.BoolOp(op, values):
            tree, *others = map(shape_of, values)
            for other in others:
                tree = SYMBOLS[type(op)], tree, other
            return tree
    return ("…",)


def operands(tree: Tree) -> int:
    """The number of operands."""
    return 1 if len(tree) == 1 else sum(map(operands, tree[1:]))


def size(tree: Tree) -> int:
    """The number of nodes."""
    return 1 + sum(map(size, tree[1:]))


def shapes_in(file: Path) -> Iterator[Tree]:
    """The shapes of the expressions in a file, and of their parts."""
    with warnings.catch_warnings(action="ignore"):  # about invalid escapes in strings
        try:
            todo: list[ast.AST] = [ast.parse(file.read_bytes())]
        except (SyntaxError, ValueError):  # some files are templates, or examples of errors
            return
    while todo:
        node = todo.pop()
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.expr) and LEAST <= operands(shape := shape_of(node)) <= MOST:
            yield shape


def load(quick: bool) -> tuple[list[Tree], ...]:
    """The shapes for training, for validation and for testing; and the larger shapes."""
    top = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in sorted(top.rglob("*.py")) if not SKIPPED & set(file.relative_to(top).parts)]
    if not files:
        sys.exit(f"{top} must hold the sources of the standard library, but has no .py files")
    np.random.default_rng(SEED).shuffle(files)
    files = files[:60] if quick else files
    ends = len(files) * 70 // 100, len(files) * 85 // 100
    seen: set[Tree] = set()
    parts: tuple[list[Tree], ...] = ([], [], [], [])
    for i, file in enumerate(progress(files, "reading")):
        for shape in shapes_in(file):
            if shape not in seen:
                seen.add(shape)
                parts[3 if operands(shape) > LEARNED else sum(i >= end for end in ends)].append(shape)
    return parts


def filled(shape: Tree, rng: np.random.Generator) -> Tree:
    """The shape with random operands."""
    label, *below = shape
    return (label, *(filled(child, rng) for child in below)) if below else (str(rng.integers(MODULUS)),)


def value(tree: Tree) -> int:
    """The value of the expression."""
    label, *below = tree
    return int(MEANING[label](*map(value, below))) % MODULUS if below else int(label)


def drawn(shapes: Iterable[Tree], rng: np.random.Generator) -> tuple[list[Tree], np.ndarray]:
    """Expressions of these shapes, each once, and their values."""
    trees = list({filled(shape, rng): None for shape in shapes for _ in range(DRAWS)})
    return trees, np.array([value(tree) for tree in trees])


# ---------------------------------------------------------------- three ways to read them


def as_text(tree: Tree) -> list[int]:
    """The symbols' numbers from left to right, with brackets around every operation."""
    parts = [as_text(child) for child in tree[1:]]
    own = [NUMBER[tree[0]]]
    if not parts:
        return own
    left, right = (parts[0], parts[1]) if len(parts) == 2 else ([], parts[0])
    return [NUMBER["("], *left, *own, *right, NUMBER[")"]]


def readings(trees: Sequence[Tree]) -> dict[str, Input]:
    """The expressions as inputs of the tree network, the LSTM and the bag of symbols."""
    x, mask = fn.pad_trees(trees, children=lambda tree: tree[1:], value=lambda tree: NUMBER[tree[0]], arity=2)
    text = fn.pad_sequences([np.array(as_text(tree), np.int32) for tree in trees])
    return {"tree": Input(x, mask), "text": Input(*text), "bag": Input(x[0], mask[0])}


def networks() -> dict[str, fn.Layer]:
    """The three networks, of about the same size."""
    symbols = fn.embedding(len(NUMBER) + 1, EMBEDDED)
    answer = fn.dense(MODULUS)
    return {
        "tree": fn.serial(fn.nodes(symbols), fn.tree_lstm(32, "binary"), fn.last(), answer),
        "text": fn.serial(symbols, fn.lstm(48), fn.last(), answer),
        "bag": fn.serial(symbols, fn.mean_over_time(), fn.dense(620), fn.tanh(), answer),
    }


# ---------------------------------------------------------------- training


class Learned(NamedTuple):
    """The params with the best validation score, and that score."""

    params: Any
    validation: float


def trained(
    name: str, net: fn.Layer, given: Input, t: np.ndarray, check: Callable[[Any], float], epochs: int
) -> Learned:
    """Trains with the gradient by hand; keeps the epoch with the highest `check(params)`."""
    value_and_grad = fn.value_and_grad_by_hand(net, fn.losses.softmax_cross_entropy())
    updater = optax.adam(optax.cosine_decay_schedule(5e-3, epochs * (len(t) // BATCH)))
    given, t = jax.device_put((given, t))

    def step(state: Any, batch: jax.Array) -> tuple[Any, None]:
        params, memory = state
        x, mask = jax.tree.map(lambda leaf: leaf[batch], given)
        _, grads = value_and_grad(params, x, t[batch], mask=mask)
        updates, memory = updater.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), None

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> Any:
        order = jax.random.permutation(key, len(t))[: len(t) // BATCH * BATCH]
        return jax.lax.scan(step, state, order.reshape(-1, BATCH))[0]

    init_key, key = jax.random.split(jax.random.key(SEED))
    params = jax.jit(net.init)(init_key, given.x)
    state, best = (params, updater.init(params)), Learned(params, 0.0)
    for i in progress(range(epochs), name):
        state = epoch(state, jax.random.fold_in(key, i))
        if (score := check(state[0])) > best.validation:
            best = Learned(state[0], score)
    return best


def answering(net: fn.Layer) -> Callable[[Any, Input], np.ndarray]:
    """A function `(params, input)` that returns the network's answers."""
    run = jax.jit(lambda params, given: net.apply(params, given.x, mask=given.mask).argmax(-1))
    return lambda params, given: np.asarray(run(params, given))


# ---------------------------------------------------------------- the results


class Row(NamedTuple):
    """A network and its results."""

    name: str
    weights: int
    validation: float
    right: np.ndarray  # (N,) bools, the test and then the larger shapes


NAMES = {"tree": "Tree-LSTM on the tree", "text": "LSTM on the text", "bag": "dense on the bag"}
COLOURS = {"tree": BLUE, "text": ORANGE, "bag": GREY}


def share(right: np.ndarray) -> str:
    """The share of correct answers, with its standard error over the expressions."""
    return f"{right.mean():.1%} ± {right.std() / np.sqrt(len(right)):.1%}"


def print_rows(rows: dict[str, Row], large: np.ndarray) -> None:
    """Prints the table."""
    shown = (
        (row.name, row.weights, f"{row.validation:.1%}", share(row.right[~large]), share(row.right[large]))
        for row in rows.values()
    )
    print(table(("", "weights", "validation", "test", f"{LEARNED + 1} to {MOST} operands"), shown))


def draw(figure: Any, rows: dict[str, Row], many: np.ndarray, example: Tree, said: np.ndarray) -> None:
    """The accuracy by the number of operands, and the answers at each node of one expression."""
    axes, tree_axes = figure.subplots(1, 2, width_ratios=(1, 1.25))
    sizes = sorted(set(many.tolist()))
    for key, row in rows.items():
        axes.plot(
            sizes, [row.right[many == n].mean() for n in sizes], ".-", color=COLOURS[key], label=row.name
        )
    axes.axvspan(LEARNED + 0.5, max(sizes) + 0.5, color=GREY, alpha=0.15, linewidth=0)
    axes.text(LEARNED + 0.7, 0.03, "larger than\nany in training", fontsize=9, color="#555555")
    axes.set(
        ylim=(0, 1.02),
        xlabel="operands of the expression",
        title="Accuracy on new shapes",
    )
    axes.legend(loc="lower left")
    draw_tree(tree_axes, example, said)
    tree_axes.set_title("The Tree-LSTM's answer at each operation")


def draw_tree(axes: Any, tree: Tree, said: np.ndarray) -> None:
    """A tree, with the answer at each operation; wrong ones in red."""
    nodes, places = iter(range(size(tree))), iter(range(size(tree)))  # in postorder, as in fn.pad_trees

    def place(tree: Tree, depth: int) -> tuple[float, float]:
        below = [place(child, depth + 1) for child in tree[1:]]
        answer, x = said[next(nodes)], np.mean([x for x, _ in below]) if below else float(next(places))
        for other in below:
            axes.plot(*zip((x, -depth), other, strict=True), color="#bbbbbb", linewidth=1, zorder=0)
        colour = "#555555" if not below else BLUE if answer == value(tree) else RED
        text = f"{tree[0]}\n{answer}" if below else tree[0]
        box = {
            "boxstyle": "round",
            "facecolor": "white",
            "edgecolor": colour if below else "none",
            "pad": 0.25,
        }
        axes.text(x, -depth, text, ha="center", va="center", color=colour, fontsize=9, bbox=box)
        return x, -depth

    place(tree, 0)
    axes.margins(0.1)
    axes.set_axis_off()


def at_every_node(net: fn.Layer, params: Any, tree: Tree) -> np.ndarray:
    """The tree network's answer for every part: its last layer applied at every node, not only at the root."""
    nodes, lstm, _, answer = net.info.children
    everywhere = fn.serial(nodes, lstm, answer)
    return answering(everywhere)((params[0], params[1], params[3]), readings([tree])["tree"])[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the files, trains three networks, tests them once."""
    chosen = options(__doc__, argv)
    shapes, rng = load(chosen.quick), np.random.default_rng(SEED)
    (trees, t), (checked, t_checked), (tested, t_tested) = (
        drawn(part, rng) for part in (shapes[0], shapes[1], shapes[2] + shapes[3])
    )
    read, of_check, of_test = readings(trees), readings(checked), readings(tested)
    print(
        "shapes for training, validation and testing; larger ones: "
        + ", ".join(str(len(part)) for part in shapes)
    )
    print(f"expressions: {len(trees)} for training, {len(checked)} for validation, {len(tested)} for testing")
    print(
        f"{np.bincount(t_tested).max() / len(tested):.1%} of the test expressions have the most common value\n"
    )

    rows, params = {}, {}
    for key, net in networks().items():
        answers = answering(net)

        def check(params: Any, key: str = key, answers: Any = answers) -> float:
            return float((answers(params, of_check[key]) == t_checked).mean())

        learned = trained(NAMES[key], net, read[key], t, check, 1 if chosen.quick else EPOCHS)
        params[key] = learned.params
        right = answers(learned.params, of_test[key]) == t_tested
        rows[key] = Row(NAMES[key], fn.count_params(learned.params), learned.validation, right)
    many = np.array([operands(tree) for tree in tested])
    print_rows(rows, many > LEARNED)

    example = min(tested, key=lambda tree: abs(operands(tree) - 7))
    with picture(chosen.out / "trees.png", 12, 5) as figure:
        draw(figure, rows, many, example, at_every_node(networks()["tree"], params["tree"], example))
    return 0


if __name__ == "__main__":
    run(main)
