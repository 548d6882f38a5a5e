"""Installs a layer's backward as its JAX derivative: in every mode, or in reverse mode alone."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from fnnets.core import checks
from fnnets.core.layer import Carry, Layer, Params, Saved
from fnnets.gradients import linear_primitive
from fnnets.gradients.linear_primitive import Arrays

# Part of the context on which jax's caches depend: a function traced outside is traced again inside.
_plain = jax.make_user_context(False)


@contextmanager
def plain_equations() -> Iterator[None]:
    """Inside, layers made by `by_hand` are their plain equations again, for a comparison with autodiff."""
    with _plain(True):
        yield


def are_plain() -> bool:
    """Whether the caller is inside `plain_equations`."""
    return bool(_plain.value)


class Installed(NamedTuple):
    """A layer's two functions with their derivatives installed."""

    apply: Callable[..., Any]  # (params, x, key, mask) -> y
    forward: Callable[..., Any]  # (params, x, carry, key, mask) -> (y, carry, saved)


def install(layer: Layer, train: bool) -> Installed:
    """Installs the derivative in every mode, or in reverse mode alone if this jax lacks what the others need."""
    if linear_primitive.MISSING:
        _warn_what_is_missing()
        return reverse_only(layer, train)
    return every_mode(layer, train)


@functools.cache
def _warn_what_is_missing() -> None:
    """Warns, once a process."""
    warnings.warn(
        f"fnnets: jax {jax.__version__} has moved what the forward mode of by_hand needs ({linear_primitive.MISSING}); "
        "by_hand has reverse mode alone, like a jax.custom_vjp.",
        stacklevel=4,
    )


def every_mode(layer: Layer, train: bool) -> Installed:
    """Installs every mode: autodiff's tangents in forward mode, the backward by hand in reverse mode.

    Formula: with J = ∂(y, carry)/∂(params, x, carry), ẏ = J·ẋ in forward mode and dx = Jᵀ·dy in reverse mode.

    Derivation: a `jax.custom_jvp` computes y and saved by `layer.forward`, and binds J to a `linear_map` whose
    residuals are all that J depends on: params, x, carry, key, mask, and saved, which the backward reads. J·ẋ is the derivative of the plain equations in the direction ẋ; Jᵀ·dy is `layer.backward`.
    Derivatives of J itself, which second derivatives need, are autodiff's: through `forward` for saved, and
    through `backward`.
    """

    def plain(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        del carry
        return layer.apply(params, x, key=key, train=train, mask=mask), None

    def stepwise(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)[:2]

    @jax.custom_jvp
    def apply(params: Params, x: Any, key: Any, mask: Any) -> Any:
        return layer.apply(params, x, key=key, train=train, mask=mask)

    @jax.custom_jvp
    def forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)

    def apply_jvp(primals: Any, tangents: Any) -> Any:
        (params, x, key, mask), (dparams, dx, *_) = primals, tangents
        y, _, saved = plain_forward(layer, params, x, None, key, train, mask)
        kept = _Kept(params, x, None, key, mask, saved)
        dy, _ = _push(layer, plain, kept, (dparams, dx, None), (y, None))
        return y, dy

    def forward_jvp(primals: Any, tangents: Any) -> Any:
        (params, x, carry, key, mask), (dparams, dx, dcarry, *_) = primals, tangents
        y, last, saved = plain_forward(layer, params, x, carry, key, train, mask)
        kept = _Kept(params, x, carry, key, mask, saved)
        dy, dlast = _push(layer, stepwise, kept, (dparams, dx, dcarry), (y, last))
        return (y, last, saved), (dy, dlast, jax.tree.map(_zero, saved))

    apply.defjvp(apply_jvp, symbolic_zeros=True)
    forward.defjvp(forward_jvp, symbolic_zeros=True)
    return Installed(apply, forward)


class _Kept(NamedTuple):
    """Everything that the derivative depends on."""

    params: Params
    x: Any
    carry: Carry
    key: Any
    mask: Any
    saved: Saved


def _push(layer: Layer, run: Callable[..., Any], kept: _Kept, tangents: Any, ends: Any) -> Any:
    """The tangents of (y, carry) from those of (params, x, carry)."""
    tree: Any
    given, (out, tree) = jax.tree.leaves(tangents), jax.tree.flatten(ends)
    moving = tuple(i for i, each in enumerate(given) if _moves(each))
    if not moving:
        return jax.tree.map(_zero, ends)
    residual_tree: Any
    residuals, residual_tree = jax.tree.flatten(kept)
    floats = tuple(i for i, each in enumerate(out) if jnp.issubdtype(jnp.result_type(each), jnp.inexact))
    pair = _Pair(layer, run, residual_tree, moving, tree, floats)
    found = linear_primitive.bind(pair, residuals, [given[i] for i in moving], [out[i] for i in floats])
    return tree.unflatten(_replaced([_zero(each) for each in out], floats, found))


def _moves(tangent: Any) -> bool:
    return not isinstance(tangent, SymbolicZero) and jnp.result_type(tangent) != jax.dtypes.float0


def _zero(value: Any) -> Any:
    return zero_from_primal(value, symbolic_zeros=True)


def _replaced(values: Arrays, places: tuple[int, ...], by: Arrays) -> list[Any]:
    """The values, replaced at some places."""
    values = list(values)
    for place, value in zip(places, by, strict=True):
        values[place] = value
    return values


@dataclass(frozen=True, repr=False)
class _Pair:
    """The derivative of a layer and its transpose, on lists of arrays."""

    layer: Layer
    run: Callable[..., Any]  # (params, x, carry, key, mask) -> (y, carry), the plain equations
    residual_tree: Any
    moving: tuple[int, ...]  # the leaves of (params, x, carry) that have a tangent
    out_tree: Any  # of (y, carry)
    floats: tuple[int, ...]  # its leaves that have a tangent

    def __repr__(self) -> str:
        return repr(self.layer)

    def linear(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """J·ẋ, by autodiff of the plain equations."""
        *given, key, mask, _ = self.residual_tree.unflatten(residuals)
        tree: Any
        leaves, tree = jax.tree.flatten(tuple(given))

        def outputs(*moved: Any) -> Arrays:
            with plain_equations():
                ends = self.run(*tree.unflatten(_replaced(leaves, self.moving, moved)), key, mask)
            out = jax.tree.leaves(ends)
            return [out[i] for i in self.floats]

        return jax.jvp(outputs, [leaves[i] for i in self.moving], list(tangents))[1]

    def transpose(self, residuals: Arrays, cotangents: Arrays, types: Arrays) -> Arrays:
        """Jᵀ·dy, by hand."""
        kept = self.residual_tree.unflatten(residuals)
        dy, dcarry = self.out_tree.unflatten(
            _replaced([None] * self.out_tree.num_leaves, self.floats, cotangents)
        )
        values = (kept.params, kept.x, kept.carry)
        gradients = checked_backward(self.layer, *values, kept.saved, dy, dcarry)
        found = dict(jax.tree_util.tree_leaves_with_path(gradients))
        leaves = jax.tree_util.tree_leaves_with_path(values)
        asked = [found[leaves[i][0]] for i in self.moving]
        return [gradient.astype(type_.dtype) for gradient, type_ in zip(asked, types, strict=True)]


def plain_forward(
    layer: Layer, params: Params, x: Any, carry: Carry, key: Any, train: bool, mask: Any
) -> tuple[Any, Carry, Saved]:
    """`layer.forward` with a derivative of saved, which `by_hand` of a layer inside would stop.

    The derivative of a backward, and so every second derivative, passes through saved.
    """
    with plain_equations():
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)


def checked_backward(
    layer: Layer, params: Params, x: Any, carry: Carry, saved: Saved, dy: Any, dcarry: Carry
) -> tuple[Any, Any, Carry]:
    """The backward by hand; refuses gradients without the structure and shapes of their values."""
    dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
    dcarry = None if carry is None else dcarry
    for name, gradient, value in (("dparams", dparams, params), ("dx", dx, x), ("dcarry", dcarry, carry)):
        checks.gradient(layer.info, name, gradient, value)
    return dparams, dx, dcarry


def reverse_only(layer: Layer, train: bool) -> Installed:
    """Installs reverse mode alone, by `jax.custom_vjp`; `every_mode` must be as fast."""

    @jax.custom_vjp
    def apply(params: Params, x: Any, key: Any, mask: Any) -> Any:
        return layer.apply(params, x, key=key, train=train, mask=mask)

    def apply_forward(params: Params, x: Any, key: Any, mask: Any) -> Any:
        y, _, saved = plain_forward(layer, params, x, None, key, train, mask)
        return y, (params, x, saved)

    def apply_backward(kept: Any, dy: Any) -> Any:
        params, x, saved = kept
        dparams, dx, _ = checked_backward(layer, params, x, None, saved, dy, None)
        return dparams, dx, None, None

    @jax.custom_vjp
    def forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)

    def forward_forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        y, last, saved = plain_forward(layer, params, x, carry, key, train, mask)
        return (y, last, saved), (params, x, carry, saved)

    def forward_backward(kept: Any, cotangents: Any) -> Any:
        dy, dcarry, _ = cotangents
        params, x, carry, saved = kept
        return *checked_backward(layer, params, x, carry, saved, dy, dcarry), None, None

    apply.defvjp(apply_forward, apply_backward)
    forward.defvjp(forward_forward, forward_backward)
    return Installed(apply, forward)
