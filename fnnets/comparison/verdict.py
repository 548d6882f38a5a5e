"""The verdict on a derivation, leaf by leaf."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fnnets.comparison import float_trees
from fnnets.comparison.diagnosis import causes
from fnnets.comparison.differences import Difference
from fnnets.comparison.measurement import Measured, Problem
from fnnets.comparison.report import AUTODIFF, DIFFERENCES, Report, Row

HIDDEN = "the plain equation hides a stop_gradient or a custom rule"


def judge(problem: Problem, measured: Measured) -> Report:
    """Compares the derivation with the measurements of the function; call it inside `jax.enable_x64(True)`."""
    by_hand = _jitted(problem.by_hand) if problem.traceable else problem.by_hand
    try:
        outputs, gradient = by_hand(problem.point, problem.fixed, problem.dy)
    except Exception as error:  # any error in a derivation is a result, not a failure of the comparison
        place = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        note = f"by hand: {type(error).__name__}: {error}{place}"
        return Report(problem.name, (), 0.0, (note,), failed=True)
    hand = float_trees.by_path(gradient)
    rows = tuple(_row(problem, measured, path, hand.pop(path, None)) for path in measured.true)
    value_error = _value_error(outputs, measured.outputs)
    notes = [f"the gradient by hand has a leaf {path} that the function does not have" for path in hand]
    if value_error > AUTODIFF:
        notes.append(f"forward departs from the plain equation by {value_error:.3g} of the output's scale")
    if not measured.autodiff:
        notes.append("jax cannot trace the function: it is compared with central differences alone")
    wrong = tuple(row.path for row in rows if row.verdict in ("wrong", "shape", "missing"))
    if wrong and value_error <= AUTODIFF:  # if forward departs, the steps have nothing to compare with
        notes += problem.departure(wrong)
    return Report(problem.name, rows, value_error, (*notes, *_overview(rows)), failed=bool(hand))


def _row(problem: Problem, measured: Measured, path: str, hand: np.ndarray | None) -> Row:
    """One leaf: its numbers, if the shapes agree, and its verdict."""
    true, difference = measured.true[path], measured.differences[path]
    row = Row(
        path=path,
        layer=problem.layers(path),
        shape=None if hand is None else hand.shape,
        error=math.inf,
        relative=math.inf,
        cosine=0.0,
        worst=(),
        difference=math.inf,
        differenced=len(difference.entries),
        set_aside=int((~difference.smooth).sum()),
        verdict="ok",
    )
    if hand is None:
        return row.found("missing", "missing", "the gradient by hand does not have this leaf")
    if measured.autodiff and not np.isfinite(true).all():
        same = hand.shape == true.shape and (np.isfinite(hand) == np.isfinite(true)).all()
        whose = "by hand and by autodiff alike" if same else "by autodiff"
        text = f"the gradient is not finite, {whose}: nothing can be compared here"
        return row.found("not finite", "not finite", text)
    hand = np.asarray(hand, np.float64)
    if hand.shape != true.shape:
        return row.found("shape", *causes.diagnose(path, hand, true, problem.context))
    row = row.measured(**_numbers(hand, true, difference, measured.scale[path]))
    if not measured.autodiff and true.size and not difference.smooth.any():
        text = "no difference can be trusted: the function is noisy, has kinks here, or computes in float32"
        return row.found("unchecked", "unchecked", text)
    if not row.relative <= (AUTODIFF if measured.autodiff else DIFFERENCES):
        return row.found("wrong", *_cause(problem, path, hand, true, difference, measured.scale[path]))
    if not row.difference <= DIFFERENCES:
        return row.found(
            "differences", "differences", f"hand and autodiff agree, but differences do not: {HIDDEN}"
        )
    return row.found("constant", "", "") if path in float_trees.constants(problem.point) else row


def _numbers(hand: np.ndarray, true: np.ndarray, difference: Difference, scale: float) -> dict[str, Any]:
    """The errors of one leaf. Without autodiff, `true` is NaN where it is unknown."""
    known = np.isfinite(true)
    errors = np.where(known, np.nan_to_num(np.abs(hand - true), nan=math.inf), 0.0)
    worst = np.unravel_index(np.argmax(errors), errors.shape) if errors.size else ()
    error = float(errors[worst]) if errors.size else 0.0
    at = difference.entries[difference.smooth]
    slope = difference.slope[difference.smooth]
    gaps = [np.abs(gradient.ravel()[at] - slope).max(initial=0) for gradient in (hand, true)]
    return {
        "error": error,
        "relative": error / scale,
        "cosine": _cosine(hand[known], true[known]),
        "worst": tuple(int(k) for k in worst),
        "difference": float(max(gaps)) / scale,
    }


def _cause(
    problem: Problem, path: str, hand: np.ndarray, true: np.ndarray, difference: Difference, scale: float
) -> causes.Cause:
    at, slope = difference.entries[difference.smooth], difference.slope[difference.smooth]
    near, far = (np.abs(gradient.ravel()[at] - slope).max(initial=0) for gradient in (hand, true))
    if len(at) and near <= DIFFERENCES * scale < far:
        return causes.Cause("autodiff", f"hand agrees with differences, but autodiff does not: {HIDDEN}")
    if not np.isfinite(true).all():
        return causes.Cause("unknown", "no diagnosis: differences alone do not give every entry")
    return causes.diagnose(path, hand, true, problem.context)


def _overview(rows: tuple[Row, ...]) -> list[str]:
    """A note on what the wrong leaves have in common."""
    wrong = [row for row in rows if not row.ok and row.verdict not in ("not finite", "unchecked")]
    right = [row for row in rows if row.verdict == "ok"]
    if not wrong:
        return []
    if right:
        names = ", ".join(row.path for row in right)
        return [f"only {', '.join(row.path for row in wrong)} went wrong; right: {names}"]
    if len(wrong) > 1 and len({row.diagnosis for row in wrong}) == 1 and wrong[0].cause in ("sign", "factor"):
        return ["every leaf has the same mistake: check dy, or the last step that they all share"]
    return []


def _value_error(outputs: Any, plain: Any) -> float:
    if outputs is None:
        return 0.0
    worst = 0.0
    for y, expected in zip(jax.tree.leaves(outputs), jax.tree.leaves(plain), strict=True):
        y, expected = np.asarray(y), np.asarray(expected)
        if y.shape != expected.shape:
            return float("inf")
        gap = np.where((y == expected) | (np.isnan(y) & np.isnan(expected)), 0, np.abs(y - expected))
        finite = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max(initial=0) / finite))
    return worst


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if length == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(np.vdot(a, b)) / length


@functools.lru_cache(maxsize=256)
def _jitted(by_hand: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(by_hand)
