"""Central differences, and whether each of them can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

STEPS = (1e-4, 1e-5)  # the second is for entries with a kink or a strong curve within the first
SCALES = (1.0, -1.0, 0.5, -0.5, 0.25, -0.25)
EVERY = 64  # leaves up to this size are differenced at every entry, larger ones at a sample of this size

# (point, fixed, dy, entries, steps) -> Σ dy·(y(entry + step) − y) for each
Deltas = Callable[[Any, Any, Any, Any, Any], Any]


class Difference(NamedTuple):
    """The differences of one leaf."""

    entries: np.ndarray  # (N,) flat indices into the leaf
    slope: np.ndarray  # (N,)
    smooth: np.ndarray  # (N,) bools: False where the function has a kink within the step


def deltas(plain: Callable[[Any, Any], Any]) -> Deltas:
    """The change of E = Σ dy·y as each entry of the point moves, in one compiled loop.

    It sums dy·(y(moved) − y): the difference is taken first, which keeps digits that E would lose.
    """

    @jax.jit
    def run(point: Any, fixed: Any, dy: Any, entries: jax.Array, steps: jax.Array) -> jax.Array:
        vector, unravel = ravel_pytree(point)
        y = plain(point, fixed)

        def one(move: Any) -> jax.Array:
            entry, step = move
            moved = plain(unravel(vector.at[entry].add(step)), fixed)
            parts = jax.tree.map(lambda dy, y, before: jnp.vdot(dy, y - before), dy, moved, y)
            return sum(jax.tree.leaves(parts), jnp.zeros(()))

        return jax.lax.map(one, (entries, steps))

    return run


def deltas_in_python(f: Callable[[Any, Any], Any]) -> Deltas:
    """`deltas` for a function that jax cannot trace, one call after another."""

    def run(point: Any, fixed: Any, dy: Any, entries: Any, steps: Any) -> np.ndarray:
        vector, unravel = ravel_pytree(point)
        y = np.asarray(f(point, fixed), np.float64)
        changes = []
        for entry, step in zip(np.asarray(entries), np.asarray(steps), strict=True):
            moved = np.array(vector)
            moved[entry] += step
            changes.append(np.vdot(dy, np.asarray(f(unravel(jnp.asarray(moved)), fixed), np.float64) - y))
        return np.array(changes)

    return run


def central(
    change: Deltas, point: Any, fixed: Any, dy: Any, skip: set[int], tolerances: list[float]
) -> list[Difference]:
    """Central differences of E = Σ dy·y for the leaves of the point, in their order.

    Formula: with D(h) = (E(p+h) − E(p−h))/2h, the slope is (4·D(h/2) − D(h))/3, whose error is O(h⁴).
    For a smooth function E(p+h) − 2E(p) + E(p−h) = E''h² + O(h⁴). A kink within the step breaks this;
    comparing the sum at h, h/2 and h/4 finds it.

    Args:
      change: from `deltas`.
      point, fixed, dy: its arguments.
      skip: the numbers of the leaves to leave out; their differences are empty.
      tolerances: for each leaf the absolute error of the slope above which a kink matters.
    """
    leaves = jax.tree.leaves(point)
    if not leaves:
        return []
    starts = np.cumsum([0] + [leaf.size for leaf in leaves])
    chosen = [np.zeros(0, int) if i in skip else _entries(leaf.size, seed=i) for i, leaf in enumerate(leaves)]
    entries = np.concatenate([start + own for start, own in zip(starts, chosen, strict=False)] + [[]]).astype(
        int
    )
    vector = np.concatenate([np.ravel(leaf) for leaf in leaves] + [np.zeros(0)])
    tolerance = np.repeat(tolerances, [len(own) for own in chosen])
    slope, smooth = np.zeros(len(entries)), np.zeros(len(entries), bool)
    for step in STEPS:
        todo = np.flatnonzero(~smooth)
        if len(todo) == 0:
            break
        h = step * np.maximum(1.0, np.abs(vector[entries[todo]]))
        moves = (np.repeat(entries[todo], len(SCALES)), np.outer(h, SCALES).ravel())
        # The second pass has few entries: it gets a loop of its own shape.
        e = np.asarray(change(point, fixed, dy, *_padded(moves, first=step == STEPS[0])))[: len(moves[0])]
        slope[todo], smooth[todo] = _slope(e.reshape(-1, len(SCALES)), h, tolerance[todo])
    ends = np.cumsum([len(own) for own in chosen])[:-1]
    parts = zip(chosen, np.split(slope, ends), np.split(smooth, ends), strict=True)
    return [Difference(*part) for part in parts]


def _slope(e: np.ndarray, h: np.ndarray, tolerance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole, half, quarter = (
        ((e[:, i] - e[:, i + 1]) / (2 * h * s)) for i, s in ((0, 1.0), (2, 0.5), (4, 0.25))
    )
    bends = [(e[:, i] + e[:, i + 1]) / h for i in (0, 2, 4)]  # E''h·{1, ¼, 1/16} on a curve
    kink = np.maximum(np.abs(bends[0] - 4 * bends[1]), np.abs(4 * bends[1] - 16 * bends[2]))
    with np.errstate(invalid="ignore"):
        smooth = (kink < tolerance / 2) & (np.abs(half - quarter) < tolerance / 2)
    return (4 * half - whole) / 3, smooth


def _entries(size: int, seed: int) -> np.ndarray:
    if size <= EVERY:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, EVERY, replace=False))


def _padded(moves: tuple[np.ndarray, np.ndarray], *, first: bool) -> tuple[np.ndarray, np.ndarray]:
    if first:
        return moves
    size = 1 << max(0, (len(moves[0]) - 1).bit_length())  # few shapes, so few compilations
    missing = size - len(moves[0])
    return np.pad(moves[0], (0, missing)), np.pad(moves[1], (0, missing))
