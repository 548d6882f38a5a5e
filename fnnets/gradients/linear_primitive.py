"""A primitive for a linear map whose transpose is derived by hand.

JAX differentiates in two steps. Forward mode maps tangents to tangents, ẏ = J·ẋ; reverse mode transposes this
map, dx = Jᵀ·dy. A `jax.custom_vjp` defines only the second, and so rules out forward mode. Here a primitive stands
for J in the program of the tangents. It holds both directions, as functions of the residuals r (everything the
derivative depends on):

    linear(r, t)       J(r)·t
    transpose(r, dy)   J(r)ᵀ·dy, derived by hand

For each transformation, JAX calls one function of this primitive:

    evaluation, lowering    linear
    transposition           transpose; reverse mode runs nothing else
    forward mode            d(J(r)·t) = J(r)·dt + (∂J/∂r·dr)·t
    vmap                    both directions under vmap

J is linear in t, so reverse mode never computes J·t: only the transpose remains in the program.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax

from fnnets.core.devices import varying_like
from fnnets.gradients.linear_programs import transposable

try:  # JAX documents that names in these modules may change
    from jax.extend.core import Primitive, jaxpr_as_fun, mapped_aval, unmapped_aval
    from jax.interpreters import ad, batching, mlir

    for _module, _name in (
        (ad, "Zero"), (ad, "instantiate_zeros"), (ad, "is_undefined_primal"), (ad, "primitive_jvps"),
        (ad, "primitive_transposes"), (batching, "fancy_primitive_batchers"), (mlir, "core_call_lowering"),
        (mlir, "lower_fun"), (mlir, "register_lowering"),
    ):  # fmt: skip
        getattr(_module, _name)
    MISSING = ""
except (ImportError, AttributeError) as _error:
    MISSING = str(_error)

Arrays = Sequence[Any]


class Pair(Protocol):
    """A linear map and its transpose, on lists of arrays. Equal pairs have equal hashes, for JAX's caches."""

    def linear(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """J(r)·t."""

    def transpose(self, residuals: Arrays, cotangents: Arrays, types: Arrays) -> Arrays:
        """J(r)ᵀ·dy: one array for each tangent, of its type."""


class _Settings(NamedTuple):
    """The static parameters of the primitive."""

    pair: Pair
    number: int  # of residuals, which come before the tangents
    outs: tuple[Any, ...]  # the types of the map's outputs
    precision: Any  # of matrix products at the call; the functions below run later, when it may differ
    jaxpr: Any  # the traced map, where collectives need the axis names of the call; else None


def bind(pair: Pair, residuals: Arrays, tangents: Arrays, outs: Arrays) -> Arrays:
    """J(r)·t, with a transpose derived by hand.

    Args:
      pair: the map and its transpose.
      residuals: r, arrays of any dtype.
      tangents: t, floating-point arrays.
      outs: arrays with the types of J(r)·t.

    Returns:
      J(r)·t, a list of arrays.
    """
    types = [jax.typeof(out) for out in outs]
    operands = varying_like([*residuals, *tangents], list(outs))
    return _bind(pair, len(residuals), operands, tuple(type_.to_tangent_aval() for type_ in types))


def _bind(pair: Pair, number: int, operands: Arrays, outs: tuple[Any, ...]) -> Arrays:
    jaxpr, precision = None, getattr(jax.config, "jax_default_matmul_precision", None)
    if jax.sharding.get_abstract_mesh().manual_axes:  # lowering runs outside, where the axes have no names
        jaxpr = jax.make_jaxpr(lambda *each: pair.linear(each[:number], each[number:]))(*operands)
    return _primitive.bind(*operands, settings=_Settings(pair, number, outs, precision, jaxpr))


def _as_bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a function of the primitive with the matrix-product precision that was set at `bind`."""

    @functools.wraps(function)
    def run(*args: Any, settings: _Settings) -> Any:
        with jax.default_matmul_precision(settings.precision):
            return function(*args, settings=settings)

    return run


@_as_bound
def _evaluate(*operands: Any, settings: _Settings) -> Arrays:
    return list(settings.pair.linear(operands[: settings.number], operands[settings.number :]))


@_as_bound
def _lower(ctx: Any, *operands: Any, settings: _Settings) -> Any:
    if settings.jaxpr is None:
        return mlir.lower_fun(_evaluate)(ctx, *operands, settings=settings)
    return mlir.core_call_lowering(ctx, *operands, name="linear_map", call_jaxpr=settings.jaxpr)


@_as_bound
def _transpose(cotangents: Arrays, *operands: Any, settings: _Settings) -> Arrays:
    residuals, tangents = operands[: settings.number], operands[settings.number :]
    types = [tangent.aval if ad.is_undefined_primal(tangent) else jax.typeof(tangent) for tangent in tangents]
    cotangents = [ad.instantiate_zeros(each) for each in cotangents]
    gradients = settings.pair.transpose(residuals, cotangents, types)
    needed = [
        varying_like(value, cotangents) if ad.is_undefined_primal(tangent) else None
        for value, tangent in zip(gradients, tangents, strict=True)
    ]
    return [None] * settings.number + needed


@_as_bound
def _jvp(primals: Arrays, directions: Arrays, *, settings: _Settings) -> tuple[Arrays, Arrays]:
    pair, number, outs, *_ = settings
    terms = []
    if any(_moves(each) for each in directions[number:]):  # J(r)·dt
        dt = [ad.instantiate_zeros(each) for each in directions[number:]]
        terms.append(_bind(pair, number, [*primals[:number], *dt], outs))
    moving = [i for i, each in enumerate(directions[:number]) if _moves(each)]
    if moving:  # (∂J/∂r·dr)·t

        def of_residuals(*changed: Any) -> Arrays:
            residuals = list(primals[:number])
            for i, value in zip(moving, changed, strict=True):
                residuals[i] = value
            return pair.linear(residuals, primals[number:])

        terms.append(jax.jvp(of_residuals, [primals[i] for i in moving], [directions[i] for i in moving])[1])
    return _bind(pair, number, primals, outs), [sum(each[1:], each[0]) for each in zip(*terms, strict=True)]


def _moves(direction: Any) -> bool:
    return type(direction) is not ad.Zero and direction.dtype != jax.dtypes.float0


@_as_bound
def _batch(axis: Any, operands: Arrays, axes: Sequence[int | None], *, settings: _Settings) -> Any:
    pair, number, outs, *_ = settings
    if all(each is None for each in axes):
        return _bind(pair, number, operands, outs), [None] * len(outs)
    mapped = _Mapped(pair, tuple(axes[:number]), tuple(axes[number:]), axis.size, axis.name, axis.spmd_name)
    types = tuple(unmapped_aval(axis.size, 0, out, axis.explicit_mesh_axis) for out in outs)
    return _bind(mapped, number, operands, types), [0] * len(outs)


@dataclass(frozen=True)
class _Mapped:
    """A pair under `vmap`; the outputs of the map have the new axis first."""

    pair: Pair
    residual_axes: tuple[int | None, ...]
    tangent_axes: tuple[int | None, ...]
    size: int
    name: Any
    spmd_name: Any

    def linear(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        return self._vmap(self.pair.linear, list(self.tangent_axes), 0)(list(residuals), list(tangents))

    def transpose(self, residuals: Arrays, cotangents: Arrays, types: Arrays) -> Arrays:
        residuals, cotangents, axes = list(residuals), list(cotangents), list(self.tangent_axes)
        own = [
            each if axis is None else mapped_aval(self.size, axis, each)
            for each, axis in zip(types, axes, strict=True)
        ]

        def by_hand(residuals: Arrays, cotangents: Arrays) -> Arrays:
            return list(self.pair.transpose(residuals, cotangents, own))

        if None not in axes:
            return self._vmap(by_hand, 0, axes)(residuals, cotangents)
        program = self._traced(by_hand, residuals, cotangents)

        def pull(residuals: Arrays, cotangents: Arrays) -> Arrays:
            return jaxpr_as_fun(program)(*residuals, *cotangents)

        if transposable(program, [False] * len(residuals) + [True] * len(cotangents)):
            return self._summed(pull, residuals, cotangents, list(types))
        ends = [0 if axis is None else axis for axis in axes]
        each = self._vmap(pull, 0, ends)(residuals, cotangents)
        return [value.sum(0) if axis is None else value for value, axis in zip(each, axes, strict=True)]

    def _traced(self, pull: Callable[..., Arrays], residuals: list, cotangents: list) -> Any:
        """The program of one example's Jᵀ·dy, traced inside vmap, where the axis of the examples has its name.

        The backward runs only here, so its errors are raised here. Everything after works on the program.
        """
        programs = []

        def trace(residuals: Arrays, cotangents: Arrays) -> Arrays:
            programs.append(jax.make_jaxpr(pull)(residuals, cotangents))
            return []

        jax.eval_shape(self._vmap(trace, 0, 0), residuals, cotangents)
        return programs[0]

    def _summed(self, pull: Callable[..., Arrays], residuals: list, cotangents: list, types: list) -> Arrays:
        """The transpose where all examples share a tangent t; its cotangent is Σ_i J_iᵀ·dy_i.

        Each J_iᵀ·dy_i is as large as t, so adding them up would take one copy of t per example. Instead, the
        program of J_iᵀ (derived by hand) is transposed to one for J_i·t, mapped over the examples with the one t,
        and transposed back. The products stay the same, but JAX now contracts over the examples in one product.
        """
        ends = [mapped_aval(self.size, 0, jax.typeof(each)) for each in cotangents]

        def push(residuals: Arrays, tangents: Arrays) -> Arrays:
            return jax.linear_transpose(functools.partial(pull, residuals), ends)(tangents)[0]

        together = functools.partial(self._vmap(push, list(self.tangent_axes), 0), residuals)
        return jax.linear_transpose(together, types)(cotangents)[0]

    def _vmap(self, function: Callable[..., Arrays], in_axes: Any, out_axes: Any) -> Callable[..., Arrays]:
        names = {} if self.name is None else {"axis_name": self.name}
        return jax.vmap(
            lambda residuals, others: list(function(residuals, others)),
            (list(self.residual_axes), in_axes), out_axes,
            axis_size=self.size, spmd_axis_name=self.spmd_name, **names,
        )  # fmt: skip


if not MISSING:
    _primitive = Primitive("linear_map")
    _primitive.multiple_results = True
    _primitive.def_impl(_evaluate)
    _primitive.def_abstract_eval(lambda *operands, settings: settings.outs)
    mlir.register_lowering(_primitive, _lower)
    ad.primitive_transposes[_primitive] = _transpose
    ad.primitive_jvps[_primitive] = _jvp
    batching.fancy_primitive_batchers[_primitive] = _batch
