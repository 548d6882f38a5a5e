"""Penalties on large weights, added to a loss to keep a network simple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32
from fnnets.core.layer import Info, Params, PyTree, Saved, Scalar, describe
from fnnets.core.parameters import kernels


class Penalty(NamedTuple):
    """A penalty: pure functions of params, with the gradient derived by hand.

    Attributes:
      apply: `(params) -> value`, the textbook equation; value () in at least float32.
      forward: `(params) -> (value, saved)`, the same value and what `backward` needs.
      backward: `(saved, dvalue=1.0) -> dparams`, the derivation; dparams has the structure of params, with zeros
        where the penalty does not apply.
      info: the penalty's name and settings.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> penalty, params = fn.l2(0.5), fn.Dense(w=jnp.array([[2.0]]), b=jnp.array([3.0]))
      >>> value, saved = penalty.forward(params)
      >>> float(value), penalty.backward(saved).w.tolist(), penalty.backward(saved).b.tolist()
      (1.0, [[1.0]], [0.0])
    """

    apply: Callable[[Params], jax.Array]
    forward: Callable[[Params], tuple[jax.Array, Saved]]
    backward: Callable[..., Params]
    info: Info

    def __repr__(self) -> str:
        return self.info.label or self.info.name


checks.not_a_function(Penalty, "penalty.apply(params)")


def l1(rate: Scalar, *, n: int = 1, on: PyTree | Callable[[Params], PyTree] = kernels) -> Penalty:
    """The L1 penalty (lasso), which drives weights to 0.

    Formula: E = λ/n·Σ|w| over all weights that it applies to, λ = rate.

    Derivation: with sgn 0 = 0, a subgradient that leaves a weight of 0 unchanged,

        dw = dvalue·λ/n·sgn w

    A step of gradient descent moves every weight towards 0 by the same amount, ηλ/n. The equivalent constraint is
    Σ|w| ≤ C, a diamond, whose corners make weights 0. Steps of finite length overshoot 0 and come back, so weights only
    come close to 0. A proximal step makes them exactly 0; see `examples/studies/regularisation.py`.

    Args:
      rate: λ, at least 0; it may be traced.
      n: the number of training examples, if the loss is a sum over them divided by n.
      on: the leaves that the penalty applies to: a tree of bools, or a function from params to one. A bool in place of
        a subtree stands for all its leaves. The default is kernels and recurrent kernels, which are recognised by their
        names, `w` and `u`; for other names, set `on`. `fn.trainable` adds biases and scales. Leaves that are not
        floating point are always left out.

    Returns:
      A `Penalty` for any params; value () in at least float32, dparams in the shapes and dtypes of params.

    Raises:
      ValueError: n is not a whole number of at least 1, or `on` does not have the structure of params.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> params = fn.Dense(w=jnp.array([[-2.0, 0.0]]), b=jnp.array([5.0, 5.0]))
      >>> float(fn.l1(0.5).apply(params))
      1.0

    References:
      Tibshirani, Regression shrinkage and selection via the lasso, J. R. Statist. Soc. B 58 (1996).

    Differences: with n = 1, the same as Keras' `regularizers.L1(λ)`, which is set for each layer. PyTorch and optax
    only have decay of the L2 kind.
    """
    info = describe(l1, rate=rate, n=n)
    # |w| as w·sgn w: jnp.abs has a slope of 1 at 0.
    return _penalty(info, rate, n, on, lambda w: (w * jnp.sign(w)).sum(), jnp.sign)


def l2(rate: Scalar, *, n: int = 1, on: PyTree | Callable[[Params], PyTree] = kernels) -> Penalty:
    """The L2 penalty (weight decay), which keeps weights small.

    Formula: E = λ/(2n)·Σw² over all weights that it applies to, λ = rate.

    Derivation: the half cancels the 2 of the square,

        dw = dvalue·λ/n·w

    so a step of gradient descent shrinks a weight by the factor 1 − ηλ/n. The equivalent constraint is Σw² ≤ C, a disc.

    Args:
      rate: λ, at least 0; it may be traced.
      n: the number of training examples, if the loss is a sum over them divided by n.
      on: the leaves that the penalty applies to: a tree of bools, or a function from params to one. A bool in place of
        a subtree stands for all its leaves. The default is kernels and recurrent kernels, which are recognised by their
        names, `w` and `u`; for other names, set `on`. `fn.trainable` adds biases and scales. Leaves that are not
        floating point are always left out.

    Returns:
      A `Penalty` for any params; value () in at least float32, dparams in the shapes and dtypes of params.

    Raises:
      ValueError: n is not a whole number of at least 1, or `on` does not have the structure of params.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> params = fn.Dense(w=jnp.array([[-2.0, 0.0]]), b=jnp.array([5.0, 5.0]))
      >>> float(fn.l2(0.5).apply(params))
      1.0

    References:
      Krogh & Hertz, A simple weight decay can improve generalization (1991), eqs. 1-2.

    Differences: Keras' `regularizers.L2(λ)` has no factor ½. PyTorch's `SGD(weight_decay=λ)` and
    `optax.add_decayed_weights(λ)` add the gradient with n = 1 to that of the loss, by default for biases too. `adamw`
    decays after its own scaling, which is not this penalty.
    """
    info = describe(l2, rate=rate, n=n)
    return _penalty(info, rate, n, on, lambda w: 0.5 * (w * w).sum(), lambda w: w)


def _penalty(
    info: Info,
    rate: Scalar,
    n: int,
    on: PyTree | Callable[[Params], PyTree],
    size: Callable[[jax.Array], jax.Array],
    slope: Callable[[jax.Array], jax.Array],
) -> Penalty:
    """The penalty λ/n·Σ size(w), whose gradient is λ/n·slope(w)."""
    checks.positive(info.name, n=n)

    def strength(w: jax.Array) -> jax.Array:
        return jnp.asarray(rate, w.dtype) / n

    def applies(params: Params) -> Any:
        marks = jax.tree.broadcast(on(params) if callable(on) else on, params)
        return jax.tree.map(
            lambda mark, w: bool(mark) and jnp.issubdtype(w.dtype, jnp.floating), marks, params
        )

    def apply(params: Params) -> jax.Array:
        marks, leaves = jax.tree.leaves(applies(params)), map(at_least_float32, jax.tree.leaves(params))
        terms = [strength(w) * size(w) for mark, w in zip(marks, leaves, strict=True) if mark]
        return jnp.asarray(sum(terms, 0.0))

    def forward(params: Params) -> tuple[jax.Array, Params]:
        return apply(params), params

    def backward(params: Params, dvalue: Scalar = 1.0) -> Params:
        def gradient(mark: bool, w: Any) -> jax.Array:
            if not mark:
                return jnp.zeros_like(w)
            wide = at_least_float32(w)
            dsize = jnp.asarray(dvalue, wide.dtype) * strength(wide)
            return (dsize * slope(wide)).astype(w.dtype)

        return jax.tree.map(gradient, applies(params), params)

    for function in (apply, forward, backward):
        function.__qualname__ = f"{info}.{function.__name__}"
    return Penalty(apply, forward, backward, info)
