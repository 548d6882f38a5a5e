"""Differentiates networks by their own backward: inside JAX's transformations, or without autodiff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from fnnets.core import checks
from fnnets.core.layer import Carry, Key, Layer, Mask, Params, PyTree, Saved, named
from fnnets.core.parameters import with_fixed_stats
from fnnets.gradients.custom_derivatives import are_plain, install, plain_forward
from fnnets.losses.loss import Loss


def by_hand(layer: Layer) -> Layer:
    """The same layer, with its own `backward` as the derivative of `apply` and `forward`.

    Formula: y = apply(params, x) as before. With J = ∂y/∂(params, x), reverse mode (`jax.vjp`) computes Jᵀ·dy with
    backward(params, saved, dy). Forward mode (`jax.jvp`) computes J·ẋ by autodiff of the plain equations.

    Args:
      layer: any layer or network; a network is differentiated as a whole.

    Returns:
      A `Layer` that works in every JAX transformation, in any order: `grad`, `vjp`, `jvp`, `linearize`, `jacfwd`,
      `jacrev`, `hessian`, `vmap`, `jit`, `scan`, `checkpoint`, `shard_map`, `eval_shape`. No gradient flows through
      `saved` and the statistics.

      - Reverse mode runs the backward once and compiles to the same program as `jax.custom_vjp`.
      - Second derivatives differentiate `forward` and `backward` by autodiff. At kinks (relu at 0) and where
        maxima tie, they equal those of the plain equations.
      - Under `vmap`, params that all examples share get their gradient summed inside the backward.
      - A function from `linearize` evaluates the plain equations at each call.

    Raises:
      ValueError: `backward` returns gradients that do not match params, x and the carry in structure or shape.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.by_hand(fn.serial(fn.dense(3), fn.tanh()))
      >>> x = jnp.ones((4, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> grads = jax.grad(lambda params: net.apply(params, x).sum())(params)
      >>> grads[0].w.shape
      (2, 3)
      >>> y, dy = jax.jvp(lambda x: net.apply(params, x), (x,), (jnp.ones_like(x),))
      >>> dy.shape
      (4, 3)

    Differences: a function with a `jax.custom_vjp` refuses `jax.jvp`, `jacfwd` and `hessian`.
    """
    info = layer.info
    installed = install(layer, False), install(layer, True)

    def apply(
        params: Params, x: PyTree, *, key: Key | None = None, train: bool = False, mask: Mask = None
    ) -> Any:
        checks.static_bool(info, train)
        if are_plain():
            return layer.apply(params, x, key=key, train=train, mask=mask)
        return installed[train].apply(with_fixed_stats(params), x, key, mask)

    def forward(
        params: Params,
        x: PyTree,
        carry: Carry = None,
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Mask = None,
    ) -> tuple[Any, Carry, Saved]:
        checks.static_bool(info, train)
        if are_plain():
            return layer.forward(params, x, carry, key=key, train=train, mask=mask)
        y, carry, saved = installed[train].forward(with_fixed_stats(params), x, carry, key, mask)
        return y, carry, jax.lax.stop_gradient(saved)

    return named(layer._replace(apply=apply, forward=forward))


class Aux(NamedTuple):
    """What `value_and_grad_by_hand` returns besides the value."""

    y: PyTree  # the network's output
    carry: Carry  # the state after the last step; None without recurrent layers
    saved: Saved  # for `update_stats`


def value_and_grad_by_hand(layer: Layer, loss: Loss) -> Callable[..., tuple[tuple[jax.Array, Aux], Params]]:
    """The value of a loss and its gradient, without autodiff.

    Formula: E = loss(apply(params, x), target).

    Derivation: the chain rule, in three calls: y and saved from `layer.forward`; dy = ∂E/∂y from
    `loss.backward`; dparams = ∂E/∂params from `layer.backward(params, saved, dy)`.

    Args:
      layer: any layer or network.
      loss: a `Loss`, such as `fn.losses.mse()`.

    Returns:
      A function `(params, x, target, *, carry=None, key=None, train=False, mask=None, loss_mask=None)
      -> ((value, Aux(y, carry, saved)), dparams)`, as `jax.value_and_grad(…, has_aux=True)` returns it.
      mask goes to the network, loss_mask (with the shape of y without its last axis) to the loss.

    Raises:
      ValueError: the shapes of y and target differ; layers raise their own errors.

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
        x: PyTree,
        target: PyTree,
        *,
        carry: Carry = None,
        key: Key | None = None,
        train: bool = False,
        mask: Mask = None,
        loss_mask: Mask = None,
    ) -> tuple[tuple[jax.Array, Aux], Params]:
        y, carry, saved = plain_forward(layer, params, x, carry, key, train, mask)
        value, kept = loss.forward(y, target, loss_mask)
        dparams, _, _ = layer.backward(params, saved, loss.backward(kept))
        return (value, Aux(y, carry, saved)), dparams

    return value_and_grad
