"""A linear map whose transpose is given: what autodiff takes for the derivative of a function derived by hand.

jax differentiates in two steps. Forward mode maps tangents to tangents, ẏ = J·ẋ; reverse mode is that map
transposed, dx = Jᵀ·dy. A `jax.custom_vjp` gives the second alone, and closes forward mode. Here a primitive
stands for J inside the tangents' program, and holds both directions as functions of the residuals r (all that
the derivative depends on):

    linear(r, t)       J(r)·t
    transpose(r, dy)   J(r)ᵀ·dy, derived by hand

Every transformation of jax is a rule of this primitive:

    evaluation, lowering    linear
    transposition           transpose: what reverse mode runs, and all that it runs
    forward mode            the product rule: d(J(r)·t) = J(r)·dt + (∂J/∂r·dr)·t
    vmap                    both directions under vmap

J is linear in t, so that reverse mode never computes it: no more than its transpose is left in the program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax

try:  # where jax documents that its parts may move
    from jax.extend.core import Primitive, mapped_aval, unmapped_aval
    from jax.interpreters import ad, batching, mlir

    for _module, _name in (
        (ad, "Zero"), (ad, "instantiate_zeros"), (ad, "is_undefined_primal"), (ad, "primitive_jvps"),
        (ad, "primitive_transposes"), (batching, "fancy_primitive_batchers"), (mlir, "core_call_lowering"),
        (mlir, "lower_fun"), (mlir, "register_lowering"),
    ):  # fmt: skip
        getattr(_module, _name)
    jax.typeof(0.0).mat.varying  # noqa: B018
    MISSING = ""
except (ImportError, AttributeError) as _error:
    MISSING = str(_error)

Arrays = Sequence[Any]


class Pair(Protocol):
    """A linear map and its transpose, on lists of arrays; equal pairs have equal hashes, for jax's caches."""

    def linear(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """J(r)·t."""

    def transpose(self, residuals: Arrays, cotangents: Arrays, types: Arrays) -> Arrays:
        """J(r)ᵀ·dy, one for each tangent, of the types of these."""


class _Settings(NamedTuple):
    """What the primitive knows before it runs."""

    pair: Pair
    number: int  # of residuals, which stand before the tangents
    outs: tuple[Any, ...]  # the types of what the map gives
    jaxpr: Any  # the map as traced, where collectives need the named axes of now; None elsewhere


def bind(pair: Pair, residuals: Arrays, tangents: Arrays, outs: Arrays) -> Arrays:
    """J(r)·t, to be transposed by hand.

    Args:
      pair: both directions.
      residuals: r, arrays of any dtype.
      tangents: t, floating-point arrays.
      outs: arrays of the types of J(r)·t.
    """
    types = [jax.typeof(out) for out in outs]
    varying = frozenset().union(*(type_.mat.varying for type_ in types))
    given = [_varying_over(value, varying) for value in (*residuals, *tangents)]
    return _bind(pair, len(residuals), given, tuple(type_.to_tangent_aval() for type_ in types))


def _varying_over(value: Any, axes: frozenset[Any]) -> Any:
    """A value that is the same on all devices of a `shard_map` as one of each: transposed, that is the sum."""
    missing = tuple(axes - jax.typeof(value).mat.varying)
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def _bind(pair: Pair, number: int, given: Arrays, outs: tuple[Any, ...]) -> Arrays:
    jaxpr = None
    if jax.sharding.get_abstract_mesh().manual_axes:  # lowering happens outside, where its axes have no names
        jaxpr = jax.make_jaxpr(lambda *given: pair.linear(given[:number], given[number:]))(*given)
    return _primitive.bind(*given, settings=_Settings(pair, number, outs, jaxpr))


def _evaluate(*given: Any, settings: _Settings) -> Arrays:
    return list(settings.pair.linear(given[: settings.number], given[settings.number :]))


def _lower(ctx: Any, *given: Any, settings: _Settings) -> Any:
    if settings.jaxpr is None:
        return mlir.lower_fun(_evaluate)(ctx, *given, settings=settings)
    return mlir.core_call_lowering(ctx, *given, name="linear_map", call_jaxpr=settings.jaxpr)


def _transpose(cotangents: Arrays, *given: Any, settings: _Settings) -> Arrays:
    residuals, tangents = given[: settings.number], given[settings.number :]
    types = [tangent.aval if ad.is_undefined_primal(tangent) else jax.typeof(tangent) for tangent in tangents]
    found = settings.pair.transpose(residuals, [ad.instantiate_zeros(each) for each in cotangents], types)
    wanted = [
        _varying_over(value, tangent.aval.mat.varying) if ad.is_undefined_primal(tangent) else None
        for value, tangent in zip(found, tangents, strict=True)
    ]
    return [None] * settings.number + wanted


def _jvp(primals: Arrays, directions: Arrays, *, settings: _Settings) -> tuple[Arrays, Arrays]:
    pair, number, outs, _ = settings
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


def _batch(axis: Any, given: Arrays, axes: Sequence[int | None], *, settings: _Settings) -> Any:
    pair, number, outs, _ = settings
    if all(each is None for each in axes):
        return _bind(pair, number, given, outs), [None] * len(outs)
    mapped = _Mapped(pair, tuple(axes[:number]), tuple(axes[number:]), axis.size, axis.name, axis.spmd_name)
    types = tuple(unmapped_aval(axis.size, 0, out, axis.explicit_mesh_axis) for out in outs)
    return _bind(mapped, number, given, types), [0] * len(outs)


@dataclass(frozen=True)
class _Mapped:
    """A pair under `vmap`: what the map gives has the new axis first."""

    pair: Pair
    residual_axes: tuple[int | None, ...]
    tangent_axes: tuple[int | None, ...]
    size: int
    name: Any
    spmd_name: Any

    def linear(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        return self._vmap(self.pair.linear, list(self.tangent_axes), 0)(list(residuals), list(tangents))

    def transpose(self, residuals: Arrays, cotangents: Arrays, types: Arrays) -> Arrays:
        residuals, axes = list(residuals), list(self.tangent_axes)
        own = [each if axis is None else mapped_aval(self.size, axis, each) for each, axis in zip(types, axes, strict=True)]
        if None not in axes:
            return self._vmap(lambda r, dy: self.pair.transpose(r, dy, own), 0, axes)(residuals, list(cotangents))
        ends = [mapped_aval(self.size, 0, jax.typeof(each)) for each in cotangents]

        def push(residuals: Arrays, tangents: Arrays) -> Arrays:
            pull = lambda dy: list(self.pair.transpose(residuals, dy, own))
            return jax.linear_transpose(pull, ends)(tangents)[0]

        together = self._vmap(push, axes, 0)
        return jax.linear_transpose(lambda tangents: together(residuals, tangents), list(types))(list(cotangents))[0]

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
    _primitive.def_abstract_eval(lambda *given, settings: settings.outs)
    mlir.register_lowering(_primitive, _lower)
    ad.primitive_transposes[_primitive] = _transpose
    ad.primitive_jvps[_primitive] = _jvp
    batching.fancy_primitive_batchers[_primitive] = _batch
