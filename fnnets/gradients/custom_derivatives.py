"""Installs a layer's backward as its JAX derivative: in every mode, or in reverse mode only."""

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

# JAX's caches take this context into account: a function traced outside it is traced again inside.
_plain = jax.make_user_context(False)


@contextmanager
def plain_equations() -> Iterator[None]:
    """Inside this context, layers made by `by_hand` run their plain equations, without the custom derivative."""
    with _plain(True):
        yield


def are_plain() -> bool:
    """Whether `plain_equations` is active."""
    return bool(_plain.value)


class Installed(NamedTuple):
    """A layer's apply and forward, with the derivative installed."""

    apply: Callable[..., Any]  # (params, x, key, mask) -> y
    forward: Callable[..., Any]  # (params, x, carry, key, mask) -> (y, carry, saved)


def install(layer: Layer, train: bool) -> Installed:
    """Installs the derivative for every mode, or for reverse mode only where this JAX lacks what forward mode needs."""
    if linear_primitive.MISSING:
        _warn_of_missing_names()
        return reverse_only(layer, train)
    return every_mode(layer, train)


@functools.cache
def _warn_of_missing_names() -> None:
    """Warns once that forward mode is not available."""
    warnings.warn(
        f"fnnets: jax {jax.__version__} lacks a name that by_hand's forward mode needs ({linear_primitive.MISSING}); "
        "by_hand supports reverse mode only, as jax.custom_vjp does. Use a jax version that fnnets is tested with.",
        stacklevel=4,
    )


def every_mode(layer: Layer, train: bool) -> Installed:
    """Installs both modes: forward mode by autodiff of the plain equations, reverse mode by hand.

    Formula: with J = ∂(y, carry)/∂(params, x, carry), ẏ = J·ẋ in forward mode and dx = Jᵀ·dy in reverse mode.

    Derivation: a `jax.custom_jvp` computes y and saved with `layer.forward` and binds J to a `linear_map`. The
    residuals of this map are everything J depends on: params, x, carry, key, mask, and saved. J·ẋ is the derivative
    of the plain equations in the direction ẋ; Jᵀ·dy is `layer.backward`. Second derivatives need the derivative
    of J. Autodiff computes it, through `forward` and `backward`.
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
        residuals = _Residuals(params, x, None, key, mask, saved)
        dy, _ = _push(layer, plain, residuals, (dparams, dx, None), (y, None))
        return y, dy

    def forward_jvp(primals: Any, tangents: Any) -> Any:
        (params, x, carry, key, mask), (dparams, dx, dcarry, *_) = primals, tangents
        y, last, saved = plain_forward(layer, params, x, carry, key, train, mask)
        residuals = _Residuals(params, x, carry, key, mask, saved)
        dy, dlast = _push(layer, stepwise, residuals, (dparams, dx, dcarry), (y, last))
        return (y, last, saved), (dy, dlast, jax.tree.map(_zero, saved))

    apply.defjvp(apply_jvp, symbolic_zeros=True)
    forward.defjvp(forward_jvp, symbolic_zeros=True)
    return Installed(apply, forward)


class _Residuals(NamedTuple):
    """Everything the derivative depends on."""

    params: Params
    x: Any
    carry: Carry
    key: Any
    mask: Any
    saved: Saved


def _push(layer: Layer, run: Callable[..., Any], residuals: _Residuals, tangents: Any, outputs: Any) -> Any:
    """The tangents of (y, carry) from those of (params, x, carry)."""
    tree: Any
    leaves, (out, tree) = jax.tree.leaves(tangents), jax.tree.flatten(outputs)
    moving = tuple(i for i, each in enumerate(leaves) if _moves(each))
    if not moving:
        return jax.tree.map(_zero, outputs)
    residual_tree: Any
    arrays, residual_tree = jax.tree.flatten(residuals)
    floats = tuple(i for i, each in enumerate(out) if jnp.issubdtype(jnp.result_type(each), jnp.inexact))
    pair = _Pair(layer, run, residual_tree, moving, tree, floats)
    out_tangents = linear_primitive.bind(pair, arrays, [leaves[i] for i in moving], [out[i] for i in floats])
    return tree.unflatten(_replaced([_zero(each) for each in out], floats, out_tangents))


def _moves(tangent: Any) -> bool:
    """Whether a tangent may differ from zero."""
    return not isinstance(tangent, SymbolicZero) and jnp.result_type(tangent) != jax.dtypes.float0


def _zero(value: Any) -> Any:
    return zero_from_primal(value, symbolic_zeros=True)


def _replaced(values: Arrays, places: tuple[int, ...], others: Arrays) -> list[Any]:
    """The values, with others at the given places."""
    values = list(values)
    for place, value in zip(places, others, strict=True):
        values[place] = value
    return values


@dataclass(frozen=True, repr=False)
class _Pair:
    """A layer's derivative and its transpose, on lists of arrays."""

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
        *inputs, key, mask, _ = self.residual_tree.unflatten(residuals)
        tree: Any
        leaves, tree = jax.tree.flatten(tuple(inputs))

        def outputs(*moved: Any) -> Arrays:
            with plain_equations():
                out = jax.tree.leaves(
                    self.run(*tree.unflatten(_replaced(leaves, self.moving, moved)), key, mask)
                )
            return [out[i] for i in self.floats]

        return jax.jvp(outputs, [leaves[i] for i in self.moving], list(tangents))[1]

    def transpose(self, residuals: Arrays, cotangents: Arrays, types: Arrays) -> Arrays:
        """Jᵀ·dy, by hand."""
        point = self.residual_tree.unflatten(residuals)
        dy, dcarry = self.out_tree.unflatten(
            _replaced([None] * self.out_tree.num_leaves, self.floats, cotangents)
        )
        values = (point.params, point.x, point.carry)
        gradients = checked_backward(self.layer, *values, point.saved, dy, dcarry)
        by_path = dict(jax.tree_util.tree_leaves_with_path(gradients))
        leaves = jax.tree_util.tree_leaves_with_path(values)
        moving = [by_path[leaves[i][0]] for i in self.moving]
        return [gradient.astype(type_.dtype) for gradient, type_ in zip(moving, types, strict=True)]


def plain_forward(
    layer: Layer, params: Params, x: Any, carry: Carry, key: Any, train: bool, mask: Any
) -> tuple[Any, Carry, Saved]:
    """Runs `layer.forward` so that saved can be differentiated, even where the layer contains `by_hand` layers.

    Second derivatives differentiate the backward, and so pass through saved. `by_hand` stops the gradient there.
    """
    with plain_equations():
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)


def checked_backward(
    layer: Layer, params: Params, x: Any, carry: Carry, saved: Saved, dy: Any, dcarry: Carry
) -> tuple[Any, Any, Carry]:
    """Runs the backward by hand and checks that its gradients match params, x and carry in structure and shape."""
    dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
    dcarry = None if carry is None else dcarry
    for name, gradient, value in (("dparams", dparams, params), ("dx", dx, x), ("dcarry", dcarry, carry)):
        checks.gradient(layer.info, name, gradient, value)
    return dparams, dx, dcarry


def reverse_only(layer: Layer, train: bool) -> Installed:
    """Installs reverse mode only, with `jax.custom_vjp`; tests compare the cost of `every_mode` with it."""

    @jax.custom_vjp
    def apply(params: Params, x: Any, key: Any, mask: Any) -> Any:
        return layer.apply(params, x, key=key, train=train, mask=mask)

    def apply_forward(params: Params, x: Any, key: Any, mask: Any) -> Any:
        y, _, saved = plain_forward(layer, params, x, None, key, train, mask)
        return y, (params, x, saved)

    def apply_backward(residuals: Any, dy: Any) -> Any:
        params, x, saved = residuals
        dparams, dx, _ = checked_backward(layer, params, x, None, saved, dy, None)
        return dparams, dx, None, None

    @jax.custom_vjp
    def forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)

    def forward_forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        y, last, saved = plain_forward(layer, params, x, carry, key, train, mask)
        return (y, last, saved), (params, x, carry, saved)

    def forward_backward(residuals: Any, cotangents: Any) -> Any:
        dy, dcarry, _ = cotangents
        params, x, carry, saved = residuals
        return *checked_backward(layer, params, x, carry, saved, dy, dcarry), None, None

    apply.defvjp(apply_forward, apply_backward)
    forward.defvjp(forward_forward, forward_backward)
    return Installed(apply, forward)
