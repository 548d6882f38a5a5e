"""Products of a loss's curvature matrices with a vector, without storing the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core.layer import Key, Layer, Mask, Params, PyTree
from fnnets.gradients.custom_derivatives import plain_equations
from fnnets.gradients.per_example import examples
from fnnets.losses.loss import Loss

Product = Callable[[Params], Params]


def hvp(loss_fn: Callable[[Params], jax.Array], params: Params) -> Product:
    """The product of the Hessian of a loss with a vector.

    Formula: v ↦ H·v, H = ∂²E/∂params².

    Derivation: H·v is the derivative of the gradient in the direction v,

        H·v = d/dε ∇E(params + ε·v) at ε = 0,

    forward mode over reverse mode: about the cost of two gradients, for any number of parameters. Where
    forward mode is not available (a `jax.custom_vjp` inside a backward), H·v = Hᵀ·v = ∇(∇E·v), reverse mode
    over reverse mode.

    Args:
      loss_fn: `params -> scalar`, twice differentiable.
      params: the point where H is taken; any tree of floating-point arrays.

    Returns:
      A linear function from a tree like params (same shapes and dtypes) to another. Everything that depends
      only on params is computed once, in this call.

    Raises:
      TypeError: loss_fn does not return a scalar.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> product = fn.curvature.hvp(lambda params: params[0] ** 2 * params[1], jnp.array([1.0, 3.0]))
      >>> product(jnp.array([1.0, 0.0]))  # H = [[6, 2], [2, 0]]
      Array([6., 2.], dtype=float32)

    References:
      Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994), eq. 4.
    """
    return _derivative(jax.grad(loss_fn), params, symmetric=True)


def ggn(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: PyTree,
    *,
    key: Key | None = None,
    train: bool = False,
    mask: Mask = None,
    loss_mask: Mask = None,
) -> Product:
    """The product of the generalised Gauss-Newton matrix with a vector.

    Formula: v ↦ G·v, G = Jᵀ·H_y·J, J = ∂y/∂params, H_y = ∂²E/∂y², y = apply(params, x).

    Derivation: by the chain rule H = Jᵀ·H_y·J + Σ_i ∂E/∂y_i · ∂²y_i/∂params². G omits the sum, which vanishes
    where the residual vanishes. If the loss is convex in y, then H_y ⪰ 0 and so
    vᵀ·G·v = (J·v)ᵀ·H_y·(J·v) ≥ 0: G has no negative curvature at any params. From right to left,

        J·v    one forward sweep through the network
        H_y·u  the Hessian-vector product of the loss alone
        Jᵀ·w   one reverse sweep through the network

    For a network made by `by_hand`, J·v comes from the plain equations and Jᵀ·w from the backward. Layers with
    a `jax.custom_vjp` have no forward mode; there J·v is the transpose of the reverse sweep.

    Args:
      net: any layer or network.
      loss: a `Loss` that is convex in y, such as `fn.losses.mse()`.
      params: the point where G is taken.
      x: the network's input.
      target: the loss's target.
      key: a random key, for dropout; the same key draws the same dropout as in the gradient.
      train: True for the dropout and batch statistics of training.
      mask: goes to the network.
      loss_mask: goes to the loss.

    Returns:
      A linear function from a tree like params (same shapes and dtypes) to another. Everything that depends
      only on params is computed once, in this call.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> net, x = fn.dense(1, use_bias=False), jnp.array([[1.0, 2.0]])
      >>> params = fn.Dense(w=jnp.zeros((2, 1)), b=None)
      >>> product = fn.curvature.ggn(net, fn.losses.half_squared_error(), params, x, jnp.ones((1, 1)))
      >>> product(fn.Dense(w=jnp.array([[1.0], [0.0]]), b=None)).w[:, 0]  # G = xᵀ·x
      Array([1., 2.], dtype=float32)

    References:
      Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, Neural Computation
      14 (2002), section 3; Martens, Deep learning via Hessian-free optimization, ICML (2010), section 4.2.
    """

    def output(params: Params) -> Any:
        return net.apply(params, x, key=key, train=train, mask=mask)

    y, pull = jax.vjp(output, params)
    with plain_equations():
        push = _derivative(output, params)
    hessian = hvp(lambda y: loss.apply(y, target, loss_mask), y)

    def product(v: Params) -> Params:
        return pull(hessian(push(v)))[0]

    return product


def empirical_fisher(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: PyTree,
    *,
    key: Key | None = None,
    train: bool = False,
    mask: Mask = None,
    loss_mask: Mask = None,
) -> Product:
    """The product of the empirical Fisher matrix with a vector.

    Formula: v ↦ F·v, F = 1/n·Σ_i g_i·g_iᵀ, g_i = ∂E_i/∂params, where E_i is the loss of example i alone.

    Derivation: let K have the rows g_i: K = ∂(E_1, …, E_n)/∂params, F = 1/n·Kᵀ·K. From right to left,

        K·v         one forward sweep: the derivative of each example's loss in the direction v
        1/n·Kᵀ·u    one reverse sweep: the gradient of the sum of the losses, weighted by u/n

    so the gradients of the examples are never stored. vᵀ·F·v = 1/n·|K·v|² ≥ 0.

    Args:
      net: any layer or network.
      loss: a `Loss`, such as `fn.losses.softmax_cross_entropy()`.
      params: the point where F is taken.
      x: the network's input, with the examples on the first axis of every array.
      target: the loss's target, with the examples on the first axis.
      key: a random key, for dropout; split among the examples as in `fn.per_example_gradients`.
      train: True for dropout and batch statistics of training; each example has its own statistics.
      mask: goes to the network.
      loss_mask: goes to the loss.

    Returns:
      A linear function from a tree like params (same shapes and dtypes) to another. Everything that depends
      only on params is computed once, in this call.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> net, x = fn.dense(1, use_bias=False), jnp.array([[1.0, 0.0], [1.0, 2.0]])
      >>> params, loss = fn.Dense(w=jnp.zeros((2, 1)), b=None), fn.losses.half_squared_error()
      >>> product = fn.curvature.empirical_fisher(net, loss, params, x, jnp.ones((2, 1)))
      >>> product(fn.Dense(w=jnp.array([[1.0], [0.0]]), b=None)).w[:, 0]  # g_i = −x_i
      Array([1., 1.], dtype=float32)

    References:
      Martens, New insights and perspectives on the natural gradient method, JMLR 21 (2020), section 11; Kunstner,
      Balles & Hennig, Limitations of the empirical Fisher approximation, NeurIPS (2019), eq. 3.

    Differences: the true Fisher matrix averages over targets drawn from the network's own distribution; for losses
    of exponential families it equals G (`ggn`). F uses the targets of the data and equals neither G nor the Hessian.
    """

    def values(params: Params) -> jax.Array:
        def one(example: Any) -> jax.Array:
            y = net.apply(params, example.x, key=example.key, train=train, mask=example.mask)
            return loss.apply(y, example.target, example.loss_mask)

        return jax.vmap(one)(examples(x, target, None, key, mask, loss_mask))

    each, pull = jax.vjp(values, params)
    with plain_equations():
        push = _derivative(values, params)

    def product(v: Params) -> Params:
        return pull(push(v) / each.size)[0]

    return product


def empirical_fisher_diagonal(grads: Params) -> Params:
    """The diagonal of the empirical Fisher matrix.

    Formula: diag(F) = 1/n·Σ_i g_i², element by element.

    Args:
      grads: per-example gradients, as from `fn.per_example_gradients`.

    Returns:
      A tree like params, with the mean square of each parameter's gradients.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.curvature.empirical_fisher_diagonal(jnp.array([[1.0, 0.0], [1.0, 2.0]]))
      Array([1., 2.], dtype=float32)
    """
    return jax.tree.map(lambda g: jnp.mean(g**2, 0), grads)


def _derivative(
    function: Callable[[Params], Any], params: Params, *, symmetric: bool = False
) -> Callable[[Any], Any]:
    """v ↦ J·v, by forward mode, or by reverse mode where a `custom_vjp` rules out forward mode."""
    y, forward = jax.linearize(function, params)
    if _runs(forward, params):
        return forward
    _, pull = jax.vjp(function, params)
    if symmetric:
        return lambda v: pull(v)[0]
    transposed = jax.vjp(pull, jax.tree.map(jnp.zeros_like, y))[1]
    return lambda v: transposed((v,))[0]


def _runs(linear: Callable[[Any], Any], v: Any) -> bool:
    """Whether JAX can run a linearized function; it cannot if the function contains a `custom_vjp`.

    Linearizing does not raise the TypeError; running or batching the function does. Batching under `eval_shape`
    needs only shapes, so this computes nothing.
    """

    def batched(v: Any) -> Any:
        return jax.vmap(linear)(jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), v))

    try:
        jax.eval_shape(batched, v)
    except TypeError:
        return False
    return True
