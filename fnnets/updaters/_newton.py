"""Newton's method: a step to the lowest point of the loss's parabola."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core import checks
from fnnets.core.layer import Params, PyTree, Scalar
from fnnets.gradients import curvature as curvatures
from fnnets.updaters import linear_solvers, transformation

CURVATURES = ("hessian", "ggn", "saddle_free")
SOLVERS = ("dense", "cg")

FACTOR = 4.0  # λ is multiplied or divided by it
FIRST_DAMPING = 1e-3  # the least λ after a raise, in units of |C·g|/|g|
LEAST_DAMPING = 1e-8  # in the same units; a smaller λ becomes 0
MOST_SYSTEMS = 24  # in one step: λ rises by up to 4²³, about 1e14
MOST_HALVINGS = 30  # of the step length, down to 1e-9
DECREASE = 1e-4  # the share of the slope's predicted decrease that a step must reach (Armijo)
ROUNDING = 8.0  # how many roundings the loss may rise by: near an optimum it is flat to the last digit


class NewtonState(NamedTuple):
    """The state of `newton`: a report of its last step."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    damping: jax.Array  # () λ of the last step; before the first step, the λ to try
    step_length: jax.Array  # () t in Δ = t·d; 0 if no step was taken and Δ = 0; NaN before the first step
    ratio: jax.Array  # () the loss's decrease at t = 1 over the parabola's; < 0 if it rose, NaN if unknown
    lowest: jax.Array  # () the lowest curvature seen: negative if the loss is not convex, 0 if it is flat
    systems: jax.Array  # () int32, linear systems solved; more than 1 if λ was raised
    iterations: jax.Array  # () int32, conjugate-gradient iterations in all systems; 0 with solver="dense"
    finite: jax.Array  # () bool, False if the gradient, the curvature or the loss held NaN or infinity


def newton(
    *,
    curvature: str = "hessian",
    solver: str = "dense",
    damping: Scalar = 0.0,
    adapt_damping: bool = True,
    line_search: bool = True,
    tolerance: float = 1e-5,
    max_iterations: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Newton's method with damping and line search.

    Formula: Δ = t·d, (C + λ·I)·d = −g, with C the Hessian H ("hessian"), the generalised Gauss-Newton matrix G
    ("ggn"), or |H| = Q·|w|·Qᵀ of H = Q·w·Qᵀ ("saddle_free").

    Derivation: the parabola E + gᵀd + ½·dᵀCd is lowest where C·d = −g. If C is not positive definite, it has no
    lowest point, and −H⁻¹g leads to saddles as well as minima: its component along an eigenvector is −(qᵀg)/w,
    which climbs for w < 0. With |w| it descends at the same rate. λ > −min w makes C + λI positive definite and
    shortens d: for λ → ∞, d → −g/λ.

    A step in detail:

    1. With adapt_damping, λ follows the last step: a quarter of its λ if ratio > ¾ (the parabola fits), four times
       its λ if ratio < ¼; a negligible λ becomes 0. Otherwise λ is always `damping`.
    2. With adapt_damping, λ rises until C + λI is positive definite as far as the solver sees it, d is finite and
       downhill, and the loss does not rise. Each λ solves the system again.
    3. With line_search, t starts at 1 and halves until the loss falls by 1e-4 of the decrease that the slope predicts.
    4. If there is no such step, or a value is NaN, Δ = 0 and step_length is 0. `finite` tells the two cases apart.

    Args:
      curvature: "hessian", "ggn" or "saddle_free"; for "ggn" pass `product` to update.
      solver: "dense" builds C with one product per parameter and takes its eigenvalues, for up to a few thousand
        parameters; "cg" uses conjugate gradients, which need products only.
      damping: λ at the first step; without adapt_damping, at every step.
      adapt_damping: whether λ follows the loss.
      line_search: whether to halve t until the loss falls; otherwise t is 1.
      tolerance: the residual, relative to |g|, at which conjugate gradients stop.
      max_iterations: the most conjugate-gradient iterations; by default the number of parameters.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `NewtonState`. Its
      `update(grads, state, params, *, value_fn=None, product=None)` takes
      value_fn: `params -> loss`, the function that grads comes from; line_search and adapt_damping need it;
      product: v ↦ C·v, such as `fn.curvature.ggn(…)`; by default `fn.curvature.hvp(value_fn, params)`.
      It computes in at least float32; Δ has the dtype of grads.

    Raises:
      ValueError: an unknown curvature or solver; saddle_free with conjugate gradients, which have no eigenvalues;
        a negative damping; update lacks params, or a value_fn or product that it needs.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> def loss(params):
      ...     return (1 - params[0]) ** 2 + 100 * (params[1] - params[0] ** 2) ** 2
      >>> updater = fn.updaters.newton()
      >>> params = jnp.array([-1.0, 1.0])
      >>> state = updater.init(params)
      >>> for _ in range(20):
      ...     updates, state = updater.update(jax.grad(loss)(params), state, params, value_fn=loss)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params - 1).max() < 1e-4), float(state.step_length)
      (True, 1.0)

    References:
      Nocedal & Wright, Numerical optimization (2006), algorithms 3.1, 3.2 and 7.1; the ratio: Marquardt, An algorithm for
      least-squares estimation of nonlinear parameters, SIAM J. 11 (1963); |H|: Dauphin et al., Identifying and
      attacking the saddle point problem in high-dimensional non-convex optimization, NeurIPS (2014),
      algorithm 1; G: Martens, Deep learning via Hessian-free optimization, ICML (2010), section 4.

    Differences: optax and PyTorch do not have Newton's method; optax.lbfgs takes value_fn in the same way. With
    damping=0, adapt_damping=False and line_search=False, Δ is exactly −H⁻¹g (−H⁺g, with the pseudoinverse, for a
    singular H). Inside `optax.masked` or `optax.multi_transform`, value_fn gets a tree with `optax.MaskedNode()`
    for the leaves left out; it must fill them in.
    """
    checks.choice("newton", "curvature", curvature, CURVATURES)
    checks.choice("newton", "solver", solver, SOLVERS)
    transformation.not_negative("newton", damping=damping)
    if curvature == "saddle_free" and solver == "cg":
        raise ValueError(
            "newton: saddle_free needs eigenvalues, got solver='cg'; use solver='dense' or curvature='ggn'."
        )
    settings = _Settings(adapt_damping, line_search)

    def init(params: Params) -> NewtonState:
        no_attempt = _no_attempt(jax.tree.map(lambda p: jnp.zeros((), _dtype(params)), params))
        attempt = no_attempt._replace(damping=jnp.asarray(damping, _dtype(params)))
        return _state(transformation.start(), attempt, no_attempt.length, jnp.ones((), bool))

    def solver_of(product: Any, g: PyTree, params: Params) -> linear_solvers.Solver:
        if solver == "dense":
            return linear_solvers.dense(product, g, absolute=curvature == "saddle_free")
        limit = max_iterations or sum(leaf.size for leaf in jax.tree.leaves(params))
        return linear_solvers.conjugate_gradients(product, g, tolerance=tolerance, max_iterations=limit)

    def update(
        grads: PyTree,
        state: NewtonState,
        params: Params = None,
        *,
        value_fn: Any = None,
        product: Any = None,
        **extra: Any,
    ) -> tuple[Any, NewtonState]:
        del extra
        _check_arguments(curvature, settings, params, value_fn, product)
        dtype = _dtype(params)
        g = optax.tree.cast(grads, dtype)
        product = product or curvatures.hvp(value_fn, params)
        product = _in_dtype(product, params, dtype)
        landscape = _landscape(value_fn, params, g, dtype)
        scale = _scale(product, g)
        start = _next_damping(state, scale) if adapt_damping else jnp.asarray(damping, dtype)
        sound = jnp.isfinite(scale) & (jnp.isfinite(landscape.value) | (value_fn is None))
        attempt = _search(settings, solver_of(product, g, params), landscape, start, scale, sound)
        length = jnp.where(attempt.accepted, attempt.length, 0)
        delta = jax.tree.map(
            lambda d, grad: jnp.where(length > 0, length * d, 0).astype(grad.dtype), attempt.solution.d, grads
        )
        finite = sound & jnp.isfinite(optax.tree.norm(attempt.solution.d))
        return delta, _state(optax.safe_increment(state.count), attempt, length, finite)

    return optax.GradientTransformationExtraArgs(init, update)


class _Settings(NamedTuple):
    adapt_damping: bool
    line_search: bool


class _Landscape(NamedTuple):
    """The loss around params."""

    g: PyTree
    value: jax.Array  # () E(params); NaN without value_fn
    along: Callable[[Any, jax.Array], jax.Array]  # (d, t) -> E(params + t·d)
    rounding: jax.Array  # () a rise of E up to this is rounding


class _Attempt(NamedTuple):
    """The solution of the system for one λ, and its step."""

    damping: jax.Array
    solution: linear_solvers.Solution
    length: jax.Array
    ratio: jax.Array
    accepted: jax.Array
    systems: jax.Array
    iterations: jax.Array  # in all systems of this step


def _state(count: jax.Array, attempt: _Attempt, length: jax.Array, finite: jax.Array) -> NewtonState:
    """The state after an attempt and a step of this length."""
    return NewtonState(
        count=count,
        damping=attempt.damping,
        step_length=length,
        ratio=attempt.ratio,
        lowest=attempt.solution.lowest,
        systems=attempt.systems,
        iterations=attempt.iterations,
        finite=finite,
    )


def _search(
    settings: _Settings,
    solve: linear_solvers.Solver,
    landscape: _Landscape,
    start: jax.Array,
    scale: jax.Array,
    sound: jax.Array,
) -> _Attempt:
    """Raises λ until an attempt is accepted. Makes one attempt if λ is fixed, none if not sound."""
    most = MOST_SYSTEMS if settings.adapt_damping else 1

    def unfinished(a: _Attempt) -> jax.Array:
        return ~a.accepted & sound & (a.systems < most)

    def attempt(a: _Attempt) -> _Attempt:
        damping = jnp.where(a.systems == 0, start, _raised(a.damping, scale))
        new = _attempt(settings, solve, landscape, damping)
        return new._replace(systems=a.systems + 1, iterations=a.iterations + new.iterations)

    return jax.lax.while_loop(unfinished, attempt, _no_attempt(landscape.g)._replace(damping=start))


def _no_attempt(g: PyTree) -> _Attempt:
    """The attempt before the first: no step, all numbers NaN or 0."""
    dtype = jax.tree.leaves(g)[0].dtype
    nan, zero = functools.partial(jnp.full, (), jnp.nan, dtype), functools.partial(jnp.zeros, (), jnp.int32)
    no, no_step = functools.partial(jnp.zeros, (), bool), jax.tree.map(jnp.zeros_like, g)
    solution = linear_solvers.Solution(no_step, lowest=nan(), definite=no(), iterations=zero())
    return _Attempt(nan(), solution, nan(), nan(), accepted=no(), systems=zero(), iterations=zero())


def _attempt(
    settings: _Settings, solve: linear_solvers.Solver, landscape: _Landscape, damping: jax.Array
) -> _Attempt:
    solution = solve(damping)
    slope = optax.tree.vdot(landscape.g, solution.d)
    square = optax.tree.vdot(solution.d, solution.d)
    usable = jnp.isfinite(square)
    if settings.adapt_damping:
        usable &= solution.definite
    steps = _steps(settings, landscape, solution.d, slope, usable)
    if settings.line_search or settings.adapt_damping:
        usable &= _fell(landscape, steps.value, slope, steps.t if settings.line_search else 0)
    return _Attempt(
        damping=damping,
        solution=solution,
        length=steps.t,
        ratio=_ratio(landscape, steps.full, slope - damping * square),
        accepted=usable,
        systems=jnp.ones((), jnp.int32),
        iterations=solution.iterations,
    )


def _ratio(landscape: _Landscape, full: jax.Array, twice_expected: jax.Array) -> jax.Array:
    """The change of the loss at t = 1 over the parabola's, gᵀd + ½dᵀCd = ½(gᵀd − λdᵀd) for C·d = −g − λd."""
    expected = twice_expected / 2
    ratio = (full - landscape.value) / jnp.where(expected == 0, 1, expected)
    ratio = jnp.where(jnp.isnan(full) & jnp.isfinite(landscape.value), -jnp.inf, ratio)
    return jnp.where(jnp.abs(expected) <= landscape.rounding, 1, ratio)


class _Steps(NamedTuple):
    t: jax.Array
    value: jax.Array  # () the loss at t
    full: jax.Array  # () the loss at t = 1


def _steps(
    settings: _Settings, landscape: _Landscape, d: PyTree, slope: jax.Array, usable: jax.Array
) -> _Steps:
    """The first t of 1, ½, ¼, … at which the loss falls; 1 without line search."""

    def unfinished(s: _Steps) -> jax.Array:
        unknown = s.t > 1
        return unknown | (usable & ~_fell(landscape, s.value, slope, s.t) & (s.t > 0.5**MOST_HALVINGS))

    def halve(s: _Steps) -> _Steps:
        value = landscape.along(d, s.t / 2)
        return _Steps(s.t / 2, value, jnp.where(s.t > 1, value, s.full))

    before = _Steps(jnp.full_like(slope, 2), jnp.full_like(slope, jnp.nan), jnp.full_like(slope, jnp.nan))
    return jax.lax.while_loop(unfinished, halve, before) if settings.line_search else halve(before)


def _fell(landscape: _Landscape, value: jax.Array, slope: jax.Array, t: Any) -> jax.Array:
    """Whether E(params + t·d) is far enough below E(params); False for NaN and uphill."""
    bound = landscape.value + DECREASE * t * slope + landscape.rounding
    return (value <= bound) & (slope <= 0)


def _landscape(value_fn: Any, params: Params, g: PyTree, dtype: Any) -> _Landscape:
    if value_fn is None:
        nan = jnp.full((), jnp.nan, dtype)
        return _Landscape(g, nan, lambda *_: nan, jnp.zeros((), dtype))

    def along(d: PyTree, t: jax.Array) -> jax.Array:
        moved = jax.tree.map(lambda p, d: (p + t * d).astype(p.dtype), params, d)
        return jnp.asarray(value_fn(moved), dtype)

    value = jnp.asarray(value_fn(params), dtype)
    coarsest = max(jnp.finfo(leaf.dtype).eps for leaf in jax.tree.leaves(params))
    return _Landscape(g, value, along, ROUNDING * jnp.asarray(coarsest, dtype) * jnp.abs(value))


def _scale(product: Callable[[Any], Any], g: PyTree) -> jax.Array:
    """|C·g|/|g|, a curvature of the right size; 1 if C·g or g is 0, NaN if either is."""
    norm, product_norm = optax.tree.norm(g), optax.tree.norm(product(g))
    scale = product_norm / jnp.where(norm == 0, 1, norm)
    return jnp.where(scale == 0, 1, scale)


def _raised(damping: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.maximum(FACTOR * damping, FIRST_DAMPING * scale)


def _next_damping(state: NewtonState, scale: jax.Array) -> jax.Array:
    """λ from the last step's λ and ratio; a NaN ratio, as before the first step, keeps λ."""
    lowered = state.damping / FACTOR
    lowered = jnp.where(lowered < LEAST_DAMPING * scale, 0, lowered)
    damping = jnp.where(state.ratio > 0.75, lowered, state.damping)
    bad = (state.ratio < 0.25) | (state.finite & (state.step_length == 0))
    return jnp.where(bad, _raised(state.damping, scale), damping)


def _dtype(params: Params) -> Any:
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(params)))


def _in_dtype(product: Callable[[Any], Any], params: Params, dtype: Any) -> Callable[[Any], Any]:
    """The product for trees of one dtype, from a product in the dtypes of params."""

    def wide(v: PyTree) -> Any:
        narrow = jax.tree.map(lambda v, p: v.astype(p.dtype), v, params)
        return optax.tree.cast(product(narrow), dtype)

    return wide


def _check_arguments(
    curvature: str, settings: _Settings, params: Params, value_fn: Any, product: Any
) -> None:
    if params is None:
        raise ValueError(
            "newton: params are needed, got None; call update(grads, state, params, value_fn=…)."
        )
    if curvature == "ggn" and product is None:
        raise ValueError("newton: curvature='ggn' needs product, got None; pass product=fn.curvature.ggn(…).")
    if value_fn is not None:
        return
    if settings.line_search or settings.adapt_damping:
        raise ValueError(
            "newton: value_fn is needed, got None; pass value_fn=params -> loss, "
            "or set line_search=False and adapt_damping=False."
        )
    if product is None:
        raise ValueError("newton: value_fn or product is needed, got neither; pass value_fn=params -> loss.")
