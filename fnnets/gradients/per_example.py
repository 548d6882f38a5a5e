"""The gradient of each single example, and the noise scale of these gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core.arrays import at_least_float32
from fnnets.core.layer import Carry, Key, Layer, Mask, Params, PyTree
from fnnets.core.time_order import examples_first
from fnnets.gradients._by_hand import value_and_grad_by_hand
from fnnets.losses.loss import Loss


class Example(NamedTuple):
    """The inputs of one example's loss; for a batch, every array has the examples on its first axis."""

    x: PyTree
    target: PyTree
    carry: Carry = None
    key: Key | None = None
    mask: Mask = None
    loss_mask: Mask = None


def examples(
    x: PyTree,
    target: PyTree,
    carry: Carry = None,
    key: Key | None = None,
    mask: Mask = None,
    loss_mask: Mask = None,
) -> Example:
    """Splits a batch into batches of one along a new first axis, each with its own key."""
    single = jax.tree.map(lambda leaf: leaf[:, None], (x, target, mask, loss_mask))
    x, target, mask, loss_mask = single
    # The examples are on the second last axis: the carry of a stack has the depth first.
    carry = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -2, 0)[..., None, :], carry)
    count = jax.tree.leaves(target)[0].shape[0]
    return Example(x, target, carry, None if key is None else jax.random.split(key, count), mask, loss_mask)


def per_example_gradients(net: Layer, loss: Loss) -> Callable[..., Params]:
    """The gradient of each example's own loss, by hand, for all examples at once.

    Formula: g_i = ∂E_i/∂params, E_i = loss(apply(params, x_i), t_i), for i = 1 … n.

    Derivation: the backward of a batch sums over its examples, as in dw = Σ_i x_iᵀ·dz_i. Under `jax.vmap` each
    example is a batch of one, and its sum has one term: g_i. If the loss is the mean over the examples,
    E = 1/n·Σ E_i, then 1/n·Σ g_i is the gradient of the batch.

    Args:
      net: any layer or network.
      loss: a `Loss`, such as `fn.losses.mse()`.

    Returns:
      A function `(params, x, target, *, carry=None, key=None, train=False, mask=None, loss_mask=None) -> grads`.
      grads has the structure of params, with the examples on a new first axis: n times the memory of params.
      x, target and the masks have the examples on the first axis; carry is (…, n, H), as the network returns it.
      In training each example has its own key, split from key, and its own batch statistics.

    Raises:
      ValueError: the network has time first; the network and the loss raise their own errors.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> net, x = fn.dense(1, use_bias=False), jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> params = fn.Dense(w=jnp.zeros((2, 1)), b=None)
      >>> grads = fn.per_example_gradients(net, fn.losses.half_squared_error())(params, x, jnp.ones((2, 1)))
      >>> grads.w[:, :, 0].tolist()  # −x_i, as y − t = −1
      [[-1.0, -0.0], [-0.0, -2.0]]

    References:
      Goodfellow, Efficient per-example gradient computations (2015), section 3, for dense networks.

    Differences: opacus and BackPACK derive these gradients for each layer; here they are the layer's backward under vmap.
    """
    examples_first("per_example_gradients", net)
    value_and_grad = value_and_grad_by_hand(net, loss)

    def gradients(
        params: Params,
        x: PyTree,
        target: PyTree,
        *,
        carry: Carry = None,
        key: Key | None = None,
        train: bool = False,
        mask: Mask = None,
        loss_mask: Mask = None,
    ) -> Params:
        def one(example: Example) -> Params:
            x, target, carry, key, mask, loss_mask = example
            return value_and_grad(
                params, x, target, carry=carry, key=key, train=train, mask=mask, loss_mask=loss_mask
            )[1]

        return jax.vmap(one)(examples(x, target, carry, key, mask, loss_mask))

    return gradients


class GradientNoise(NamedTuple):
    """The result of `gradient_noise_scale`, all scalars."""

    scale: jax.Array  # tr(Σ)/|G|², in examples; infinite where the estimate of |G|² is not above 0
    trace: jax.Array  # tr(Σ), the variance of one example's gradient
    square: jax.Array  # |G|², the squared norm of the true gradient; the estimate may be below 0


def gradient_noise_scale(grads: Params) -> GradientNoise:
    """The batch size at which the noise of a gradient is as large as the gradient.

    Formula: B = tr(Σ)/|G|²; G is the expectation of an example's gradient g_i, and Σ its covariance.

    Derivation: the mean ḡ of n independent gradients has expectation G and covariance Σ/n, so
    E|ḡ|² = |G|² + tr(Σ)/n: at n = B noise and signal are equal. Unbiased estimates are

        tr(Σ) ≈ Σ_i |g_i − ḡ|²/(n − 1),  |G|² ≈ |ḡ|² − tr(Σ)/n

    They equal the paper's estimates from batches of 1 and of n: |G|² = (n·|ḡ|² − ⟨|g|²⟩)/(n − 1) and
    tr(Σ) = (⟨|g|²⟩ − |ḡ|²)/(1 − 1/n), where ⟨|g|²⟩ = 1/n·Σ_i |g_i|². Their ratio is biased: average trace and
    square over several steps before dividing.

    Args:
      grads: per-example gradients, as from `fn.per_example_gradients`: a tree whose leaves have the examples
        on the first axis.

    Returns:
      A `GradientNoise(scale, trace, square)` of scalars in at least float32.

    Raises:
      ValueError: grads has fewer than two examples.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> noise = fn.gradient_noise_scale(jnp.array([[1.0, 1.0], [3.0, 1.0]]))
      >>> float(noise.trace), float(noise.square), float(noise.scale)  # ḡ = (2, 1)
      (2.0, 4.0, 0.5)

    References:
      McCandlish et al., An empirical model of large-batch training (2018), eq. 2.9 and appendix A.1, eqs. A.1, A.2.
    """
    count = min(leaf.shape[0] for leaf in jax.tree.leaves(grads))
    if count < 2:
        raise ValueError(
            f"gradient_noise_scale: grads must hold at least 2 examples, got {count}; give a larger batch."
        )
    wide = jax.tree.map(at_least_float32, grads)
    mean = jax.tree.map(lambda leaf: leaf.mean(0), wide)
    trace = optax.tree.norm(optax.tree.sub(wide, mean), squared=True) / (count - 1)
    square = optax.tree.norm(mean, squared=True) - trace / count
    scale = jnp.where(square > 0, trace / jnp.where(square > 0, square, 1), jnp.inf)
    return GradientNoise(scale, trace, square)
