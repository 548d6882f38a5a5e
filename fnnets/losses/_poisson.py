"""A loss for counts: how unlikely they are if events occur at the predicted rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnnets.core.layer import describe
from fnnets.losses import logarithm
from fnnets.losses.loss import Loss, loss


def poisson(*, log_input: bool = True) -> Loss:
    """The negative log-likelihood of counts under Poisson distributions with the predicted rates.

    Formula: at the rate λ, a count t has the probability λᵗe^{−λ}/t!, so −log p = λ − t·log λ + log t!. The last term
    does not depend on λ and is left out. With y = log λ

        E = 1/N Σ_n 1/C Σ_c e_nc,  e = eʸ − t·y              log_input
        e = y − t·log max(y, tiny)                           otherwise, y = λ

    where tiny is the smallest normal number of the dtype.

    Derivation: with de = dvalue/(N·C),

        dy = de·(eʸ − t)           log_input
        dy = de·(1 − t/y)          otherwise; where the logarithm is clipped it is constant, so t/y becomes 0

    With log_input, the gradient has no singularity and every y is a valid rate, so the last layer needs no activation.
    The gradient is 0 where λ = t.

    Args:
      log_input: whether y is the logarithm of the rate; otherwise y is the rate itself.

    Returns:
      A `Loss` of y (…, C) floats and target (…, C) counts, floats or integers of at least 0. This is not checked,
      because values cannot be checked under jit. value () is a mean, dy (…, C) has the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target does not have the shape of y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> loss, y = fn.losses.poisson(), jnp.array([[0.0, 1.0]])
      >>> value, saved = loss.forward(y, jnp.array([[1, 0]]))
      >>> round(float(value), 4), loss.backward(saved)[0, 0].item()
      (1.8591, 0.0)

    References:
      Nelder & Wedderburn, Generalized linear models, J. R. Statist. Soc. A 135 (1972).

    Differences: the same value as PyTorch's `PoissonNLLLoss`, except that for rates PyTorch adds 1e-8 to y in the
    logarithm. Its option `full` adds Stirling's formula for log t!, which does not change the gradient. Keras'
    `Poisson` takes rates and adds 1e-7.
    """

    def equation(y: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.exp(y) - t * y if log_input else y - t * logarithm.log(y)

    def forward(y: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope = jnp.exp(y) - t if log_input else 1 - t * logarithm.slope_of_log(y)
        return equation(y, t), slope

    def backward(slope: jax.Array, de: jax.Array) -> jax.Array:
        return de * slope

    info = describe(poisson, log_input=log_input)
    return loss(info, equation, forward, backward, features="mean", examples="mean")
