"""What a wrong gradient is: the mistakes that people make, each recognised by what it leaves behind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fnnets.comparison.alternatives import Alternative

CLOSE = 1e-6  # two gradients are the same mistake when they agree to this, relative to their scale


class Cause(NamedTuple):
    """A mistake that was recognised."""

    kind: str
    text: str


UNKNOWN = Cause("unknown", "no simple cause was found")


@dataclass(frozen=True)
class Context:
    """What is known of the function, for naming what goes wrong in it.

    Attributes:
      sizes: names of numbers that gradients are wrongly multiplied or divided by, and their values.
      blocks: the names of the equal blocks of a leaf, by path.
      axes: the names of the leading axes of the output, which x shares.
      dy: the gradient of the output, where it is one array.
      slices: for each of those axes the gradients that each index alone gives, by path.
      alternatives: the gradients that single mistakes inside the function would give.
    """

    sizes: dict[str, float] = field(default_factory=dict)
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    axes: tuple[str, ...] = ()
    dy: np.ndarray | None = None
    slices: Callable[[], list[dict[str, np.ndarray]]] = list
    alternatives: Callable[[], list[Alternative]] = list


def diagnose(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause:
    """The simplest mistake that turns the true gradient of a leaf into the one by hand."""
    if not np.isfinite(hand).all():
        bad = np.argwhere(~np.isfinite(hand))
        return Cause(
            "not finite", f"{len(bad)} of {hand.size} entries are not finite, the first at {bad[0].tolist()}"
        )
    if hand.shape != true.shape:
        return _of_shape(hand, true, context)
    searches = (
        lambda: _whole(hand, true, context.sizes),
        lambda: _transposed(hand, true),
        lambda: _blocks(path, hand, true, context),
        lambda: _identity(hand, context.dy),
        lambda: _one_only(path, hand, context),
        lambda: _altered(path, hand, true, context),
        lambda: _region(hand, true, context.sizes),
    )
    return next((cause for search in searches if (cause := search()) is not None), UNKNOWN)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal, for the purpose of naming."""
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= CLOSE * np.abs(b).max(initial=0))


def _of_shape(hand: np.ndarray, true: np.ndarray, context: Context) -> Cause:
    extra = hand.ndim - true.ndim
    if extra > 0 and close(hand.sum(tuple(range(extra))), true):
        names = [context.axes[i] if i < len(context.axes) else f"axis {i}" for i in range(extra)]
        return Cause("missing sum", f"the sum over {' and '.join(names)} is missing")
    if (turned := _transposed(hand, true)) is not None:
        return turned
    return Cause("shape", f"has shape {hand.shape} where {true.shape} is due")


def _whole(hand: np.ndarray, true: np.ndarray, sizes: dict[str, float]) -> Cause | None:
    """The whole leaf is zero, or a multiple of the true one."""
    if not hand.any() and true.any():
        return Cause("zero", "is zero")
    if not true.any():
        return Cause("not zero", "the true gradient is zero")
    factor = float(np.vdot(true, hand) / np.vdot(true, true))
    if factor == 0 or not close(hand, factor * true):
        return None
    if abs(factor + 1) < CLOSE:
        return Cause("sign", "has the wrong sign")
    return Cause("factor", _factor(factor, sizes))


def _factor(factor: float, sizes: dict[str, float]) -> str:
    sign, size = ("the wrong sign and " if factor < 0 else ""), abs(factor)
    found = []
    for name, n in sizes.items():
        forms = {
            f"multiplied by {name}": n,
            f"divided by {name}": 1 / n if n else 0,
            f"n/(n−1), n = {name}": n / (n - 1) if n > 1 else 0,
            f"(n−1)/n, n = {name}": (n - 1) / n if n else 0,
            f"multiplied by the root of {name}": math.sqrt(n),
            f"divided by the root of {name}": 1 / math.sqrt(n) if n else 0,
        }
        # A factor of 1 says nothing, and an axis of length 2 gives 2 in more than one way.
        found += (
            [text for text, value in forms.items() if value != 1 and abs(size / value - 1) < CLOSE]
            if n > 1
            else []
        )
    plain = {2.0: "2", 0.5: "½", 3.0: "3", 1 / 3: "⅓", 4.0: "4", 0.25: "¼", math.pi: "π"}
    number = next((text for value, text in plain.items() if abs(size / value - 1) < CLOSE), f"{size:.6g}")
    names = f" ({' or '.join(found)})" if found else ""
    return f"has {sign}a constant factor of {number}{names}"


def _transposed(hand: np.ndarray, true: np.ndarray) -> Cause | None:
    if true.ndim < 2 or true.ndim > 5 or sorted(hand.shape) != sorted(true.shape):
        return None
    for order in itertools.permutations(range(true.ndim)):
        if order != tuple(range(true.ndim)) and close(hand, true.transpose(order)) and not close(hand, true):
            which = "" if true.ndim == 2 else f" (axes in the order {order})"
            return Cause("transpose", f"is the transpose{which}")
    return None


def _blocks(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause | None:
    """One of the equal blocks of an axis is zero or a multiple, or two are exchanged."""
    for axis, names in _partitions(path, true, context):
        n = len(names)
        parts, right = np.split(hand, n, axis), np.split(true, n, axis)
        wrong = [i for i in range(n) if not _same(parts[i], right[i], true)]
        if len(wrong) == 1 and n > 1:
            (i,) = wrong
            if not parts[i].any():
                return Cause("zero block", f"{names[i]} is zero")
            if (cause := _whole(parts[i], right[i], context.sizes)) is not None:
                return Cause(f"{cause.kind} block", f"{names[i]} {cause.text}")
        if len(wrong) == 2:
            i, j = wrong
            if close(parts[i], right[j]) and close(parts[j], right[i]):
                return Cause("exchanged blocks", f"{names[i]} and {names[j]} are exchanged")
    return None


def _partitions(path: str, true: np.ndarray, context: Context) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The ways in which a leaf falls into equal blocks: as documented first, then along every axis."""
    if documented := context.blocks.get(path):
        n = len(documented)
        axis = next((k for k in range(true.ndim) if true.shape[k] == n and true.ndim > 1), true.ndim - 1)
        if true.shape[axis] % n == 0:
            yield axis, tuple(f"the block of {name}" for name in documented)
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
    """Only one example, or one time step, has been counted; or all but one."""
    for axis, parts in zip(context.axes, context.slices(), strict=False):
        if path not in parts or len(parts[path]) < 2:
            continue
        each = parts[path]
        for i, part in enumerate(each):
            if not part.any():
                continue
            if close(hand, part):
                last = i == len(each) - 1
                which = "the last one" if last else f"number {i}"
                return Cause("missing sum", f"only {which} of {axis} counts: the sum over it is missing")
            if close(hand, each.sum(0) - part):
                return Cause("missing sum", f"number {i} of {axis} is left out of the sum")
    return None


def _altered(path: str, hand: np.ndarray, true: np.ndarray, context: Context) -> Cause | None:
    """The exact gradient of the function with one derivative, or one term, left out."""
    for found in sorted(context.alternatives(), key=lambda found: found.kind):
        gradient = found.gradient.get(path)
        if gradient is not None and close(hand, gradient) and not close(gradient, true):
            return Cause(found.kind, found.text)
    return None


def _region(hand: np.ndarray, true: np.ndarray, sizes: dict[str, float]) -> Cause | None:
    """Wrong in one box only, and there zero or a multiple."""
    wrong = np.abs(hand - true) > CLOSE * np.abs(true).max(initial=0)
    if not wrong.any() or wrong.all():
        return None
    box = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(wrong))
    where = "[" + ", ".join(f"{s.start}:{s.stop}" for s in box) + "]"
    if (cause := _whole(hand[box], true[box], sizes)) is not None:
        return Cause(f"{cause.kind} block", f"the block {where} {cause.text}")
    share = f"{int(wrong.sum())} of {wrong.size} entries"
    return Cause("unknown", f"no simple cause was found; wrong only inside {where} ({share})")
