"""Solves (C + λI)·d = −g for Newton's step: with all of C at once, or by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from fnnets.core.layer import PyTree


class Solution(NamedTuple):
    """A step, and what the solver learned about C."""

    d: PyTree  # the shapes of params
    lowest: jax.Array  # () the lowest curvature of C: its smallest eigenvalue, or the least pᵀCp/pᵀp seen
    definite: jax.Array  # () bool, whether C + λI is positive definite as far as the solver saw it
    iterations: jax.Array  # () int32, of conjugate gradients


Solver = Callable[[jax.Array], Solution]  # λ -> Solution


def dense(product: Callable[[Any], Any], g: PyTree, *, absolute: bool) -> Solver:
    """Solves by the eigenvalues w and eigenvectors Q of C, computed once for all λ.

    Formula: d = −Q·(Qᵀ·g ⊘ (w + λ)), with |w| for w if `absolute`. d is 0 along eigenvectors where w + λ is 0.
    """
    flat, unravel = ravel_pytree(g)
    columns = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size, dtype=flat.dtype))
    w, q = jnp.linalg.eigh((columns + columns.T) / 2, symmetrize_input=False)
    along = q.T @ flat
    curvatures = jnp.abs(w) if absolute else w
    threshold = flat.size * jnp.finfo(flat.dtype).eps * jnp.abs(w).max()

    def solve(damping: jax.Array) -> Solution:
        shifted = curvatures + damping
        flat_direction = jnp.abs(shifted) <= threshold
        d = -q @ jnp.where(flat_direction, 0, along / jnp.where(flat_direction, 1, shifted))
        return Solution(unravel(d), w[0], shifted.min() > threshold, jnp.zeros((), jnp.int32))

    return solve


def conjugate_gradients(
    product: Callable[[Any], Any], g: PyTree, *, tolerance: float, max_iterations: int
) -> Solver:
    """Solves by conjugate gradients; stops at a residual of tolerance·|g| or at negative curvature.

    Formula: from d = 0, r = p = −g: α = rᵀr/pᵀAp, d ← d + αp, r' = r − αAp, p ← r' + (r'ᵀr'/rᵀr)·p, A = C + λI.

    """
    # `jax.scipy.sparse.linalg.cg` reports neither its iterations nor the sign of pᵀAp. On the Hessian (λ = 0) of
    # a tanh network of 500 parameters at 20 random starts, all indefinite, it always used up its 500 iterations
    # and once ended on a step uphill. This function stops at the negative curvature, after 3 or 4 iterations.
    b = optax.tree.scale(-1, g)
    square = optax.tree.vdot(b, b)

    def solve(damping: jax.Array) -> Solution:
        def unfinished(s: _Conjugate) -> jax.Array:
            return s.definite & (s.rr > tolerance**2 * square) & (s.iterations < max_iterations)

        def step(s: _Conjugate) -> _Conjugate:
            ap = optax.tree.add_scale(product(s.p), damping, s.p)
            pap, pp = optax.tree.vdot(s.p, ap), optax.tree.vdot(s.p, s.p)
            definite = pap > 0
            alpha = jnp.where(definite, s.rr / jnp.where(definite, pap, 1), 0)
            r = optax.tree.add_scale(s.r, -alpha, ap)
            rr = optax.tree.vdot(r, r)
            p = optax.tree.add_scale(r, rr / s.rr, s.p)
            lowest = jnp.minimum(s.lowest, pap / pp - damping)
            return _Conjugate(
                optax.tree.add_scale(s.d, alpha, s.p), r, p, rr, lowest, definite, s.iterations + 1
            )

        zero = jnp.zeros((), jnp.int32)
        start = _Conjugate(
            optax.tree.zeros_like(b), b, b, square, jnp.full_like(square, jnp.inf), zero == 0, zero
        )
        end = jax.lax.while_loop(unfinished, step, start)
        stuck = ~end.definite & (end.iterations == 1)  # at the first direction: use steepest descent
        d = jax.tree.map(lambda d, b: jnp.where(stuck, b, d), end.d, b)
        return Solution(d, end.lowest, end.definite, end.iterations)

    return solve


class _Conjugate(NamedTuple):
    """The state of the iteration, in the letters of `conjugate_gradients`; rr is rᵀr."""

    d: PyTree
    r: PyTree
    p: PyTree
    rr: jax.Array
    lowest: jax.Array
    definite: jax.Array
    iterations: jax.Array
