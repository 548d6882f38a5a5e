"""Gradients that a scan pairs with the values of another step: the mistake of an index that is off by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Bind = Callable[[Any, list[Any]], list[Any]]

# What changes the shape alone.
SHAPE_ONLY = (
    "neg", "copy", "reshape", "transpose", "convert_element_type", "stop_gradient", "squeeze",
    "reduce_precision", "broadcast_in_dim", "rev", "copy_p",
)  # fmt: skip
# What hands a state on to the products that see it; and these products.
PASSES_ON = (*SHAPE_ONLY, "mul", "concatenate", "slice", "split")
PRODUCTS = ("dot_general", "mul")


class Shift(NamedTuple):
    """Which of three mistakes is made: bools, traced."""

    late: jax.Array  # a step's gradient goes with the state that the step gave, not with the one it was given
    before: jax.Array  # it goes with all values of the step before
    after: jax.Array  # it goes with all values of the step after

    def rows(self, rows: Any, reverse: bool) -> Any:
        """What is scanned over, each row with the gradient of another."""
        if not jnp.issubdtype(jnp.result_type(rows), jnp.floating):
            return rows

        def moved(neighbour: jax.Array) -> jax.Array:
            return jax.lax.stop_gradient(rows - neighbour) + neighbour

        shifted = jnp.where(self.after, moved(_previous(rows, not reverse)), rows)
        return jnp.where(self.before, moved(_previous(rows, reverse)), shifted)

    def seen(self, rows: Any, reverse: bool) -> Any:
        """The row that goes with every step in a product."""
        if not jnp.issubdtype(jnp.result_type(rows), jnp.floating):
            return rows
        shifted = jnp.where(self.after, _previous(rows, not reverse), rows)
        return jax.lax.stop_gradient(jnp.where(self.before, _previous(rows, reverse), shifted))

    def shared(self, const: Any, first: jax.Array, last: jax.Array) -> Any:
        """What all steps share, without the gradient of the step that has no partner."""
        if not jnp.issubdtype(jnp.result_type(const), jnp.floating):
            return const
        alone = (self.before & first) | (self.after & last)
        return jnp.where(alone, jax.lax.stop_gradient(const), const)

    def states(self, start: Any, given: Any, reverse: bool) -> Any:
        """The state that goes with every step: of `given`, the states that the steps gave."""
        if not jnp.issubdtype(given.dtype, jnp.floating):
            return given
        outset = jnp.zeros_like(given).at[-1 if reverse else 0].set(start)
        early = _previous(_previous(given, reverse) + outset, reverse)
        late = given.at[0 if reverse else -1].mul(jnp.where(self.after, 0.0, 1.0))
        return jax.lax.stop_gradient(jnp.where(self.before, early, late))


class Partners:
    """The states of other steps, on their way through the equations of one step.

    Args:
      shift: which mistake is made.
      others: for variables that hold a state or a row, what the step that is taken for theirs has there.
      fixed: the variables that all steps share.
      bind: evaluates an equation.
    """

    def __init__(self, shift: Shift, others: dict[Any, Any], fixed: set[Any], bind: Bind) -> None:
        self.shift, self.others, self.fixed, self.bind = shift, others, fixed, bind

    def inside(self, atoms: list[Any], variables: list[Any]) -> Partners:
        """The same within a function that is called."""
        pairs = [(v, a) for v, a in zip(variables, atoms, strict=True) if not hasattr(a, "val")]
        others = {v: self.others[a] for v, a in pairs if a in self.others}
        return Partners(self.shift, others, {v for v, a in pairs if a in self.fixed}, self.bind)

    def pair(self, equation: Any, given: list[Any], results: list[Any]) -> list[Any]:
        """The results, in a product of a state and what is fixed with the gradient that the mistake gives."""
        atoms, name = equation.invars, equation.primitive.name
        fixed = [hasattr(atom, "val") or atom in self.fixed for atom in atoms]
        if all(fixed):
            self.fixed.update(equation.outvars)
            return results
        held = [k for k, atom in enumerate(atoms) if not fixed[k] and atom in self.others]
        if not held or name not in (*PASSES_ON, *PRODUCTS):
            return results
        theirs = [jax.lax.stop_gradient(value) for value in given]
        for k in held:
            theirs[k] = self.others[atoms[k]]
        if name in PASSES_ON:
            self.others |= zip(equation.outvars, self.bind(equation, theirs), strict=True)
        k = held[0]
        if name in PRODUCTS and fixed[1 - k] and not hasattr(atoms[1 - k], "val"):
            mine = [jax.lax.stop_gradient(value) for value in given]
            mine[k], theirs[1 - k] = given[k], given[1 - k]
            (y,), (of_state,), (of_fixed,) = results, self.bind(equation, mine), self.bind(equation, theirs)
            wrong = of_state + of_fixed - jax.lax.stop_gradient(of_fixed)
            return [jnp.where(self.shift.late | self.shift.before | self.shift.after, wrong, y)]
        return results


def _previous(rows: jax.Array, reverse: bool) -> jax.Array:
    """Each step's row replaced by the one before it; 0 in the first step."""
    none = jnp.zeros_like(rows[:1])
    return jnp.concatenate([rows[1:], none] if reverse else [none, rows[:-1]])
