"""What a function says of its own gradient: autodiff and central differences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fnnets.comparison import differences, float_trees, report
from fnnets.comparison.diagnosis import alternatives, causes

FLOOR = 1e-2  # a leaf is judged on its own scale, but on at least this share of the whole gradient's
DY_FLOOR = 1e-4  # and on this share of dy's, where the whole gradient is next to nothing

UNTRACEABLE = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class Problem(NamedTuple):
    """A function, its derivation, and the point at which they are held against each other.

    Attributes:
      name: for the report.
      plain: `(point, fixed) -> outputs`, the plain equation, any tree of floats.
      by_hand: `(point, fixed, dy) -> (outputs, gradient)`, the gradient a tree like the point.
      point: the tree of differentiable leaves, None elsewhere; float64.
      fixed: everything else that the two functions need.
      dy: the gradients of the outputs.
      traceable: whether by_hand may be jitted.
      layers: the layer that each path belongs to.
      context: what a diagnosis knows of the function.
      departure: from the paths of the wrong leaves, where in the backward pass by_hand departs first, in words.
    """

    name: str
    plain: Callable[[Any, Any], Any]
    by_hand: Callable[[Any, Any, Any], tuple[Any, Any]]
    point: Any
    fixed: Any
    dy: Any
    traceable: bool = True
    layers: Callable[[str], str] = lambda _: ""
    context: causes.Context = causes.Context()
    departure: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda _: ()


class Measured(NamedTuple):
    """What the function itself says: nothing of it depends on the derivation."""

    outputs: Any
    true: dict[str, np.ndarray]  # by autodiff, or by differences where f cannot be traced
    differences: dict[str, differences.Difference]
    scale: dict[str, float]
    autodiff: bool


def measure(problem: Problem) -> Measured:
    """Autodiff and central differences at the point; call it inside `jax.enable_x64(True)`."""
    plain, point, fixed, dy = problem.plain, problem.point, problem.fixed, problem.dy
    leaves = float_trees.by_path(point)
    try:
        outputs, gradient = _autodiff(plain)(point, fixed, dy)
        change, true = _deltas(plain), float_trees.by_path(gradient)
        scale = _scales(true, dy)
    except UNTRACEABLE:
        outputs, true = plain(point, fixed), {}
        change, scale = differences.deltas_in_python(plain), dict.fromkeys(leaves, 1.0)
    skip = {i for i, path in enumerate(leaves) if path in float_trees.constants(point)}
    tolerances = [report.DIFFERENCES * scale[path] for path in leaves]
    found = differences.central(change, point, fixed, dy, skip, tolerances)
    by_path = dict(zip(leaves, found, strict=True))
    if true:
        return Measured(outputs, true, by_path, scale, autodiff=True)
    true = {path: _scattered(leaves[path], by_path[path]) for path in leaves}
    return Measured(outputs, true, by_path, _scales(true, dy), autodiff=False)


def _scales(true: dict[str, np.ndarray], dy: Any) -> dict[str, float]:
    """What errors are relative to: the leaf's largest entry, and no less than a share of the whole gradient's."""

    def largest(leaf: Any) -> float:
        leaf = np.abs(np.asarray(leaf))
        return float(leaf[np.isfinite(leaf)].max(initial=0))

    whole = max(map(largest, true.values()), default=0.0)
    least = max(FLOOR * whole, DY_FLOOR * max(map(largest, jax.tree.leaves(dy)), default=0.0), 1e-300)
    return {path: max(largest(leaf), least) for path, leaf in true.items()}


def _scattered(leaf: np.ndarray, difference: differences.Difference) -> np.ndarray:
    flat = np.full(leaf.size, np.nan)
    flat[difference.entries[difference.smooth]] = difference.slope[difference.smooth]
    return flat.reshape(leaf.shape)


@functools.lru_cache(maxsize=256)
def _autodiff(plain: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    @jax.jit
    def run(point: Any, fixed: Any, dy: Any) -> Any:
        outputs, pullback = jax.vjp(lambda point: plain(point, fixed), point)
        return outputs, pullback(dy)[0]

    return run


@functools.lru_cache(maxsize=256)
def _deltas(plain: Callable[[Any, Any], Any]) -> differences.Deltas:
    return differences.deltas(plain)


def slices(
    plain: Callable[[Any, Any], Any], point: Any, fixed: Any, parts: list[list[Any]]
) -> list[dict[str, np.ndarray]]:
    """For each way to part dy, the gradients that its parts alone give, by path."""
    pull = jax.jit(lambda point, fixed, dy: jax.vjp(lambda point: plain(point, fixed), point)[1](dy)[0])
    found = []
    for each in parts:
        size = sum(leaf.size for leaf in jax.tree.leaves(point))
        if len(each) * size > alternatives.LARGEST:
            break
        alone = [pull(point, fixed, dy) for dy in each]
        found.append(float_trees.by_path(jax.tree.map(lambda *parts: np.stack(parts), *alone)))
    return found
