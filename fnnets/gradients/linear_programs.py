"""Decides whether JAX can transpose a program: whether each equation is linear in the inputs in question.

JAX cannot be asked: `jax.linear_transpose` raises one of many errors when it meets an equation that it cannot
transpose. So this module reads the program. An operand moves if it depends on the inputs in question. Each equation
with moving operands must be known to be linear in all of them together. An unknown equation counts as not linear:
this costs memory, but never makes a gradient wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from fnnets.core.programs import scan_parts

Moving = Sequence[bool]  # for each operand or output, whether it depends on the inputs in question


def transposable(program: Any, moving: Moving) -> bool:
    """Whether JAX can transpose a program with respect to the marked inputs.

    Args:
      program: the result of `jax.make_jaxpr`.
      moving: one bool for each input; True marks it.

    Returns:
      True if every equation is known to be linear in its moving operands.

    Example:
      >>> import jax
      >>> product = jax.make_jaxpr(lambda a, b: a * b)(1.0, 2.0)
      >>> transposable(product, [True, False]), transposable(product, [True, True])
      (True, False)
    """
    return _through(program.jaxpr, moving) is not None


def _through(jaxpr: Any, moving: Moving) -> list[bool] | None:
    """Which outputs of a program move; None where an equation is not known to be linear."""
    moved = {variable for variable, moves in zip(jaxpr.invars, moving, strict=True) if moves}

    def marks(atoms: Any) -> list[bool]:
        return [not hasattr(atom, "val") and atom in moved for atom in atoms]  # only a literal has a `val`

    for equation in jaxpr.eqns:
        operands = marks(equation.invars)
        if not any(operands):
            continue
        outputs = _outputs(equation, operands)
        if outputs is None:
            return None
        for variable, moves in zip(equation.outvars, outputs, strict=True):
            if moves and not jnp.issubdtype(variable.aval.dtype, jnp.inexact):
                return None  # rounded to integers
            if moves:
                moved.add(variable)
    return marks(jaxpr.outvars)


def _outputs(equation: Any, moving: Moving) -> list[bool] | None:
    """Which outputs of an equation move; None where it is not known to be linear."""
    name, parameters = equation.primitive.name, equation.params
    if name in ("jit", "pjit"):
        return _through(parameters["jaxpr"].jaxpr, moving)
    if name == "scan":
        return _through_scan(equation, moving)
    if name == "optimization_barrier":
        return list(moving)
    if name == "linear_map":
        linear = not any(moving[: parameters["settings"].number])  # in its tangents, not in its residuals
    else:
        linear = name in LINEAR and LINEAR[name](moving)
    return [True] * len(equation.outvars) if linear else None


def _through_scan(equation: Any, moving: Moving) -> list[bool] | None:
    """Like `_outputs`, for a scan. A carry that moves after one step moves before the next, so repeat until stable."""
    first, count = scan_parts(equation)
    moving = list(moving)
    while (outputs := _through(equation.params["jaxpr"].jaxpr, moving)) is not None:
        carry = [a or b for a, b in zip(moving[first : first + count], outputs, strict=False)]
        if carry == moving[first : first + count]:
            return [*carry, *outputs[count:]]
        moving[first : first + count] = carry
    return None


def _in_all(moving: Moving) -> bool:
    """Linear in all operands together."""
    return any(moving)


def _in_one(moving: Moving) -> bool:
    """Linear in any one operand."""
    return sum(moving) == 1


def _but(*places: int) -> Callable[[Moving], bool]:
    """Linear in all operands together, except those at these places."""
    return lambda moving: not any(moving[place] for place in places)


def _only(*places: int) -> Callable[[Moving], bool]:
    """Linear in the operands at these places together, and in no others."""
    return lambda moving: not any(moves for place, moves in enumerate(moving) if place not in places)


# The primitives that backward passes consist of, and the operands in which each is linear.
LINEAR: dict[str, Callable[[Moving], bool]] = {
    **dict.fromkeys(
        (
            "add", "add_any", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "cumsum",
            "expand_dims", "neg", "pad", "psum", "reduce_sum", "reduce_window_sum", "reshape", "rev", "slice",
            "split", "squeeze", "stack", "sub", "transpose",
        ),
        _in_all,
    ),
    **dict.fromkeys(("conv_general_dilated", "dot_general", "mul"), _in_one),
    **dict.fromkeys(("div", "dynamic_slice", "gather"), _only(0)),
    "dynamic_update_slice": _only(0, 1),
    "scatter-add": _only(0, 2),
    "select_n": _but(0),
}  # fmt: skip
