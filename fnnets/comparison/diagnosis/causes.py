"""The causes of a wrong gradient: common mistakes, each recognised by its effect on the gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fnnets.comparison.diagnosis.alternatives import Alternative

CLOSE = 1e-6  # a wrong gradient shows a mistake if both agree to this, relative to their scale

NOTHING = 1e-10  # a true gradient is only rounding noise if it is this much smaller than the one by hand


class Cause(NamedTuple):
    """A recognised mistake."""

    kind: str
    text: str


UNKNOWN = Cause("unknown", "no simple cause was found")


@dataclass(frozen=True)
class Context:
    """What a diagnosis knows about the function.

    Attributes:
      sizes: the numbers by which a gradient may be wrongly multiplied or divided, by name.
      blocks: the names of the equal blocks of a leaf, by path.
      axes: the names of the leading axes that x and the output share.
      dy: the gradient of the output, if that is one array.
      slices: for each of these axes, the gradients from each index alone, by path.
      alternatives: the gradients that single mistakes inside the function give.
    """

    sizes: dict[str, float] = field(default_factory=dict)
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: tuple[str, ...] = ()
    dy: np.ndarray | None = None
    slices: Callable[[], list[dict[str, np.ndarray]]] = list
    alternatives: Callable[[], list[Alternative]] = list


def diagnose(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause:
    """The simplest mistake that explains the gradient by hand of a leaf."""
    if not np.isfinite(hand).all():
        bad = np.argwhere(~np.isfinite(hand))
        return Cause(
            "not finite", f"{len(bad)} of {hand.size} entries are not finite, the first at {bad[0].tolist()}"
        )
    if hand.shape != true.shape:
        return _of_shape(path, hand, true, context)
    if close(hand, true):
        gap = np.abs(hand - true).max(initial=0) / np.abs(true).max(initial=1e-300)
        return Cause(
            "precision", f"agrees only to {gap:.0e}: something in the derivation is computed in float32"
        )
    searches = (
        lambda: _whole(hand, true, context.sizes, only_named=True),
        lambda: _transposed(hand, true),
        lambda: _blocks(path, hand, true, context),
        lambda: _identity(hand, context.dy),
        lambda: _one_only(path, hand, context),
        lambda: _altered(path, hand, true, context),
        # A factor without a name comes late: any single number is a multiple of another.
        lambda: _whole(hand, true, context.sizes),
        lambda: _region(hand, true, context.sizes),
    )
    return next((cause for search in searches if (cause := search()) is not None), UNKNOWN)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree closely enough to show the same mistake."""
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= CLOSE * np.abs(b).max(initial=0))


def _of_shape(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause:
    extra = hand.ndim - true.ndim
    if extra > 0 and close(hand.sum(tuple(range(extra))), true):
        return Cause("missing sum", f"the sum over {_summed(path, hand, extra, context)} is missing")
    if (cause := _transposed(hand, true)) is not None:
        return cause
    return Cause("shape", f"has shape {hand.shape}, but must have {true.shape}")


def _summed(path: str, hand: np.ndarray, extra: int, context: Context) -> str:
    """The axes of a missing sum, found by the gradients from each index alone."""
    if extra == len(context.axes):
        return " and ".join(context.axes)
    if extra == 1:
        for axis, parts in zip(context.axes, context.slices(), strict=False):
            if path in parts and close(hand, parts[path]):
                return axis
    return f"its first {extra} axes" if extra > 1 else "its first axis"


def _whole(
    hand: np.ndarray, true: np.ndarray, sizes: dict[str, float], *, only_named: bool = False
) -> Cause | None:
    """The whole leaf is zero, or a multiple of the true gradient."""
    if not hand.any() and true.any():
        return Cause("zero", "is zero")
    if np.abs(true).max(initial=0) <= NOTHING * np.abs(hand).max(initial=0):
        return Cause("not zero", "the true gradient is zero")
    factor = float(np.vdot(true, hand) / np.vdot(true, true))
    if factor == 0 or not close(hand, factor * true):
        return None
    if np.count_nonzero(true) == 1 and not _factor(factor, sizes)[1]:
        alone = f"is off by a factor of {factor:.6g}; a single number cannot tell why"
        return None if only_named else Cause("factor", alone)
    if abs(factor + 1) < CLOSE:
        return Cause("sign", "has the wrong sign")
    text, named = _factor(factor, sizes)
    return Cause("factor", text) if named or not only_named else None


def _factor(factor: float, sizes: dict[str, float]) -> tuple[str, bool]:
    """A factor in words, and whether it has a name."""
    sign, size = ("the wrong sign and " if factor < 0 else ""), abs(factor)
    lengths = [(name, n) for name, n in sizes.items() if n > 1]

    def explained(forms: Callable[[str, float], dict[str, float]]) -> list[str]:
        every = [item for name, n in lengths for item in forms(name, n).items()]
        return [text for text, value in every if value != 1 and abs(size / value - 1) < CLOSE]

    reasons = explained(
        lambda name, n: {
            f"multiplied by {name}": n,
            f"divided by {name}": 1 / n,
            f"n/(n−1), n = {name}": n / (n - 1),
            f"(n−1)/n, n = {name}": (n - 1) / n,
        }
    )
    plain = {2.0: "2", 0.5: "½", 3.0: "3", 1 / 3: "⅓", 4.0: "4", 0.25: "¼", math.pi: "π"}
    number = next((text for value, text in plain.items() if abs(size / value - 1) < CLOSE), None)
    if not reasons and number is None:  # roots explain much by accident, so they come last
        reasons = explained(
            lambda name, n: {
                f"multiplied by the root of {name}": n**0.5,
                f"divided by the root of {name}": n**-0.5,
            }
        )
    names = f" ({' or '.join(reasons)})" if reasons else ""
    return f"has {sign}a constant factor of {number or f'{size:.6g}'}{names}", bool(number or reasons)


def _transposed(hand: np.ndarray, true: np.ndarray) -> Cause | None:
    if true.ndim < 2 or true.ndim > 5 or sorted(hand.shape) != sorted(true.shape):
        return None
    for order in itertools.permutations(range(true.ndim)):
        if order != tuple(range(true.ndim)) and close(hand, true.transpose(order)) and not close(hand, true):
            which = "" if true.ndim == 2 else f" (axes in the order {order})"
            return Cause("transpose", f"is the transpose{which}")
    return None


def _blocks(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause | None:
    """One of the equal blocks of an axis is zero or a multiple of the true one, or two are exchanged."""
    for axis, names in _partitions(path, true, context):
        n = len(names)
        parts, right = np.split(hand, n, axis), np.split(true, n, axis)
        wrong = [i for i in range(n) if not _same(parts[i], right[i], true)]
        if len(wrong) == 1 and n > 1:
            (i,) = wrong
            if not parts[i].any():
                return Cause("zero block", f"{names[i]} is zero")
            # If nothing else is nonzero, the factor is one of the whole leaf.
            several = np.count_nonzero(right[i]) > 1 and np.count_nonzero(right[i]) < np.count_nonzero(true)
            if several and (cause := _whole(parts[i], right[i], context.sizes)) is not None:
                if not any(part.any() for k, part in enumerate(right) if k != i):
                    return cause  # the other blocks are zero, so this is the whole leaf
                return Cause(f"{cause.kind} block", f"{names[i]} {cause.text}")
        if len(wrong) == 2:
            i, j = wrong
            if close(parts[i], right[j]) and close(parts[j], right[i]):
                return Cause("exchanged blocks", f"{names[i]} and {names[j]} are exchanged")
    return None


def _partitions(path: str, true: np.ndarray, context: Context) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The ways to split a leaf into equal blocks: first as its params document, then along every axis."""
    names = tuple(f"the block of {name}" for name in context.blocks.get(path, ()))
    if names and true.ndim and true.shape[-1] % len(names) == 0:
        yield true.ndim - 1, names
    if names and true.ndim > 1 and true.shape[0] == len(names):  # one row per block, as in peepholes
        yield 0, names
    for axis in reversed(range(true.ndim)):
        size = true.shape[axis]
        for n in range(2, min(size, 16) + 1):
            if size % n == 0:
                ends = [(k * size // n, (k + 1) * size // n) for k in range(n)]
                yield axis, tuple(f"the block [{_slab(true.ndim, axis, a, b)}]" for a, b in ends)


def _slab(ndim: int, axis: int, start: int, stop: int) -> str:
    inner = str(start) if stop == start + 1 else f"{start}:{stop}"
    return ", ".join(inner if k == axis else ":" for k in range(ndim))


def _same(hand: np.ndarray, true: np.ndarray, whole: np.ndarray) -> bool:
    return bool(np.abs(hand - true).max(initial=0) <= CLOSE * np.abs(whole).max(initial=0))


def _identity(hand: np.ndarray, dy: np.ndarray | None) -> Cause | None:
    if dy is not None and hand.ndim > 0 and dy.any() and close(hand, dy):
        return Cause("missing derivative", "is dy itself: the derivative f' is missing")
    return None


def _one_only(path: str, hand: np.ndarray, context: Context) -> Cause | None:
    """Only one example or time step counts; or all but one."""
    for axis, parts in zip(context.axes, context.slices(), strict=False):
        if path not in parts or len(parts[path]) < 2:
            continue
        each = parts[path]
        counting = [i for i, part in enumerate(each) if part.any()]
        for i in counting:
            if close(hand, each[i]):
                which = "the last one" if i == len(each) - 1 else f"number {i}"
                return Cause("missing sum", f"only {which} of {axis} counts: the sum over it is missing")
        for i in counting:
            if close(hand, each.sum(0) - each[i]):
                return Cause("missing sum", f"number {i} of {axis} is left out of the sum")
    return None


def _altered(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause | None:
    """The exact gradient of the function with one derivative, or one term, left out."""
    matches = [
        mistake
        for mistake in context.alternatives()
        if (gradient := mistake.gradient.get(path)) is not None
        and close(hand, gradient)
        and not close(gradient, true)
    ]
    # If a cut explains it too, the slope of 1 is a coincidence: a constant or centred value hides the difference.
    matches.sort(key=lambda mistake: mistake.kind != "missing term")
    return Cause(matches[0].kind, matches[0].text) if matches else None


def _region(hand: np.ndarray, true: np.ndarray, sizes: dict[str, float]) -> Cause | None:
    """Wrong inside one box only, and zero or a multiple of the true gradient there."""
    wrong = np.abs(hand - true) > CLOSE * np.abs(true).max(initial=0)
    if not wrong.any() or wrong.all():
        return None
    box = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(wrong))
    where = "[" + ", ".join(f"{s.start}:{s.stop}" for s in box) + "]"
    if wrong.sum() == 1 and hand[box].any():
        return Cause("entry", f"only the entry {[side.start for side in box]} is wrong")
    if (cause := _whole(hand[box], true[box], sizes)) is not None:
        return Cause(f"{cause.kind} block", f"the block {where} {cause.text}")
    if all(side.stop - side.start == n for side, n in zip(box, wrong.shape, strict=True)):
        return None
    share = f"{int(wrong.sum())} of {wrong.size} entries"
    return Cause("unknown", f"no simple cause was found; wrong only inside {where} ({share})")
