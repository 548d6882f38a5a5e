"""Where a backward pass through time first departs from autodiff: the time step, and the quantity in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.comparison.report import AUTODIFF
from fnnets.core import recording
from fnnets.core.layer import Layer
from fnnets.core.time_order import has_steps
from fnnets.insight.layer_paths import Place, indices, place_of
from fnnets.insight.trace import stages_of
from fnnets.rnn.step_records import Probed

FLOOR = 1e-2  # errors are relative to the quantity's scale, but at least to this share of the largest in its stage

Quantities = dict[str, np.ndarray]


class Stage(NamedTuple):
    """Quantities that a step computes together, by hand and by autodiff."""

    name: str
    hand: Quantities
    true: Quantities
    time: int = 0  # the axis of time


class Visit(NamedTuple):
    """A layer in the backward pass; in a stack, one copy of it."""

    path: str
    copy: tuple[int, ...]
    stages: list[Stage]


def departure(
    layer: Layer,
    plain: Callable[[Any, Any], Any],
    by_hand: Callable[[Any, Any, Any], Any],
    point: Any,
    fixed: Any,
    dy: Any,
    wrong: tuple[str, ...],
) -> tuple[str, ...]:
    """The first place in the backward pass at which the derivation departs from autodiff, in words.

    Autodiff's values are the gradients with respect to zeros added inside the plain equations: to every child's output,
    and in each step of a recurrent layer to the carry before it, its projection z, and the carry after it.

    Args:
      layer, plain, by_hand, point, fixed, dy: as in `Problem`.
      wrong: the paths of the wrong leaves.
    """
    if not has_steps(layer):
        return ()
    return first(layer, hand_trace(by_hand, point, fixed, dy), true_trace(plain, point, fixed, dy), wrong)


def first(
    layer: Layer, hand: dict[str, Any], true: dict[str, Any], wrong: tuple[str, ...]
) -> tuple[str, ...]:
    """The same, from the two traces."""
    for path, copy, stages in _visits(layer, hand, true):
        if text := _in_copy([_of_copy(stage, copy) for stage in stages], place_of(layer, path)):
            which = f", copy {', '.join(map(str, copy))}" if copy else ""
            return (f"the backward pass {text} {_who(layer, path)}{which}",)
    paths = [path for path in hand if "steps" in hand[path] and _owns(layer, path, wrong)]
    return tuple(
        f"every step of {_who(layer, path)} agrees with autodiff: what `collect` sums over time is wrong"
        for path in paths
    )


def hand_trace(by_hand: Callable[..., Any], point: Any, fixed: Any, dy: Any) -> dict[str, Any]:
    """The values in the derivation's backward pass."""
    return jax.jit(lambda *at: recording.collect("gradients", by_hand, *at)[1])(point, fixed, dy)


def true_trace(plain: Callable[..., Any], point: Any, fixed: Any, dy: Any) -> dict[str, Any]:
    """Autodiff's values: gradients with respect to zeros added to the probed values of the plain equations."""

    def pull(zeros: Any, point: Any, fixed: Any, dy: Any) -> Any:
        def run(zeros: Any) -> Any:
            return recording.collect("probes", plain, point, fixed, added=zeros)[0]

        return jax.vjp(run, zeros)[1](dy)[0]

    shapes = jax.eval_shape(lambda *at: recording.collect("probes", plain, *at)[1], point, fixed)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.jit(pull)(zeros, point, fixed, dy)


def _visits(layer: Layer, hand: dict[str, Any], true: dict[str, Any]) -> Iterator[Visit]:
    """Every layer, and every copy of it in a stack, in the order of the backward pass."""
    visits = []
    for path in hand.keys() & true.keys():
        copies = place_of(layer, path).copies
        stages = _stages(hand[path], true[path])
        sizes = next((leaf.shape[:copies] for stage in stages for leaf in stage.true.values()), ())
        visits += [Visit(path, copy, stages) for copy in np.ndindex(*sizes)]
    return iter(sorted(visits, key=lambda visit: _order(layer, visit)))


def _order(layer: Layer, visit: Visit) -> tuple[int, ...]:
    """A sort key: the last child first, the last copy first, a network before its children."""
    order, copies = [], iter(visit.copy)
    for index in indices(visit.path):
        order += [-next(copies), -index] if layer.info.copies else [-index]
        layer = layer.info.children[index]
    return tuple(order)


def _stages(hand: dict[str, Any], true: dict[str, Any]) -> list[Stage]:
    """The gradient that reaches the layer, and the three parts of a step, in the order of computation."""
    stages = []
    if isinstance(hand.get("dy"), jax.Array) and "dy" in true:
        stages.append(Stage("dy", _in_numpy({"dy": hand["dy"]}), _in_numpy({"dy": true["dy"]})))
    if "steps" not in hand or "after" not in true:
        return stages
    steps = hand["steps"]
    after, z, before = (_with_time(true[name], steps.axis.value) for name in ("after", "z", "before"))
    dz = projected(steps.dz, z)
    derived = stages_of(steps._replace(dz=dz))
    right = stages_of(steps._replace(after=after, dz=None if dz is None else z, before=before))
    time = steps.axis.value
    return stages + [Stage(name, _in_numpy(derived[name]), _in_numpy(right[name]), time) for name in right]


def _with_time(probed: Probed, axis: int) -> Any:
    """A value that a scan collected, with time at the layer's own time axis."""
    collected = probed.time.value
    return jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, collected, axis) if leaf.ndim > axis else leaf, probed.value
    )


def _in_numpy(quantities: dict[str, Any]) -> Quantities:
    return {name: np.asarray(leaf) for name, leaf in quantities.items()}


def projected(dz: Any, z: Any) -> Any:
    """The part of a cell's dz that is the gradient of z: dz or its field `z`, whichever has z's shapes."""
    field = dz.get("z") if isinstance(dz, dict) else getattr(dz, "z", None)
    shapes = jax.tree.map(jnp.shape, z)
    return next((part for part in (dz, field) if jax.tree.map(jnp.shape, part) == shapes), None)


def _of_copy(stage: Stage, copy: tuple[int, ...]) -> Stage:
    hand, true = ({name: leaf[copy] for name, leaf in part.items()} for part in (stage.hand, stage.true))
    return Stage(stage.name, hand, true, stage.time - len(copy))


def _in_copy(stages: list[Stage], place: Place) -> str:
    """In words, the first departing stage of the last departing step; "" if all agree."""
    errors = {stage.name: _errors(stage) for stage in stages}
    if "dy" in errors and errors.pop("dy")["dy"].any():
        return "departs from autodiff first in what reaches"
    steps = max((len(bad) for stage in errors.values() for bad in stage.values()), default=0)
    carries = any(bad.any() for name in ("after", "before") for bad in errors.get(name, {}).values())
    for t in reversed(range(steps)):
        for name in errors:
            if wrong := [quantity for quantity, bad in errors[name].items() if bad[t]]:
                alone = " (though every carry is right)" if name == "dz" and not carries else ""
                end = ", from the end" if place.from_end else ""
                when = f"t = {t} (of 0…{steps - 1}{end})"
                return f"first departs from autodiff at {when}: {', '.join(wrong)}{alone} of"
    return ""


def _errors(stage: Stage) -> Quantities:
    """Whether each quantity departs, step by step."""
    largest = {name: float(np.abs(leaf).max(initial=0)) for name, leaf in stage.true.items()}
    least = FLOOR * max(largest.values(), default=0.0)
    departs = {}
    for name, true in stage.true.items():
        gap = np.nan_to_num(np.abs(stage.hand[name] - true), nan=np.inf)
        bad = gap > AUTODIFF * max(largest[name], least)
        departs[name] = (
            bad if stage.name == "dy" else bad.any(tuple(k for k in range(bad.ndim) if k != stage.time))
        )
    return departs


def _who(layer: Layer, path: str) -> str:
    name = place_of(layer, path).layer.info.name
    return f"{name} at {path}" if path else name


def _owns(layer: Layer, path: str, wrong: tuple[str, ...]) -> bool:
    """Whether a wrong leaf belongs to the layer at a path."""
    params = place_of(layer, path).params
    return any(leaf.startswith(params) for leaf in wrong) or (not path and "x" in wrong)
