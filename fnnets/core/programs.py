"""What is read from jax's programs in the same way in every version of jax."""

from __future__ import annotations

from typing import Any


def scan_parts(equation: Any) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are its carry; what it is scanned over follows.

    Versions of jax name these numbers differently. But what is scanned over has one axis more outside than inside.
    """
    body = equation.params["jaxpr"].jaxpr
    scanned, stacked = (
        sum(len(a.aval.shape) < len(b.aval.shape) for a, b in zip(inside, outside, strict=True))
        for inside, outside in ((body.invars, equation.invars), (body.outvars, equation.outvars))
    )
    carry = len(equation.outvars) - stacked
    return len(equation.invars) - carry - scanned, carry
