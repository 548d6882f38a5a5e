"""The true gradient of a function: by autodiff and by central differences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fnnets.comparison import differences, float_trees, report
from fnnets.comparison.diagnosis import alternatives, causes

FLOOR = 1e-2  # errors are relative to the leaf's scale, but at least to this share of the whole gradient's
DY_FLOOR = 1e-4  # and at least to this share of dy's, where the whole gradient is almost 0

UNTRACEABLE = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class Problem(NamedTuple):
    """A function, its derivation, and the point at which they are compared.

    Attributes:
      name: for the report.
      plain: `(point, fixed) -> outputs`, the plain equation; the outputs are any tree of floats.
      by_hand: `(point, fixed, dy) -> (outputs, gradient)`; the gradient is a tree like the point.
      point: the tree of differentiable leaves in float64, with None elsewhere.
      fixed: everything else that the two functions need.
      dy: the gradients of the outputs.
      traceable: whether by_hand may be jitted.
      layers: maps a path to the layer that it belongs to.
      context: what a diagnosis knows about the function.
      departure: maps the paths of the wrong leaves to notes: where in the backward pass by_hand departs first.
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
    """The measurements of the function itself, which do not depend on the derivation."""

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
    by_path = dict(zip(leaves, differences.central(change, point, fixed, dy, skip, tolerances), strict=True))
    if true:
        return Measured(outputs, true, by_path, scale, autodiff=True)
    true = {path: _scattered(leaves[path], by_path[path]) for path in leaves}
    return Measured(outputs, true, by_path, _scales(true, dy), autodiff=False)


def _scales(true: dict[str, np.ndarray], dy: Any) -> dict[str, float]:
    """The scale for the errors of each leaf: its largest entry, or at least a share of the whole gradient's."""

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
    """For each way to split dy, the gradients from its parts alone, by path."""
    pull = jax.jit(lambda point, fixed, dy: jax.vjp(lambda point: plain(point, fixed), point)[1](dy)[0])
    gradients = []
    for each in parts:
        size = sum(leaf.size for leaf in jax.tree.leaves(point))
        if len(each) * size > alternatives.LARGEST:
            break
        alone = [pull(point, fixed, dy) for dy in each]
        gradients.append(float_trees.by_path(jax.tree.map(lambda *parts: np.stack(parts), *alone)))
    return gradients
