"""Scans that pair a step's gradient with the values of another step: an index that is off by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Bind = Callable[[Any, list[Any]], list[Any]]

# Primitives that only change the shape.
SHAPE_ONLY = (
    "neg", "copy", "reshape", "transpose", "convert_element_type", "stop_gradient", "squeeze",
    "reduce_precision", "broadcast_in_dim", "rev", "copy_p",
)  # fmt: skip
# Primitives through which a state reaches the products that use it; and these products.
PASSES_ON = (*SHAPE_ONLY, "mul", "concatenate", "slice", "split")
PRODUCTS = ("dot_general", "mul")


class Shift(NamedTuple):
    """Which of three mistakes to make: traced bools."""

    late: jax.Array  # a step's gradient goes with the state after the step, not before it
    before: jax.Array  # it goes with all values of the step before
    after: jax.Array  # it goes with all values of the step after

    def rows(self, rows: Any, reverse: bool) -> Any:
        """The rows of the scan, each with the gradient of another row."""
        if not jnp.issubdtype(jnp.result_type(rows), jnp.floating):
            return rows

        def moved(neighbour: jax.Array) -> jax.Array:
            return jax.lax.stop_gradient(rows - neighbour) + neighbour

        shifted = jnp.where(self.after, moved(_previous(rows, not reverse)), rows)
        return jnp.where(self.before, moved(_previous(rows, reverse)), shifted)

    def partner_rows(self, rows: Any, reverse: bool) -> Any:
        """For each step, the row that the mistake pairs with it in a product."""
        if not jnp.issubdtype(jnp.result_type(rows), jnp.floating):
            return rows
        shifted = jnp.where(self.after, _previous(rows, not reverse), rows)
        return jax.lax.stop_gradient(jnp.where(self.before, _previous(rows, reverse), shifted))

    def shared(self, const: Any, first: jax.Array, last: jax.Array) -> Any:
        """A value that all steps share, without the gradient of the step that has no partner."""
        if not jnp.issubdtype(jnp.result_type(const), jnp.floating):
            return const
        alone = (self.before & first) | (self.after & last)
        return jnp.where(alone, jax.lax.stop_gradient(const), const)

    def states(self, start: Any, after: Any, reverse: bool) -> Any:
        """For each step, the state that the mistake pairs with it; `after` holds the state after every step."""
        if not jnp.issubdtype(after.dtype, jnp.floating):
            return after
        first = jnp.zeros_like(after).at[-1 if reverse else 0].set(start)
        early = _previous(_previous(after, reverse) + first, reverse)
        late = after.at[0 if reverse else -1].mul(jnp.where(self.after, 0.0, 1.0))
        return jax.lax.stop_gradient(jnp.where(self.before, early, late))


class Partners:
    """The values of the wrongly paired step, carried through the equations of one step.

    Args:
      shift: the mistake to make.
      others: by variable that holds a state or a row, the value of the wrongly paired step.
      fixed: the variables that all steps share.
      bind: evaluates an equation.
    """

    def __init__(self, shift: Shift, others: dict[Any, Any], fixed: set[Any], bind: Bind) -> None:
        self.shift, self.others, self.fixed, self.bind = shift, others, fixed, bind

    def inside(self, atoms: list[Any], variables: list[Any]) -> Partners:
        """The partners inside a called function."""
        pairs = [(v, a) for v, a in zip(variables, atoms, strict=True) if not hasattr(a, "val")]
        others = {v: self.others[a] for v, a in pairs if a in self.others}
        return Partners(self.shift, others, {v for v, a in pairs if a in self.fixed}, self.bind)

    def pair(self, equation: Any, operands: list[Any], results: list[Any]) -> list[Any]:
        """The results; a product of a state and a shared value gets the gradient that the mistake gives."""
        atoms, name = equation.invars, equation.primitive.name
        fixed = [hasattr(atom, "val") or atom in self.fixed for atom in atoms]
        if all(fixed):
            self.fixed.update(equation.outvars)
            return results
        states = [k for k, atom in enumerate(atoms) if not fixed[k] and atom in self.others]
        if not states or name not in (*PASSES_ON, *PRODUCTS):
            return results
        theirs = [jax.lax.stop_gradient(value) for value in operands]
        for k in states:
            theirs[k] = self.others[atoms[k]]
        if name in PASSES_ON:
            self.others |= zip(equation.outvars, self.bind(equation, theirs), strict=True)
        k = states[0]
        if name in PRODUCTS and fixed[1 - k] and not hasattr(atoms[1 - k], "val"):
            mine = [jax.lax.stop_gradient(value) for value in operands]
            mine[k], theirs[1 - k] = operands[k], operands[1 - k]
            (y,), (of_state,), (of_fixed,) = results, self.bind(equation, mine), self.bind(equation, theirs)
            wrong = of_state + of_fixed - jax.lax.stop_gradient(of_fixed)
            return [jnp.where(self.shift.late | self.shift.before | self.shift.after, wrong, y)]
        return results


def _previous(rows: jax.Array, reverse: bool) -> jax.Array:
    """For each step the row of the step before it; 0 in the first step."""
    none = jnp.zeros_like(rows[:1])
    return jnp.concatenate([rows[1:], none] if reverse else [none, rows[:-1]])
