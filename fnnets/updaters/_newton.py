"""Newton's method: a step to the minimum of the quadratic model of the loss."""

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

FACTOR = 4.0  # by which λ is raised and lowered
FIRST_DAMPING = 1e-3  # the least λ that is raised to, in units of |C·g|/|g|
LEAST_DAMPING = 1e-8  # in the same units, below which λ is 0
MOST_SYSTEMS = 24  # tried in one step: λ rises by up to 4²³, about 1e14
MOST_HALVINGS = 30  # of the step length, which then is 1e-9
DECREASE = 1e-4  # the share of the decrease that the slope promises, which a step must reach (Armijo)
ROUNDING = 8.0  # roundings of the loss, by which it may rise: near an optimum it is flat to the last digit


class NewtonState(NamedTuple):
    """The state of `newton`, which describes the last step."""

    count: jax.Array  # type: ignore[assignment]  # () int32, the steps taken
    damping: jax.Array  # () λ of the last step; before the first, that which it will try
    step_length: jax.Array  # () t in Δ = t·d; 0 where no step was taken and Δ is 0, NaN before the first
    ratio: jax.Array  # () decrease of the loss at t = 1 over the model's; below 0 it rose; NaN where unknown
    lowest: jax.Array  # () the lowest curvature met: below 0 the loss is not convex here, 0 it is flat
    systems: jax.Array  # () int32, linear systems solved: more than 1 where λ had to be raised
    iterations: jax.Array  # () int32, conjugate-gradient iterations in all of them; 0 with solver="dense"
    finite: jax.Array  # () bool, False where the gradient, the curvature or the loss held NaN or infinity


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
    """Newton's method, damped.

    Formula: Δ = t·d, (C + λ·I)·d = −g, with C the Hessian H ("hessian"), the generalised Gauss-Newton matrix G
    ("ggn"), or |H| = Q·|w|·Qᵀ of H = Q·w·Qᵀ ("saddle_free").

    Derivation: the model E + gᵀd + ½·dᵀCd is lowest where C·d = −g. If C is not positive definite, it has
    no minimum, and −H⁻¹g may lead to a saddle: its component along an eigenvector is −(qᵀg)/w, which climbs
    for w < 0. With |w| it descends by the same amount.
    λ > −min w makes C + λI positive definite, and d shorter: for λ → ∞, d → −g/λ.

    A step:

    1. λ: with adapt_damping, from that of the last step: a quarter of it if ratio > ¾ (the model was right),
       four times if ratio < ¼, 0 once it is negligible. Otherwise always `damping`.
    2. With adapt_damping, λ is raised, and the system solved again, until C + λI is positive definite
       as far as the solver can tell, d is finite and downhill, and the loss does not rise.
    3. With line_search, t is halved from 1 until the loss falls by 1e-4 of what the slope predicts.
    4. If there is no such step, or anything is NaN, Δ = 0. The state says so: step_length is 0, and finite is False
       for NaN.

    Args:
      curvature: "hessian", "ggn" or "saddle_free"; for "ggn" pass `product` to update.
      solver: "dense" builds C by one product a parameter and takes its eigenvalues, for up to some thousand
        parameters; "cg" solves by conjugate gradients on products alone.
      damping: λ at the first step; at every step without adapt_damping.
      adapt_damping: whether λ adapts to the loss.
      line_search: whether t does.
      tolerance: conjugate gradients stop at a residual of tolerance·|g|.
      max_iterations: the limit of their iterations; by default the number of parameters.

    Returns:
      An `optax.GradientTransformationExtraArgs` with state `NewtonState`. Its
      `update(grads, state, params, *, value_fn=None, product=None)` takes
      value_fn: `params -> loss`, whose gradient grads is; line_search and adapt_damping need it;
      product: v ↦ C·v, such as `fn.curvature.ggn(…)`; by default `fn.curvature.hvp(value_fn, params)`.
      Params below float32 are computed in float32; Δ has the dtype of grads.

    Raises:
      ValueError: an unknown curvature or solver; saddle_free with conjugate gradients, which compute no eigenvalues;
        a negative damping; update is not given params, or one of value_fn and product that it needs.

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

    Differences: optax and PyTorch have no Newton; optax.lbfgs takes value_fn in the same way. With damping=0,
    adapt_damping=False and line_search=False this is −H⁻¹g and nothing else (−H⁺g, the pseudoinverse, for a
    singular H). Inside `optax.masked` or `optax.multi_transform` value_fn gets the same tree as the updater,
    with `optax.MaskedNode()` for the leaves that are left out; it must fill them in.
    """
    checks.choice("newton", "curvature", curvature, CURVATURES)
    checks.choice("newton", "solver", solver, SOLVERS)
    transformation.not_negative("newton", damping=damping)
    if curvature == "saddle_free" and solver == "cg":
        raise ValueError(
            "newton: saddle_free needs eigenvalues, got solver='cg'; take solver='dense', or curvature='ggn'."
        )
    settings = _Settings(adapt_damping, line_search)

    def init(params: Params) -> NewtonState:
        nothing = _nothing(jax.tree.map(lambda p: jnp.zeros((), _dtype(params)), params))
        attempt = nothing._replace(damping=jnp.asarray(damping, _dtype(params)))
        return _state(transformation.start(), attempt, nothing.length, jnp.ones((), bool))

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
        _check_given(curvature, settings, params, value_fn, product)
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
    value: jax.Array  # () E(params); NaN where value_fn is not given
    along: Callable[[Any, jax.Array], jax.Array]  # (d, t) -> E(params + t·d)
    rounding: jax.Array  # () by how much E may rise without a meaning


class _Attempt(NamedTuple):
    """A system solved for one λ, and the step that came of it."""

    damping: jax.Array
    solution: linear_solvers.Solution
    length: jax.Array
    ratio: jax.Array
    accepted: jax.Array
    systems: jax.Array
    iterations: jax.Array  # in all systems of this step


def _state(count: jax.Array, attempt: _Attempt, length: jax.Array, finite: jax.Array) -> NewtonState:
    """The state after an attempt, of which a step of that length was taken."""
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
    """Attempts with λ raised until one is accepted; a single one if λ is fixed; none if a value is not finite."""
    most = MOST_SYSTEMS if settings.adapt_damping else 1

    def going(a: _Attempt) -> jax.Array:
        return ~a.accepted & sound & (a.systems < most)

    def attempt(a: _Attempt) -> _Attempt:
        damping = jnp.where(a.systems == 0, start, _raised(a.damping, scale))
        new = _attempt(settings, solve, landscape, damping)
        return new._replace(systems=a.systems + 1, iterations=a.iterations + new.iterations)

    return jax.lax.while_loop(going, attempt, _nothing(landscape.g)._replace(damping=start))


def _nothing(g: PyTree) -> _Attempt:
    """The values before the first attempt."""
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
    """The first t of 1, ½, ¼, … at which the loss has fallen; 1 without line search."""

    def going(s: _Steps) -> jax.Array:
        unknown = s.t > 1
        return unknown | (usable & ~_fell(landscape, s.value, slope, s.t) & (s.t > 0.5**MOST_HALVINGS))

    def halve(s: _Steps) -> _Steps:
        value = landscape.along(d, s.t / 2)
        return _Steps(s.t / 2, value, jnp.where(s.t > 1, value, s.full))

    before = _Steps(jnp.full_like(slope, 2), jnp.full_like(slope, jnp.nan), jnp.full_like(slope, jnp.nan))
    return jax.lax.while_loop(going, halve, before) if settings.line_search else halve(before)


def _fell(landscape: _Landscape, value: jax.Array, slope: jax.Array, t: Any) -> jax.Array:
    """Whether E(params + t·d) has fallen enough below E(params); False for NaN and uphill."""
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
    """|C·g|/|g|, a curvature of the right size; 1 where C·g or g is 0, NaN where either is."""
    norm, bent = optax.tree.norm(g), optax.tree.norm(product(g))
    scale = bent / jnp.where(norm == 0, 1, norm)
    return jnp.where(scale == 0, 1, scale)


def _raised(damping: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.maximum(FACTOR * damping, FIRST_DAMPING * scale)


def _next_damping(state: NewtonState, scale: jax.Array) -> jax.Array:
    """λ from that of the last step and its ratio; a NaN ratio, as before the first step, changes nothing."""
    lowered = state.damping / FACTOR
    lowered = jnp.where(lowered < LEAST_DAMPING * scale, 0, lowered)
    damping = jnp.where(state.ratio > 0.75, lowered, state.damping)
    bad = (state.ratio < 0.25) | (state.finite & (state.step_length == 0))
    return jnp.where(bad, _raised(state.damping, scale), damping)


def _dtype(params: Params) -> Any:
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(params)))


def _in_dtype(product: Callable[[Any], Any], params: Params, dtype: Any) -> Callable[[Any], Any]:
    """The product on trees of one dtype, for one that works in the dtypes of params."""

    def wide(v: PyTree) -> Any:
        narrow = jax.tree.map(lambda v, p: v.astype(p.dtype), v, params)
        return optax.tree.cast(product(narrow), dtype)

    return wide


def _check_given(curvature: str, settings: _Settings, params: Params, value_fn: Any, product: Any) -> None:
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
