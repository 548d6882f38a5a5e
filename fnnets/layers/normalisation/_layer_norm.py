"""Layer normalisation: statistics of each place over its features."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, zero_where_masked
from fnnets.core.layer import Layer, describe, layer
from fnnets.layers.normalisation import affine as a
from fnnets.layers.normalisation import moments as m

FEATURES = m.Places((-1,))


class LayerNorm(NamedTuple):
    """The parameters of `layer_norm`."""

    scale: jax.Array | None  # (D,); None without a scale
    b: jax.Array | None  # (D,); None without a bias


def layer_norm(*, epsilon: float = 1e-5, use_scale: bool = True, use_bias: bool = True) -> Layer:
    """Layer normalisation: normalises the features at each place to mean 0 and variance 1, then scales and shifts.

    Formula: at each place, over its D features,

        μ = Σ x/D,  σ² = Σ (x − μ)²/D,  x̂ = (x − μ)/√(σ² + ε),  y = scale ⊙ x̂ + b

    Training and inference are the same.

    Derivation: every feature affects μ and σ² of its place. With inv = 1/√(σ² + ε), ∂μ/∂x_j = 1/D and
    ∂σ²/∂x_j = 2(x_j − μ)/D give ∂x̂_i/∂x_j = inv·(δ_ij − 1/D − x̂_i·x̂_j/D). With dx̂ = scale ⊙ dy, ⟨·⟩ the
    mean over the features and Σ the sum over all places,

        dscale = Σ dy ⊙ x̂,  db = Σ dy
        dx = inv·(dx̂ − ⟨dx̂⟩ − x̂·⟨dx̂ ⊙ x̂⟩)

    Args:
      epsilon: the number added to the variance.
      use_scale: whether the layer has a scale; otherwise `LayerNorm.scale` is None.
      use_bias: the same for `LayerNorm.b`.

    Returns:
      A `Layer` with params `LayerNorm(scale, b)`, x (…, D) floats, y (…, D) in the dtype of scale (of x, without
      params). Statistics are computed in at least float32. Where a mask (…) is False, y = 0 and dy is ignored.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: epsilon is not above 0, the last axis of x is not D, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.layer_norm(), jnp.array([[1.0, 3.0], [5.0, 5.0]])
      >>> net.apply(net.init(jax.random.key(0), x), x).round(3).tolist()
      [[-1.0, 1.0], [0.0, 0.0]]

    References:
      Ba, Kiros & Hinton, Layer normalization (2016), eqs. 3 and 4.

    Differences: the default ε is 1e-5, as in PyTorch and the paper's code; in flax it is 1e-6, in Keras 1e-3.
    """
    checks.above_zero("layer_norm", epsilon=epsilon)
    info = describe(layer_norm, epsilon=epsilon, use_scale=use_scale, use_bias=use_bias)

    def init(key: Any, x: Any) -> LayerNorm:
        del key
        return LayerNorm(*a.start(info, x, use_scale, use_bias))

    def apply(params: LayerNorm, x: Any, *, mask: Any = None) -> jax.Array:
        x, valid = a.fitting(info, params, LayerNorm, x, mask)
        normal = m.textbook(a.clean(x, valid), FEATURES, epsilon)
        return a.scaled(params, normal, valid, x)

    def forward(params: LayerNorm, x: Any, *, mask: Any = None) -> tuple[jax.Array, a.NormSaved]:
        x, valid = a.fitting(info, params, LayerNorm, x, mask)
        centred, moments = m.centre(a.clean(x, valid), FEATURES)
        normal = m.normalised(centred, moments, m.inverse(moments, epsilon))
        return a.scaled(params, normal, valid, x), a.NormSaved(centred.astype(x.dtype), valid, moments)

    def backward(params: LayerNorm, saved: a.NormSaved, dy: jax.Array) -> tuple[LayerNorm, jax.Array]:
        centred, valid, moments = at_least_float32(saved.centred), saved.valid, saved.moments
        inv = m.inverse(moments, epsilon)
        normal = m.normalised(centred, moments, inv)
        dy = zero_where_masked(dy, valid).astype(normal.dtype)
        dnormal = dy if params.scale is None else dy * params.scale
        mean_dnormal = dnormal.mean(-1, keepdims=True)
        mean_product = (dnormal * normal).mean(-1, keepdims=True)
        dx = m.through(dnormal, centred, moments.rest, inv, inv, mean_dnormal, mean_product)
        dparams = LayerNorm(*a.scale_gradient(params, dy, normal))
        return dparams, zero_where_masked(dx, valid).astype(saved.centred.dtype)

    return layer(init, apply, forward, backward, name=info)
