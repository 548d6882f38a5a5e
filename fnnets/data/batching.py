"""Batches of indices: the order in which an epoch reads the rows."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.data import sampling

Remainder = Literal["pad", "keep", "drop"]


class Batches(NamedTuple):
    """The rows of one epoch, batch by batch.

    Attributes:
      rows: (steps, size) integers, the indices.
      mask: (steps, size) bools, False where a batch is padded (with row 0); None if all rows count.
      rest: (r,) integers, the last, smaller batch with remainder="keep"; None if there is none.

    Example:
      >>> import fnnets as fn, jax
      >>> plan = fn.data.batches(jax.random.key(0), 7, 3, remainder="keep")
      >>> plan.rows.shape, plan.rest.shape
      ((2, 3), (1,))
    """

    rows: jax.Array
    mask: jax.Array | None = None
    rest: jax.Array | None = None


def batches(
    key: Any, n: int, size: int, *, replace: bool = False, remainder: Remainder = "pad", count: Any = None
) -> Batches:
    """Puts the rows of an epoch into batches: shuffled, or drawn with replacement.

    Args:
      key: a random key, a new one each epoch; None keeps the rows in order.
      n: the number of rows.
      size: the number of rows in a batch, at most n.
      replace: whether each place in a batch draws a row with replacement; otherwise each row comes once.
      remainder: what happens to the n mod size rows left over: "pad" fills the last batch and masks the padding,
        "keep" returns them as the smaller batch `rest`, "drop" leaves them out.
      count: the number of rows that count, if the last of the n rows are padding; may be an array (). The other rows
        come in the same order as without the padding.

    Returns:
      `Batches(rows (steps, size), mask, rest)`. Works under jit with n, size, replace and remainder static.

    Raises:
      ValueError: size is above n, or below 1; remainder is not one of the three; count together with "keep", whose
        shape would depend on it; replace without a key.

    Example:
      >>> import fnnets as fn, jax
      >>> plan = fn.data.batches(jax.random.key(0), 7, 3)
      >>> plan.rows.shape, plan.mask.tolist()
      ((3, 3), [[True, True, True], [True, True, True], [True, False, False]])
    """
    checks.positive("batches", n=n, size=size)
    checks.choice("batches", "remainder", remainder, ("pad", "keep", "drop"))
    if size > n:
        raise ValueError(
            f"batches: size must be at most the number of rows, {n}, got {size}; take smaller batches."
        )
    if count is not None and remainder == "keep":
        raise ValueError('batches: with a count, remainder must be "pad" or "drop", got "keep".')
    if replace and key is None:
        raise ValueError("batches: replace=True needs a key, got key=None.")
    order = _order_of(key, n, replace, count)
    whole = n // size * size
    rest = order[whole:] if remainder == "keep" and n > whole else None
    if remainder == "pad" and n > whole:
        order, whole = jnp.pad(order, (0, whole + size - n)), whole + size
    counts = _counting(n if count is None else count, whole, size, remainder)
    mask = None if count is None and whole <= n else counts.reshape(-1, size)
    return Batches(order[:whole].reshape(-1, size), mask, rest)


def _order_of(key: Any, n: int, replace: bool, count: Any) -> jax.Array:
    if key is None:
        return jnp.arange(n, dtype=jnp.int32)
    if replace:
        return sampling.drawn(key, n, n if count is None else count)
    return sampling.shuffled(key, n, count)


def _counting(count: Any, places: int, size: int, remainder: Remainder) -> jax.Array:
    """Which places hold rows that count; with "drop", only those of whole batches."""
    place = jnp.arange(places)
    return place < (count // size * size if remainder == "drop" else count)
