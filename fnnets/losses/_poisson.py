"""The loss of counts: how unlikely they are where events come at the predicted rate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnnets.core.layer import describe
from fnnets.losses import logarithm
from fnnets.losses.loss import Loss, loss


def poisson(*, log_input: bool = True) -> Loss:
    """The negative log likelihood of counts under Poisson distributions of the predicted rates.

    Formula: a count t at the rate λ has the probability λᵗe^{−λ}/t!, so −log p = λ − t·log λ + log t!. The last term
    does not depend on λ and is left out. With y = log λ

        E = 1/N Σ_n 1/C Σ_c e_nc,  e = eʸ − t·y              log_input
        e = y − t·log y, the logarithm of max(y, tiny)       otherwise, y = λ

    where tiny is the least normal number of the dtype.

    Derivation: with de = dvalue/(N·C),

        dy = de·(eʸ − t)           log_input
        dy = de·(1 − t/y)          otherwise; where the logarithm is clipped it is constant and t/y is 0

    The first has no singularity, and any y is a rate: the last layer needs no activation. It is 0 where λ = t.

    Args:
      log_input: whether y is the logarithm of the rate, else the rate itself.

    Returns:
      A `Loss` of y (…, C) floats and target (…, C) of counts, floats or integers of at least 0 (which is not checked:
      values cannot be under jit); value () a mean, dy (…, C) in the dtype of y.

    Raises:
      TypeError: y is not floating point.
      ValueError: target has another shape than y.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> loss, y = fn.losses.poisson(), jnp.array([[0.0, 1.0]])
      >>> value, saved = loss.forward(y, jnp.array([[1, 0]]))
      >>> round(float(value), 4), loss.backward(saved)[0, 0].item()
      (1.8591, 0.0)

    References:
      Nelder & Wedderburn, Generalized linear models, J. R. Statist. Soc. A 135 (1972).

    Differences: the number of PyTorch's `PoissonNLLLoss`, which adds 1e-8 to y in the logarithm of a rate, and has
    Stirling's formula for log t! as an option (`full`): it changes no gradient. Keras' `Poisson` takes rates and adds
    1e-7.
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
