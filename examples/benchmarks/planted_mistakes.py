"""Plants the mistakes that people make into every gradient of the catalogue, and counts who notices.

    python examples/benchmarks/planted_mistakes.py            # every row
    python examples/benchmarks/planted_mistakes.py --quick    # a few rows

Each mistake goes into one leaf of one row at a time. Counted are: how many `fn.compare` flags, how many
of them it names right, and how many `jax.test_util.check_grads` (its defaults, reverse mode, in float32)
and, where torch is installed, `torch.autograd.gradcheck` (its defaults, float64) flag.
"""

from __future__ import annotations

import argparse
import collections
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

import fnnets as fn
from fnnets import catalogue
from fnnets.comparison import problems, trees
from fnnets.comparison.judge import judge
from fnnets.comparison.measure import Measured, Problem, measure

Gradient = dict[str, Any]
ByHand = Callable[[Any, Any, Any], tuple[Any, Any]]


class Planted(NamedTuple):
    """One mistake in one place."""

    row: str
    mistake: str
    place: str  # a leaf or a layer
    by_hand: ByHand  # the wrong derivation
    causes: tuple[str, ...]  # the kinds of cause that name it right
    mentions: str  # what the diagnosis must say


class Leaf(NamedTuple):
    """What a mistake in one leaf may use: its gradient g, and those that single indices of an axis give."""

    path: str
    g: jax.Array
    batch: int  # the length of the first axis of x, 0 without one
    steps: int  # the length of the time axis, 0 without one
    alone: Callable[[int, int], jax.Array]  # (axis, index) -> the gradient that this index alone gives


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
    return leaf.alone(0, 0) if leaf.batch > 1 and leaf.path.startswith("params") else None


def _unsummed(leaf: Leaf) -> Any:
    if leaf.batch < 2 or not leaf.path.startswith("params"):
        return None
    return jnp.stack([leaf.alone(0, i) for i in range(leaf.batch)])


def _last_step(leaf: Leaf) -> Any:
    return leaf.alone(1, leaf.steps - 1) if leaf.steps > 1 else None


class Mistake(NamedTuple):
    """A mistake in a leaf; `plant` gives None where it cannot be made."""

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
)


def _without_slope(layer: fn.Layer) -> fn.Layer:
    return layer._replace(backward=lambda params, saved, dy, dcarry=None: ((), dy, None))


def _first_factor_only(layer: fn.Layer) -> fn.Layer:
    """Y = x·gate(x) derived as if the gate were a constant."""
    return layer._replace(backward=lambda params, saved, dy, dcarry=None: ((), dy * saved.gate, None))


def _without_normaliser(layer: fn.Layer) -> fn.Layer:
    """Softmax and log_softmax derived as if the sum were a constant."""
    factor = (lambda y: y) if layer.info.name == "softmax" else jnp.ones_like
    return layer._replace(backward=lambda params, y, dy, dcarry=None: ((), dy * factor(y), None))


def _without_skip(layer: fn.Layer) -> fn.Layer:
    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
        gone = dy if saved.mask is None else jnp.where(saved.mask[..., None], dy, 0)
        return dparams, dx - gone, dcarry

    return layer._replace(backward=backward)


def _without_last_arm(layer: fn.Layer) -> fn.Layer:
    def backward(params: Any, saved: Any, dy: Any, dcarry: Any = None) -> Any:
        dparams, _, dcarry = layer.backward(params, saved, dy, dcarry)
        arms = layer.info.children[:-1]
        rest = fn.branch(*arms, merge=layer.info.settings["merge"])
        kept = saved._replace(children=saved.children[:-1], widths=fn.Static(saved.widths.value[:-1]))
        _, dx, _ = rest.backward(params[:-1], kept, dy)
        return dparams, dx, dcarry

    return layer._replace(backward=backward)


SQUASHING = (
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "softplus",
    "gelu",
    "silu",
    "hard_sigmoid",
)
LAYER_MISTAKES: dict[str, tuple[tuple[str, Any, tuple[str, ...]], ...]] = {
    **dict.fromkeys(SQUASHING, (("no derivative f'", _without_slope, ("missing derivative",)),)),
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
    "residual": (("dropped term", _without_skip, ("missing term",)),),
    "branch": (("dropped term", _without_last_arm, ("missing term",)),),
}


def planted(case: catalogue.Case, problem: Problem) -> Iterator[Planted]:
    """Every mistake that can be made in a row, one at a time; call it inside `jax.enable_x64(True)`."""
    right = jax.jit(problem.by_hand)
    gradient = _gradient(right, problem)
    lengths = _lengths(case, problem)
    for path, true in gradient.items():
        for mistake in LEAF_MISTAKES:
            by_hand = functools.partial(_with_mistake, right, path, mistake, lengths)
            if _differ(_gradient(by_hand, problem).get(path), true):
                yield Planted(case.name, mistake.name, path, by_hand, mistake.causes, mistake.mentions)
    for count, (name, broken, causes) in enumerate(_broken(case.layer) if case.layer else ()):
        by_hand = jax.jit(problems.functions(broken, case.mode["train"])[1])
        wrong = _gradient(by_hand, problem)
        if any(_differ(wrong[path], true) for path, true in gradient.items()):
            yield Planted(case.name, name, f"layer {count}", by_hand, causes, "")


def _with_mistake(
    right: ByHand, path: str, mistake: Mistake, lengths: tuple[int, int], point: Any, fixed: Any, dy: Any
) -> tuple[Any, Any]:
    """The derivation with a mistake in one leaf; where it cannot be made, the right one."""

    def leaf_of(gradient: Any) -> Any:
        return next(leaf for at, leaf in _with_paths(gradient) if at == path)

    def alone(axis: int, index: int) -> Any:
        places = jnp.arange(dy.shape[axis]).reshape([-1 if k == axis else 1 for k in range(dy.ndim)])
        return leaf_of(right(point, fixed, jnp.where(places == index, dy, jnp.zeros_like(dy)))[1])

    outputs, gradient = right(point, fixed, dy)
    wrong = mistake.plant(Leaf(path, leaf_of(gradient), *lengths, alone))
    if wrong is None:
        return outputs, gradient
    leaves = [wrong if at == path else leaf for at, leaf in _with_paths(gradient)]
    return outputs, jax.tree.unflatten(jax.tree.structure(gradient), leaves)


def _with_paths(gradient: Any) -> list[tuple[str, Any]]:
    return [(trees.text(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)]


def _gradient(by_hand: ByHand, problem: Problem) -> dict[str, np.ndarray]:
    return trees.by_path(by_hand(problem.point, problem.fixed, problem.dy)[1])


def _lengths(case: catalogue.Case, problem: Problem) -> tuple[int, int]:
    """The lengths of the batch and of the time axis of a row; 0 where there is none."""
    if case.x is None:
        leading: tuple[int, ...] = tuple(problem.point["y"].shape[:-1]) if "y" in problem.point else ()
        return (leading[0] if leading else 0), 0
    x = case.x(np.random.default_rng(0))
    leading = x.shape[:-1] if trees.is_float(x) else x.shape
    batch = leading[0] if leading else 0
    return batch, leading[1] if len(leading) == 2 and problem.dy.shape[:2] == leading else 0


def _differ(wrong: Any, true: np.ndarray) -> bool:
    """Whether a mistake makes any difference: the transpose of a symmetric leaf is none."""
    if wrong is None or wrong.shape != true.shape:
        return wrong is not None
    return bool(np.abs(wrong - true).max(initial=0) > 1e-3 * np.abs(true).max(initial=0))


def _broken(layer: fn.Layer) -> Iterator[tuple[str, fn.Layer, tuple[str, ...]]]:
    """The network with one mistake in one of its layers, for every mistake and layer."""
    for name, plant, causes in LAYER_MISTAKES.get(layer.info.name, ()):
        if layer.info.name != "branch" or len(layer.info.children) > 1:
            yield name, plant(layer), causes
    for i, child in enumerate(layer.info.children):
        for name, broken, causes in _broken(child):
            children = (*layer.info.children[:i], broken, *layer.info.children[i + 1 :])
            yield name, _rebuilt(layer, children), causes


def _rebuilt(layer: fn.Layer, children: tuple[fn.Layer, ...]) -> fn.Layer:
    settings = layer.info.settings
    build = {
        "serial": lambda: fn.serial(*children),
        "residual": lambda: fn.residual(*children),
        "branch": lambda: fn.branch(*children, merge=settings["merge"]),
        "stack": lambda: fn.stack(*children, settings["depth"]),
    }
    return build[layer.info.name]()


class Verdict(NamedTuple):
    """What compare made of a planted mistake."""

    flagged: bool
    named: bool  # right, in every leaf that went wrong
    says: str


def compare_verdict(planted: Planted, problem: Problem, measured: Measured) -> Verdict:
    """Whether compare flags a mistake, names it right, and what it says."""
    report = judge(problem._replace(by_hand=planted.by_hand, traceable=False), measured)
    wrong = [row for row in report.rows if not row.ok]
    named = [row.cause in planted.causes and planted.mentions in row.diagnosis for row in wrong]
    says = "; ".join(f"{row.path}: {row.diagnosis}" for row in wrong) or " ".join(report.notes)
    return Verdict(not report.ok, bool(named) and all(named), says)


def verdicts(case: catalogue.Case, seed: int = 0) -> Iterator[tuple[Planted, Verdict]]:
    """Every mistake in a row, with what compare makes of it."""
    with jax.enable_x64(True):
        problem = case.problem(seed)
        measured = measure(problem)
        for mistake in planted(case, problem):
            yield mistake, compare_verdict(mistake, problem, measured)


def check_grads_flags(problem: Problem, by_hand: ByHand) -> bool:
    """Whether jax's own check, with its defaults and in float32, refuses the derivation."""
    point, fixed, dy = jax.tree.map(_float32, (problem.point, problem.fixed, problem.dy))
    del dy

    @jax.custom_vjp
    def f(point: Any) -> Any:
        return problem.plain(point, fixed)

    def backward(point: Any, dy: Any) -> Any:
        gradient = by_hand(point, fixed, dy)[1]
        return ({name: gradient.get(name) for name in point},)

    f.defvjp(lambda point: (f(point), point), backward)
    try:
        jax.test_util.check_grads(f, (point,), order=1, modes=["rev"])
    except (
        Exception
    ):  # a mismatch is an AssertionError, a gradient of another shape a TypeError: both are noticed
        return True
    return False


def _float32(leaf: Any) -> Any:
    return np.asarray(leaf, np.float32) if getattr(leaf, "dtype", None) == np.float64 else leaf


def _same_shape(gradient: Any, leaf: Any) -> None:
    if jnp.shape(gradient) != jnp.shape(leaf):
        raise ValueError(f"a gradient of shape {jnp.shape(gradient)} for a leaf of {jnp.shape(leaf)}")


def gradcheck_flags(torch: Any, problem: Problem, by_hand: ByHand) -> bool:
    """Whether torch's check, with its defaults and in float64, refuses the derivation."""
    vector, unravel = ravel_pytree(problem.point)
    plain = jax.jit(problem.plain)
    _, unravel_y = ravel_pytree(plain(problem.point, problem.fixed))

    class Function(torch.autograd.Function):  # type: ignore[name-defined,misc]
        @staticmethod
        def forward(context: Any, flat: Any) -> Any:
            context.save_for_backward(flat)
            found = plain(unravel(flat.detach().numpy()), problem.fixed)
            return torch.from_numpy(np.array(ravel_pytree(found)[0]))

        @staticmethod
        def backward(context: Any, dy: Any) -> Any:
            (flat,) = context.saved_tensors
            gradient = by_hand(unravel(flat.numpy()), problem.fixed, unravel_y(dy.numpy()))[1]
            # As torch itself would see it; flattened, a transpose of one row would look right.
            jax.tree.map(_same_shape, gradient, {name: problem.point[name] for name in gradient})
            return torch.from_numpy(np.array(ravel_pytree(gradient)[0]))

    try:
        return not torch.autograd.gradcheck(
            Function.apply, torch.tensor(np.array(vector), requires_grad=True)
        )
    except Exception:
        return True


NOTHING = "nothing (control)"


QUICK = ("dense", "tanh", "softmax", "residual", "mse")


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; exit status 1 where compare misses a mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"only the rows {', '.join(QUICK)}")
    options = parser.parse_args(arguments)
    try:
        import torch
    except ImportError:
        torch = None
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    cases = [case for case in catalogue.cases() if not options.quick or case.name in QUICK]
    for case in tqdm(cases, unit="row", disable=not sys.stderr.isatty()):
        with jax.enable_x64(True):
            problem = case.problem(0)
            measured = measure(problem)
            found = list(planted(case, problem))
            found.append(Planted(case.name, NOTHING, "", jax.jit(problem.by_hand), (), ""))
            for mistake in found:
                flagged, named, _ = compare_verdict(mistake, problem, measured)
                counts[mistake.mistake].update(planted=1, flagged=flagged, named=named)
                if torch is not None:
                    counts[mistake.mistake]["gradcheck"] += gradcheck_flags(torch, problem, mistake.by_hand)
        for mistake in found:
            counts[mistake.mistake]["check_grads"] += check_grads_flags(problem, mistake.by_hand)
    _print(dict(counts), torch is not None)
    missed = any(row["flagged"] < row["planted"] for name, row in counts.items() if name != NOTHING)
    return int(missed or counts[NOTHING]["flagged"] > 0)


def _print(counts: dict[str, collections.Counter[str]], with_torch: bool) -> None:
    columns = ["planted", "flagged", "named", "check_grads", *(["gradcheck"] if with_torch else [])]
    heads = ["planted", "compare flags", "and names right", "check_grads flags", "gradcheck flags"]
    control, total = counts.pop(NOTHING), collections.Counter[str]()
    for row in counts.values():
        total.update(row)
    print(f"{'mistake':24}" + "".join(f"{head:>19}" for head in heads[: len(columns)]))
    for name, row in [*counts.items(), ("all", total), (NOTHING, control)]:
        print(f"{name:24}" + "".join(f"{row[column]:>19}" for column in columns))
    shares = ", ".join(
        f"{head} {total[c] / total['planted']:.1%}" for c, head in zip(columns[1:], heads[1:], strict=False)
    )
    print(f"of {total['planted']} planted mistakes: {shares}")


if __name__ == "__main__":
    sys.exit(main())
