"""Root-mean-square normalisation: divides each place by the root of its mean square."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import zero_where_masked
from fnnets.core.layer import Layer, describe, layer
from fnnets.layers.normalisation import affine as a
from fnnets.layers.normalisation import moments as m


class RMSNorm(NamedTuple):
    """The parameters of `rms_norm`."""

    scale: jax.Array | None  # (D,); None without a scale
    b: jax.Array | None  # (D,); None without a bias


class RMSNormSaved(NamedTuple):
    """What `rms_norm` keeps for its backward."""

    x: jax.Array
    valid: jax.Array | None  # the mask, (…, 1)
    inv: jax.Array  # (…, 1)


def rms_norm(*, epsilon: float = 1e-6, use_scale: bool = True, use_bias: bool = False) -> Layer:
    """Root-mean-square normalisation: normalises the features at each place to a mean square of 1, then scales.

    Formula: at each place, over its D features,

        x̂ = x/√(Σ x²/D + ε),  y = scale ⊙ x̂ + b

    This is layer normalisation without the mean. Training and inference are the same.

    Derivation: with inv = 1/√(Σ x²/D + ε), ∂inv/∂x_j = −inv³·x_j/D = −inv²·x̂_j/D, so
    ∂x̂_i/∂x_j = inv·(δ_ij − x̂_i·x̂_j/D). With dx̂ = scale ⊙ dy, ⟨·⟩ the mean over the features and Σ the sum over
    all places,

        dscale = Σ dy ⊙ x̂,  db = Σ dy
        dx = inv·(dx̂ − x̂·⟨dx̂ ⊙ x̂⟩)

    Args:
      epsilon: the number added to the mean square.
      use_scale: whether the layer has a scale; otherwise `RMSNorm.scale` is None.
      use_bias: the same for `RMSNorm.b`.

    Returns:
      A `Layer` with params `RMSNorm(scale, b)`, x (…, D) floats, y (…, D) in the dtype of scale (of x, without
      params). The mean is computed in at least float32. Where a mask (…) is False, y = 0 and dy is ignored.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: epsilon is not above 0, the last axis of x is not D, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.rms_norm(), jnp.array([[6.0, 0.0, 0.0, 0.0]])
      >>> net.apply(net.init(jax.random.key(0), x), x).round(3).tolist()
      [[2.0, 0.0, 0.0, 0.0]]

    References:
      Zhang & Sennrich, Root mean square layer normalization (2019), eq. 4.

    Differences: the default ε is 1e-6, as in flax and Keras; PyTorch uses the dtype's machine epsilon (1.2e-7 in
    float32). None of them has a bias.
    """
    checks.above_zero("rms_norm", epsilon=epsilon)
    info = describe(rms_norm, epsilon=epsilon, use_scale=use_scale, use_bias=use_bias)

    def init(key: Any, x: Any) -> RMSNorm:
        del key
        return RMSNorm(*a.start(info, x, use_scale, use_bias))

    def apply(params: RMSNorm, x: Any, *, mask: Any = None) -> jax.Array:
        x, valid = a.fitting(info, params, RMSNorm, x, mask)
        clean = a.clean(x, valid)
        normal = clean / jnp.sqrt(jnp.mean(clean**2, -1, keepdims=True) + epsilon)
        return a.scaled(params, normal, valid, x)

    def forward(params: RMSNorm, x: Any, *, mask: Any = None) -> tuple[jax.Array, RMSNormSaved]:
        x, valid = a.fitting(info, params, RMSNorm, x, mask)
        clean = a.clean(x, valid)
        inv = jax.lax.rsqrt(jnp.square(clean).mean(-1, keepdims=True) + epsilon)
        return a.scaled(params, clean * inv, valid, x), RMSNormSaved(x, valid, inv)

    def backward(params: RMSNorm, saved: RMSNormSaved, dy: jax.Array) -> tuple[RMSNorm, jax.Array]:
        x, valid, inv = saved
        normal = a.clean(x, valid) * inv
        dy = zero_where_masked(dy, valid).astype(normal.dtype)
        dnormal = dy if params.scale is None else dy * params.scale
        mean_product = (dnormal * normal).mean(-1, keepdims=True)
        dx = m.through(dnormal, normal, 0, 1, inv, 0, mean_product)
        return RMSNorm(*a.scale_gradient(params, dy, normal)), dx.astype(x.dtype)

    return layer(init, apply, forward, backward, name=info)
