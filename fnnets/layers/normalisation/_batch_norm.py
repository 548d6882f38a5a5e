"""Batch normalisation: statistics of each feature over the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, sum_leading, zero_where_masked
from fnnets.core.layer import Layer, describe, layer
from fnnets.core.parameters import Stats
from fnnets.layers.normalisation import affine as a
from fnnets.layers.normalisation import moments as m


class BatchNorm(NamedTuple):
    """The parameters of `batch_norm`."""

    scale: jax.Array | None  # (C,); None without a scale
    b: jax.Array | None  # (C,); None without a bias
    stats: Stats  # moving mean (C,), variance (C,) and weight ()


def batch_norm(
    *,
    decay: float = 0.9,
    epsilon: float = 1e-5,
    unbiased: bool = True,
    use_scale: bool = True,
    use_bias: bool = True,
    axis_name: Any = None,
) -> Layer:
    """Batch normalisation: normalises each feature to mean 0 and variance 1 over the batch, then scales and shifts.

    Formula: for each feature, over the n places of all other axes (batch, height and width, time),

        μ = Σ x/n,  σ² = Σ (x − μ)²/n             in training; the moving μ and σ² at inference
        x̂ = (x − μ)/√(σ² + ε),  y = scale ⊙ x̂ + b

    After the t-th step, `update_stats` updates the moving statistics:

        w_t = decay·w_{t−1} + (1 − decay),  μ_t = μ_{t−1} + (1 − decay)/w_t·(μ − μ_{t−1}), and σ²_t likewise

    Since w_0 = 0, the first update takes over the batch's own statistics. After that, the last step's statistics have
    the relative weight 1, the step before it `decay`, and so on. The initial μ_0 = 0 and σ²_0 = 1 have no weight.

    Derivation: every x of a feature affects μ and σ², and so every x̂. With inv = 1/√(σ² + ε), ∂μ/∂x_j = 1/n and
    ∂σ²/∂x_j = 2(x_j − μ)/n give ∂x̂_i/∂x_j = inv·(δ_ij − 1/n − x̂_i·x̂_j/n). With dx̂ = scale ⊙ dy,

        dscale = Σ dy ⊙ x̂,  db = Σ dy
        dx = inv·(dx̂ − Σdx̂/n − x̂ ⊙ Σ(dx̂ ⊙ x̂)/n) = inv ⊙ scale ⊙ (dy − db/n − x̂ ⊙ dscale/n)    in training
        dx = inv ⊙ scale ⊙ dy                                                                     at inference

    At inference the moving statistics are constants, with gradients of 0.

    Args:
      decay: the fraction of its old value that a moving statistic keeps in a step, in [0, 1); with 0, only the last
        batch counts.
      epsilon: the number added to the variance.
      unbiased: whether the moving variance is the one with n − 1 degrees of freedom, σ²·n/(n − 1). In training, x̂
        always uses the one with n. If n = 1, the variance is 0 either way.
      use_scale: whether the layer has a scale; otherwise `BatchNorm.scale` is None.
      use_bias: the same for `BatchNorm.b`. A bias in the layer before has no effect in training, and its gradient is 0.
      axis_name: the name (or names) of the mapped axis of devices, or of a `vmap`, that share the statistics. The
        statistics are then those of the batches of all devices. dscale and db are each device's own; sum them like all
        other gradients.

    Returns:
      A `Layer` with params `BatchNorm(scale, b, stats)`, x (…, C) floats, y (…, C) in the dtype of scale.
      Statistics are computed in at least float32. Where a mask (…) is False, y = 0, x does not enter the
      statistics and dy is ignored. A batch that is masked completely does not change the moving statistics. After a
      step, call `params = net.update_stats(params, saved)`.

    Raises:
      TypeError: x is not floating point, the mask does not hold bools, or train is not a Python bool.
      ValueError: decay or epsilon is out of range, the last axis of x is not C, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.batch_norm(), jnp.array([[1.0], [3.0]])
      >>> params = net.init(jax.random.key(0), x)
      >>> y, _, saved = net.forward(params, x, train=True)
      >>> params = net.update_stats(params, saved)
      >>> y.round(3).tolist(), params.stats.mean.tolist(), params.stats.var.tolist()
      ([[-1.0], [1.0]], [2.0], [2.0])

    References:
      Ioffe & Szegedy, Batch normalization (2015), algorithms 1 and 2 and the gradients of section 3; Chan,
      Golub & LeVeque, Algorithms for computing the sample variance (1983), eq. 1.7, for the two passes.

    Differences: the frameworks start from 0 and 1 and update at a fixed rate, so early inference mostly uses these
    initial values. haiku corrects for them, as here. `Stats(mean, var)` without a weight is updated as in
    PyTorch. `decay` is 1 − PyTorch's `momentum`, and Keras' and flax's `momentum` (0.99 there).
    The moving variance is unbiased in the paper and PyTorch, biased in Keras, flax and haiku. PyTorch
    refuses a batch of one.
    """
    if not isinstance(decay, float | int) or not 0.0 <= decay < 1.0:
        raise ValueError(
            f"batch_norm: decay must be at least 0 and below 1, got {decay!r}; it is 1 − PyTorch's momentum."
        )
    checks.above_zero("batch_norm", epsilon=epsilon)
    info = describe(
        batch_norm, decay=decay, epsilon=epsilon, unbiased=unbiased, use_scale=use_scale, use_bias=use_bias,
        axis_name=axis_name,
    )  # fmt: skip

    def init(key: Any, x: Any) -> BatchNorm:
        del key
        scale, b = a.start(info, x, use_scale, use_bias)
        return BatchNorm(scale, b, Stats(jnp.zeros(x.shape[-1]), jnp.ones(x.shape[-1]), jnp.zeros(())))

    def places(x: jax.Array, valid: Any) -> m.Places:
        return m.Places(tuple(range(x.ndim - 1)), valid, axis_name)

    def apply(params: BatchNorm, x: Any, *, train: bool = False, mask: Any = None) -> jax.Array:
        checks.static_bool(info, train)
        x, valid = a.fitting(info, params, BatchNorm, x, mask)
        clean = a.clean(x, valid)
        if train:
            normal = m.textbook(clean, places(x, valid), epsilon)
        else:
            mean, var, _ = jax.lax.stop_gradient(params.stats)
            normal = (clean - mean) / jnp.sqrt(at_least_float32(var) + epsilon)
        return a.scaled(params, normal, valid, x)

    def forward(
        params: BatchNorm, x: Any, *, train: bool = False, mask: Any = None
    ) -> tuple[jax.Array, a.NormSaved]:
        checks.static_bool(info, train)
        x, valid = a.fitting(info, params, BatchNorm, x, mask)
        clean = a.clean(x, valid)
        if train:
            centred, moments = m.centre(clean, places(x, valid))
        else:
            mean, var = at_least_float32(params.stats.mean), at_least_float32(params.stats.var)
            centred, moments = clean - mean, m.Moments(mean, jnp.zeros_like(mean), var, None)
        factor = m.inverse(moments, epsilon)
        factor = factor if params.scale is None else factor * params.scale
        offset = -moments.rest * factor
        offset = offset if params.b is None else offset + params.b
        y = zero_where_masked(factor * centred + offset, valid).astype(a.dtype(params, x))
        return y, a.NormSaved(centred.astype(x.dtype), valid, moments)

    def backward(params: BatchNorm, saved: a.NormSaved, dy: jax.Array) -> tuple[BatchNorm, jax.Array]:
        centred, valid, moments = at_least_float32(saved.centred), saved.valid, saved.moments
        inv = m.inverse(moments, epsilon).reshape(-1)
        dy = zero_where_masked(dy, valid).astype(centred.dtype)
        sum_dy = sum_leading(dy)
        sum_product = inv * (sum_leading(dy * centred) - moments.rest.reshape(-1) * sum_dy)  # Σ dy ⊙ x̂
        dscale = None if params.scale is None else sum_product.astype(params.scale.dtype)
        db = None if params.b is None else sum_dy.astype(params.b.dtype)
        factor = inv if params.scale is None else inv * params.scale
        if moments.number is None:
            dx = factor * dy
        else:
            sums = sum_dy, sum_product
            sums = sums if axis_name is None else jax.lax.psum(sums, axis_name)
            mean_dy, mean_product = (each / jnp.maximum(moments.number, 1) for each in sums)
            dx = m.through(dy, centred, moments.rest, inv, factor, mean_dy, mean_product)
            dx = zero_where_masked(dx, valid)
        zeros = jax.tree.map(jnp.zeros_like, params.stats)
        return BatchNorm(dscale, db, zeros), dx.astype(saved.centred.dtype)

    def update_stats(params: BatchNorm, saved: a.NormSaved) -> BatchNorm:
        mean, rest, var, number = saved.moments
        if number is None:
            return params
        n = number.reshape(())
        if unbiased:
            var = var * (n / jnp.maximum(n - 1, 1))
        of_batch = (mean + rest).reshape(-1), var.reshape(-1)
        return params._replace(stats=updated(params.stats, *of_batch, decay, n > 0))

    return layer(init, apply, forward, backward, name=info)._replace(update_stats=update_stats)


def updated(stats: Stats, mean: jax.Array, var: jax.Array, decay: float, counts: Any) -> Stats:
    """The moving statistics after one more batch; unchanged if nothing in the batch counts."""
    before = jnp.ones(()) if stats.weight is None else at_least_float32(stats.weight)
    weight = decay * before + (1 - decay)
    rate = jnp.where(counts, (1 - decay) / weight, 0)

    def update(old: jax.Array, new: jax.Array) -> jax.Array:
        precise = at_least_float32(old)
        return (precise + rate * (new - precise)).astype(old.dtype)

    after = None if stats.weight is None else jnp.where(counts, weight, before).astype(stats.weight.dtype)
    return Stats(update(stats.mean, mean), update(stats.var, var), after)
