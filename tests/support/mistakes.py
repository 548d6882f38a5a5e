"""Common mistakes in a derivation, planted in every gradient of the catalogue."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import fnnets as fn
from fnnets import catalogue
from fnnets.combinators._bidirectional import of_two, unmerged
from fnnets.comparison import float_trees, problems
from fnnets.comparison.measurement import Measured, Problem, measure
from fnnets.comparison.verdict import judge
from fnnets.layers.normalisation import moments
from fnnets.rnn.recurrence import of_cell

Gradient = dict[str, Any]
ByHand = Callable[[Any, Any, Any], tuple[Any, Any]]


BATCH, TIME = problems.AXES


class Planted(NamedTuple):
    """One mistake in one place."""

    row: str
    mistake: str
    place: str  # a leaf or a layer
    by_hand: ByHand  # the wrong derivation
    causes: tuple[str, ...]  # the kinds of cause that name it correctly
    mentions: str  # what the diagnosis must mention


class Leaf(NamedTuple):
    """What a mistake in one leaf can use: its gradient g, and the gradients from single indices of an axis."""

    path: str
    g: jax.Array
    batch: int  # the length of the batch axis, 0 without one
    steps: int  # the length of the time axis, 0 without one
    alone: Callable[[str, int], jax.Array]  # (axis, index) -> the gradient from this index alone
    blocks: tuple[str, ...] = ()  # the names of its equal blocks


def _halves_exchanged(leaf: Leaf) -> Any:
    axis = next(
        (k for k in reversed(range(leaf.g.ndim)) if leaf.g.shape[k] % 2 == 0 and leaf.g.shape[k]), None
    )
    return None if axis is None else jnp.roll(leaf.g, leaf.g.shape[axis] // 2, axis)


def _half_zero(leaf: Leaf) -> Any:
    if leaf.g.ndim == 0 or leaf.g.shape[-1] < 2:
        return None
    return leaf.g.at[..., leaf.g.shape[-1] // 2 :].set(0)


def _one_example(leaf: Leaf) -> Any:
    return leaf.alone(BATCH, 0) if leaf.batch > 1 and leaf.path.startswith("params") else None


def _unsummed(leaf: Leaf) -> Any:
    if leaf.batch < 2 or not leaf.path.startswith("params"):
        return None
    return jnp.stack([leaf.alone(BATCH, i) for i in range(leaf.batch)])


def _last_step(leaf: Leaf) -> Any:
    if leaf.steps < 2:
        return None
    wrong = leaf.alone(TIME, leaf.steps - 1)
    return wrong if wrong.any() else None


def _recurrent(leaf: Leaf) -> bool:
    """Whether the leaf is a recurrent kernel."""
    return leaf.path.endswith(".u")


def _forget_gate_zero(leaf: Leaf) -> Any:
    if not _recurrent(leaf) or "f" not in leaf.blocks:
        return None
    width = leaf.g.shape[-1] // len(leaf.blocks)
    start = leaf.blocks.index("f") * width
    return leaf.g.at[..., start : start + width].set(0)


class Mistake(NamedTuple):
    """A mistake in a leaf; `plant` returns None if the leaf does not allow it."""

    name: str
    plant: Callable[[Leaf], Any]
    causes: tuple[str, ...]
    mentions: str = ""


LEAF_MISTAKES = (
    Mistake("wrong sign", lambda leaf: -leaf.g, ("sign",)),
    Mistake("times 0.9", lambda leaf: 0.9 * leaf.g, ("factor",), "0.9"),
    Mistake("times 1.05", lambda leaf: 1.05 * leaf.g, ("factor",), "1.05"),
    Mistake("times 2", lambda leaf: 2 * leaf.g, ("factor",), "2"),
    Mistake(
        "times 1/B", lambda leaf: leaf.g / leaf.batch if leaf.batch > 1 else None, ("factor",), "the batch"
    ),
    Mistake("transpose", lambda leaf: leaf.g.T if leaf.g.ndim > 1 else None, ("transpose",)),
    Mistake("zero leaf", lambda leaf: 0 * leaf.g, ("zero",)),
    Mistake("zero block", _half_zero, ("zero block",)),
    Mistake("exchanged blocks", _halves_exchanged, ("exchanged blocks",)),
    Mistake("one example only", _one_example, ("missing sum",), "the batch"),
    Mistake("no sum over the batch", _unsummed, ("missing sum",), "the batch"),
    Mistake("last time step only", _last_step, ("missing sum",), "the last one of time"),
    Mistake("recurrent weight zero", lambda leaf: 0 * leaf.g if _recurrent(leaf) else None, ("zero",)),
    Mistake(
        "recurrent weight × 0.9", lambda leaf: 0.9 * leaf.g if _recurrent(leaf) else None, ("factor",), "0.9"
    ),
    Mistake("forget-gate block zero", _forget_gate_zero, ("zero block",), "the block of f"),
)


def _without_slope(layer: fn.Layer) -> fn.Layer:
    return layer._replace(backward=lambda params, saved, dy, dcarry=None: ((), dy, None))


def _first_factor_only(layer: fn.Layer) -> fn.Layer:
    """y = x·gate(x), derived as if the gate were a constant."""
    return layer._replace(backward=lambda params, saved, dy, dcarry=None: ((), dy * saved.gate, None))


def _without_normaliser(layer: fn.Layer) -> fn.Layer:
    """softmax and log_softmax, derived as if the sum were a constant."""
    factor = (lambda y: y) if layer.info.name == "softmax" else jnp.ones_like
    return layer._replace(backward=lambda params, y, dy, dcarry=None: ((), dy * factor(y), None))


def _without_skip(layer: fn.Layer) -> fn.Layer | None:
    if len(layer.info.children) > 1:  # the shortcut is a layer
        return _without_last_arm(layer)

    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
        gone = dy if saved.mask is None else jnp.where(saved.mask[..., None], dy, 0)
        return dparams, dx - gone, dcarry

    return layer._replace(backward=backward)


def _without_last_arm(layer: fn.Layer) -> fn.Layer | None:
    if len(layer.info.children) < 2:
        return None

    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        dparams, _, dcarry = layer.backward(params, saved, dy, dcarry)
        arms = layer.info.children[:-1]
        rest = fn.branch(*arms, merge=layer.info.settings.get("merge", "sum"))
        kept = saved._replace(children=saved.children[:-1], widths=fn.Static(saved.widths.value[:-1]))
        _, dx, _ = rest.backward(params[:-1], kept, dy)
        return dparams, dx, dcarry

    return layer._replace(backward=backward)


def _without_second_direction(layer: fn.Layer) -> fn.Layer:
    """The gradient of x through only the copy that reads forward."""

    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        dparams, _, _ = layer.backward(params, saved, dy, dcarry)
        da, _ = unmerged(layer.info.settings["merge"], saved.outputs, dy)
        _, dx, _ = layer.info.children[0].backward(params[0], saved.children[0], da)
        return dparams, dx, None

    return layer._replace(backward=backward)


def _without_carry(layer: fn.Layer) -> fn.Layer:
    """The encoder gets no gradient through its carry to the decoder."""

    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        dparams, dx, _ = layer.backward(params, saved, dy, dcarry)
        zeros = jax.tree.map(jnp.zeros_like, (dparams[0], dx[0]))
        return (zeros[0], dparams[1]), (zeros[1], dx[1]), None

    return layer._replace(backward=backward)


def _with_collect(layer: fn.Layer, change: Callable[[Sums], Any]) -> fn.Layer:
    """A recurrent layer that sums over time in another way."""
    cell, options = layer.info.recurrence

    def collect(params: Any, x: Any, carry: Any, saved: Any, dz: Any, *, noise: Any = None) -> Any:
        def right(carry: Any, dz: Any) -> Any:
            return cell.collect(params, x, carry, saved, dz, noise=noise)

        def after() -> Any:
            last = jax.tree.map(lambda leaf: leaf[-1], (carry, cell.project(params, x)))
            own = noise[-1] if noise is not None and noise.ndim == x.ndim else noise
            return cell.step(params, *last, noise=own)

        return change(Sums(right, carry, dz, after))

    return of_cell(cell._replace(collect=collect), layer.info, options)


class Sums(NamedTuple):
    """The parts of the sums over time."""

    right: Callable[[Any, Any], Any]  # (carry, dz) -> (dparams, dx)
    carry: Any  # before each step
    dz: Any
    after: Callable[[], Any]  # () -> the carry after the last step


def _last_step_collected(layer: fn.Layer) -> fn.Layer | None:
    """The sums over time have only their last term. None with segments: each is summed alone and has its own last step."""
    if layer.info.recurrence.options.memory != "all":
        return None

    def change(sums: Sums) -> tuple[Any, Any]:
        _, dx = sums.right(sums.carry, sums.dz)
        last = jax.tree.map(lambda leaf: leaf.at[:-1].set(0), sums.dz)
        return sums.right(sums.carry, last)[0], dx

    return _with_collect(layer, change)


def _state_one_step_late(layer: fn.Layer) -> fn.Layer:
    """The recurrent kernel's gradient is a product with h_t instead of h_{t−1}."""

    def late(each: Any, last: Any) -> Any:
        return jnp.concatenate([each[1:], last[None]])

    def change(sums: Sums) -> tuple[Any, Any]:
        dparams, dx = sums.right(sums.carry, sums.dz)
        wrong, _ = sums.right(jax.tree.map(late, sums.carry, sums.after()), sums.dz)
        return dparams._replace(u=wrong.u), dx

    return _with_collect(layer, change)


def _with_constant(layer: fn.Layer, forgotten: str) -> fn.Layer:
    """A normalisation, derived as if its mean or its variance were a constant."""
    right = moments.through

    def through(*given: Any) -> Any:
        *others, mean, product = given
        return right(*others, *((0, product) if forgotten == "mean" else (mean, 0)))

    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        with mock.patch.object(moments, "through", through):
            return layer.backward(params, saved, dy, dcarry)

    return layer._replace(backward=backward)


def _constant(forgotten: str) -> tuple[str, Any, tuple[str, ...]]:
    plant = functools.partial(_with_constant, forgotten=forgotten)
    return f"constant {forgotten}", plant, ("missing term", "not zero")


# The activations without params that act on each number alone; softmax acts on a row.
POINTWISE = [
    case.layer.info.name
    for case in catalogue.activation_cases()
    if case.layer.info.name not in ("prelu", "softmax", "log_softmax")
]
LAYER_MISTAKES: dict[str, tuple[tuple[str, Any, tuple[str, ...]], ...]] = {
    **dict.fromkeys(POINTWISE, (("no derivative f'", _without_slope, ("missing derivative",)),)),
    "gelu": (
        ("no derivative f'", _without_slope, ("missing derivative",)),
        ("dropped term", _first_factor_only, ("missing term",)),
    ),
    "silu": (
        ("no derivative f'", _without_slope, ("missing derivative",)),
        ("dropped term", _first_factor_only, ("missing term",)),
    ),
    "softmax": (("dropped term", _without_normaliser, ("missing term",)),),
    "log_softmax": (("dropped term", _without_normaliser, ("missing term", "missing derivative")),),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm"), (_constant("mean"), _constant("variance"))),
    "rms_norm": (_constant("variance"),),
    "residual": (("dropped term", _without_skip, ("missing term",)),),
    "branch": (("dropped term", _without_last_arm, ("missing term",)),),
    "bidirectional": (("dropped term", _without_second_direction, ("missing term",)),),
    "encoder_decoder": (("dropped term", _without_carry, ("zero",)),),
}
RECURRENT_MISTAKES = (
    # If a copy runs at one step only, its gradient is 0, or is not 0 where it should be.
    ("last step collected", _last_step_collected, ("missing sum", "zero")),
    ("state one step late", _state_one_step_late, ("wrong step", "not zero")),
)


def planted(case: catalogue.Case, problem: Problem) -> Iterator[Planted]:
    """Every possible mistake in a row, one at a time; call it inside `jax.enable_x64(True)`."""
    right = jax.jit(problem.by_hand)
    gradient = _gradient(right, problem)
    for path, true in gradient.items():
        for mistake in LEAF_MISTAKES:
            by_hand = functools.partial(_with_mistake, right, path, mistake, case, problem)
            if _differ(_gradient(by_hand, problem).get(path), true):
                yield Planted(case.name, mistake.name, path, by_hand, mistake.causes, mistake.mentions)
    for count, (name, broken, causes) in enumerate(_broken(case.layer) if case.layer else ()):
        by_hand = jax.jit(problems.functions(broken, case.mode["train"], with_carry=case.carried)[1])
        wrong = _gradient(by_hand, problem)
        if any(_differ(wrong[path], true) for path, true in gradient.items()):
            yield Planted(case.name, name, f"layer {count}", by_hand, causes, "")


def _with_mistake(
    right: ByHand,
    path: str,
    mistake: Mistake,
    case: catalogue.Case,
    problem: Problem,
    point: Any,
    fixed: Any,
    dy: Any,
) -> tuple[Any, Any]:
    """The derivation with a mistake in one leaf; the correct one if the leaf does not allow the mistake."""

    def leaf_of(gradient: Any) -> Any:
        return next(leaf for at, leaf in _with_paths(gradient) if at == path)

    def alone(axis: str, index: int) -> Any:
        parts = problems.alone(dy, problem.context.axes.index(axis), axis, case.carried)
        return leaf_of(right(point, fixed, parts[index])[1])

    outputs, gradient = right(point, fixed, dy)
    blocks = problem.context.blocks.get(path, ())
    wrong = mistake.plant(Leaf(path, leaf_of(gradient), *_lengths(case, problem), alone, blocks))
    if wrong is None:
        return outputs, gradient
    leaves = [wrong if at == path else leaf for at, leaf in _with_paths(gradient)]
    return outputs, jax.tree.unflatten(jax.tree.structure(gradient), leaves)


def _with_paths(gradient: Any) -> list[tuple[str, Any]]:
    return [(float_trees.text(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)]


def _gradient(by_hand: ByHand, problem: Problem) -> dict[str, np.ndarray]:
    return float_trees.by_path(by_hand(problem.point, problem.fixed, problem.dy)[1])


def _lengths(case: catalogue.Case, problem: Problem) -> tuple[int, int]:
    """The lengths of a row's batch and time axes; 0 for an axis that it does not have."""
    if case.x is None:
        leading: tuple[int, ...] = tuple(problem.point["y"].shape[:-1]) if "y" in problem.point else ()
        return (leading[0] if leading else 0), 0
    lengths = dict(zip(problem.context.axes, jax.tree.leaves(problem.dy)[0].shape, strict=False))
    return lengths.get(BATCH, 0), lengths.get(TIME, 0)


def _differ(wrong: Any, true: np.ndarray) -> bool:
    """Whether a mistake changes the gradient; the transpose of a symmetric leaf does not."""
    if wrong is None or wrong.shape != true.shape:
        return wrong is not None
    return bool(np.abs(wrong - true).max(initial=0) > 1e-3 * np.abs(true).max(initial=0))


def _broken(layer: fn.Layer) -> Iterator[tuple[str, fn.Layer, tuple[str, ...]]]:
    """The network with one mistake in one layer, for every mistake and layer."""
    known = RECURRENT_MISTAKES if layer.info.recurrence else LAYER_MISTAKES.get(layer.info.name, ())
    for name, plant, causes in known:
        if (broken := plant(layer)) is not None:
            yield name, broken, causes
    for i, child in enumerate(layer.info.children):
        for name, broken, causes in _broken(child):
            children = (*layer.info.children[:i], broken, *layer.info.children[i + 1 :])
            yield name, _rebuilt(layer, children), causes


def _rebuilt(layer: fn.Layer, children: tuple[fn.Layer, ...]) -> fn.Layer:
    settings = layer.info.settings
    build = {
        "serial": lambda: fn.serial(*children),
        "nodes": lambda: fn.nodes(*children),
        "residual": lambda: fn.residual(*children),
        "branch": lambda: fn.branch(*children, merge=settings["merge"]),
        "stack": lambda: fn.stack(*children, settings["depth"]),
        "bidirectional": lambda: of_two(children, layer.info, settings["merge"]),
        "encoder_decoder": lambda: fn.encoder_decoder(*children),
    }
    return build[layer.info.name]()


class Verdict(NamedTuple):
    """What compare says of a planted mistake."""

    flagged: bool
    named: bool  # correctly, in every wrong leaf
    says: str


def compare_verdict(planted: Planted, problem: Problem, measured: Measured) -> Verdict:
    """Whether compare flags a mistake and names it correctly, and what it says."""
    wrong_problem = problem._replace(by_hand=planted.by_hand, traceable=False, departure=lambda _: ())
    report = judge(wrong_problem, measured)
    wrong = [row for row in report.rows if not row.ok]
    named = [row.cause in planted.causes and planted.mentions in row.diagnosis for row in wrong]
    says = "; ".join(f"{row.path}: {row.diagnosis}" for row in wrong) or " ".join(report.notes)
    return Verdict(not report.ok, bool(named) and all(named), says)


def verdicts(case: catalogue.Case, seed: int = 0) -> Iterator[tuple[Planted, Verdict]]:
    """Every mistake in a row, with compare's verdict."""
    with jax.enable_x64(True):
        problem = case.problem(seed)
        measured = measure(problem)
        for mistake in planted(case, problem):
            yield mistake, compare_verdict(mistake, problem, measured)
