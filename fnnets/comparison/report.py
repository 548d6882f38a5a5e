"""The result of a comparison: a row for each leaf, as a readable table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from fnnets.core.text_table import format_table

AUTODIFF = 1e-11  # bound on the error against autodiff, relative to the gradient's scale
DIFFERENCES = 1e-7  # bound on the error against central differences, likewise


@dataclass(frozen=True)
class Row:
    """One leaf of the gradient.

    Attributes:
      path: the place of the leaf, such as `params[0].w`.
      layer: the layer to which it belongs, if any.
      shape: the shape of the gradient by hand; None if it is missing.
      error: the largest absolute error against autodiff, or against differences if jax cannot trace the function.
      relative: this error divided by the gradient's scale.
      cosine: the cosine of the angle between the two gradients; 1 if both are 0.
      worst: the index of the largest error.
      difference: the largest error of autodiff or hand against central differences, divided by the scale.
      differenced: the number of entries with a central difference.
      set_aside: the number of these that lie at a kink and do not count.
      verdict: "ok", "constant" (moving statistics, correctly 0), "unchecked", or the kind of failure.
      cause: the kind of mistake, if it is recognised; "" if the leaf is right.
      diagnosis: the mistake in words; "" if the leaf is right.
    """

    path: str
    layer: str
    shape: tuple[int, ...] | None
    error: float
    relative: float
    cosine: float
    worst: tuple[int, ...]
    difference: float
    differenced: int
    set_aside: int
    verdict: str
    cause: str = ""
    diagnosis: str = ""

    @property
    def ok(self) -> bool:
        """Whether the leaf is right."""
        return self.verdict in ("ok", "constant")

    def measured(self, **numbers: Any) -> Row:
        """The row with its numbers."""
        return dataclasses.replace(self, **numbers)

    def found(self, verdict: str, cause: str, diagnosis: str) -> Row:
        """The row with its verdict."""
        return dataclasses.replace(self, verdict=verdict, cause=cause, diagnosis=diagnosis)


@dataclass(frozen=True)
class Report:
    """The result of `compare`.

    Attributes:
      name: the layer or function that was compared.
      rows: a `Row` for each leaf.
      value_error: the largest difference between the outputs of `forward` and of the plain equation,
        over the outputs' scale.
      notes: remarks on the whole comparison, or the error that `backward` raised.
      failed: whether `backward` raised, or returned a leaf that the function does not have.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.dense(3), jax.random.normal(jax.random.key(1), (4, 2))
      >>> report = fn.compare(net, net.init(jax.random.key(0), x), x)
      >>> report.ok, [row.path for row in report.rows]
      (True, ['params.w', 'params.b', 'x'])
    """

    name: str
    rows: tuple[Row, ...]
    value_error: float = 0.0
    notes: tuple[str, ...] = ()
    failed: bool = False

    @property
    def ok(self) -> bool:
        """Whether every leaf agrees, and `forward` agrees with the plain equation."""
        return not self.failed and self.value_error <= AUTODIFF and all(row.ok for row in self.rows)

    @property
    def worst_autodiff(self) -> float:
        """The largest relative error against autodiff."""
        return _largest(row.relative for row in self.rows)

    @property
    def worst_difference(self) -> float:
        """The largest relative error against central differences."""
        return _largest(row.difference for row in self.rows)

    def to_json(self) -> str:
        """The report as a JSON object; a number that is not finite is null."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain Python values, ready for JSON."""
        rows = [dataclasses.asdict(row) | {"ok": row.ok} for row in self.rows]
        whole = {"name": self.name, "ok": self.ok, "value_error": self.value_error}
        plain: dict[str, Any] = _finite(whole | {"notes": list(self.notes), "rows": rows})
        return plain

    def __str__(self) -> str:
        lines = [f"{self.name}: {'all gradients agree' if self.ok else 'MISMATCH'}"]
        if self.rows:
            lines += ["", *_table(self.rows)]
        for row in self.rows:
            if not row.ok:
                where = f" at {list(row.worst)}" if row.worst else ""
                size = f": largest error {row.error:.3g}{where}" if math.isfinite(row.error) else ""
                lines += ["", f"{row.path}{size}", f"  -> {row.diagnosis}"]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def _table(rows: tuple[Row, ...]) -> list[str]:
    head = ("leaf", "layer", "shape", "vs autodiff", "vs differences", "cosine", "verdict")
    layers = any(row.layer for row in rows)
    body: list[tuple[str, ...]] = [head]
    for row in rows:
        shape = "" if row.shape is None else "×".join(map(str, row.shape)) or "scalar"
        used, size = row.differenced - row.set_aside, math.prod(row.shape or ())
        checked = f"{row.difference:.1e}" if used else "-"
        sample = f" ({row.differenced} of {size})" if 0 < row.differenced < size else ""
        aside = sample + (f" ({row.set_aside} at a kink)" if row.set_aside else "")
        agreed = f"{row.relative:.1e}"
        body.append((row.path, row.layer, shape, agreed, checked + aside, f"{row.cosine:.6f}", row.verdict))
    body = [cells if layers else (cells[0], *cells[2:]) for cells in body]
    return format_table(body)


def _largest(values: Any) -> float:
    return max(values, key=lambda value: math.inf if math.isnan(value) else value, default=0.0)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
