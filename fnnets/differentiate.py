"""Networks differentiated by their backward: inside jax's own transformations, or with no autodiff at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax

from fnnets import checks
from fnnets.contract import Carry, Layer, Params, Saved, named

_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_equations() -> Iterator[None]:
    """Within, layers made by `by_hand` are their plain equations again: what a comparison holds them against."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def by_hand(layer: Layer) -> Layer:
    """The same layer, whose `apply` and `forward` are differentiated by its own `backward`.

    Formula: y = apply(params, x) as before; jax.vjp of it calls backward(params, saved, dy).

    Args:
      layer: any layer or network; a network is differentiated as a whole.

    Returns:
      A `Layer` for `jax.grad`, `jax.vjp`, `jax.jacrev`, `jax.vmap`, `jax.jit` and `lax.scan`. `saved` and
      the statistics carry no gradient. Forward mode (`jax.jvp`) is not supported by `jax.custom_vjp`.

    Raises:
      ValueError: `backward` gives a gradient whose structure or shapes are not those of params and x.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.by_hand(fn.serial(fn.dense(3), fn.tanh()))
      >>> x = jnp.ones((4, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> grads = jax.grad(lambda params: net.apply(params, x).sum())(params)
      >>> grads[0].w.shape
      (2, 3)
    """
    info = layer.info
    rules = {train: _rules(layer, train) for train in (False, True)}

    def apply(params: Params, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        checks.static_bool(info, train)
        if _plain.get():
            return layer.apply(params, x, key=key, train=train, mask=mask)
        return rules[train].apply(params, x, key, mask)

    def forward(
        params: Params, x: Any, carry: Carry = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Carry, Saved]:
        checks.static_bool(info, train)
        if _plain.get():
            return layer.forward(params, x, carry, key=key, train=train, mask=mask)
        y, carry, saved = rules[train].forward(params, x, carry, key, mask)
        return y, carry, jax.lax.stop_gradient(saved)

    return named(layer._replace(apply=apply, forward=forward))


class _Rules(NamedTuple):
    apply: Callable[..., Any]
    forward: Callable[..., Any]


def _rules(layer: Layer, train: bool) -> _Rules:
    """The two functions with their derivative: `train` decides what is computed, so each mode has its own."""
    info = layer.info

    def backward(params: Params, x: Any, saved: Saved, dy: Any, dcarry: Carry) -> tuple[Any, Any, Carry]:
        dparams, dx, dcarry = layer.backward(params, saved, dy, dcarry)
        checks.gradient(info, "dparams", dparams, params)
        checks.gradient(info, "dx", dx, x)
        return dparams, dx, dcarry

    @jax.custom_vjp
    def apply(params: Params, x: Any, key: Any, mask: Any) -> Any:
        return layer.apply(params, x, key=key, train=train, mask=mask)

    def apply_forward(params: Params, x: Any, key: Any, mask: Any) -> Any:
        y, _, saved = layer.forward(params, x, key=key, train=train, mask=mask)
        return y, (params, x, saved)

    def apply_backward(kept: Any, dy: Any) -> Any:
        params, x, saved = kept
        dparams, dx, _ = backward(params, x, saved, dy, None)
        return dparams, dx, None, None

    @jax.custom_vjp
    def forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        return layer.forward(params, x, carry, key=key, train=train, mask=mask)

    def forward_forward(params: Params, x: Any, carry: Carry, key: Any, mask: Any) -> Any:
        y, new_carry, saved = layer.forward(params, x, carry, key=key, train=train, mask=mask)
        return (y, new_carry, saved), (params, x, saved, carry)

    def forward_backward(kept: Any, cotangents: Any) -> Any:
        params, x, saved, carry = kept
        dy, dcarry, _ = cotangents
        dparams, dx, dcarry = backward(params, x, saved, dy, dcarry)
        return dparams, dx, None if carry is None else dcarry, None, None

    apply.defvjp(apply_forward, apply_backward)
    forward.defvjp(forward_forward, forward_backward)
    return _Rules(apply, forward)


class Aux(NamedTuple):
    """What `value_and_grad_by_hand` gives beside the value."""

    y: Any  # the network's output
    carry: Carry  # what a sequence hands on; None without recurrent layers
    saved: Saved  # for `update_stats`


def value_and_grad_by_hand(layer: Layer, loss: Any) -> Callable[..., tuple[tuple[jax.Array, Aux], Params]]:
    """The value of a loss and its gradient, with no autodiff at all.

    Formula: E = loss(apply(params, x), target).

    Derivation: the chain rule, in three calls: y and saved from `layer.forward`; dy = ∂E/∂y from
    `loss.backward`; dparams = ∂E/∂params from `layer.backward(params, saved, dy)`.

    Args:
      layer: any layer or network.
      loss: a `Loss`, such as `fn.losses.mse()`.

    Returns:
      A function `(params, x, target, *, carry=None, key=None, train=False, mask=None, loss_mask=None)
      -> ((value, Aux(y, carry, saved)), dparams)`: the shape of `jax.value_and_grad(…, has_aux=True)`.
      mask goes to the network, loss_mask (the shape of y without its last axis) to the loss.

    Raises:
      ValueError: shapes of y and target differ; what the layers raise.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.dense(1), jnp.ones((4, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> (value, aux), grads = fn.value_and_grad_by_hand(net, fn.losses.mse())(params, x, jnp.zeros((4, 1)))
      >>> grads.w.shape, aux.y.shape
      ((2, 1), (4, 1))
    """

    def value_and_grad(
        params: Params,
        x: Any,
        target: Any,
        *,
        carry: Carry = None,
        key: Any = None,
        train: bool = False,
        mask: Any = None,
        loss_mask: Any = None,
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        y, carry, saved = layer.forward(params, x, carry, key=key, train=train, mask=mask)
        value, kept = loss.forward(y, target, loss_mask)
        dparams, _, _ = layer.backward(params, saved, loss.backward(kept))
        return (value, Aux(y, carry, saved)), dparams

    return value_and_grad
