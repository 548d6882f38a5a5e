"""Group normalisation: statistics of each example over its places and a group of channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fnnets.core import checks
from fnnets.core.arrays import at_least_float32, zero_where_masked
from fnnets.core.layer import Layer, describe, layer
from fnnets.layers.normalisation import affine as a
from fnnets.layers.normalisation import moments as m


class GroupNorm(NamedTuple):
    """The parameters of `group_norm`."""

    scale: jax.Array | None  # (C,); None without a scale
    b: jax.Array | None  # (C,); None without a bias


def group_norm(
    groups: int, *, dims: int = 2, epsilon: float = 1e-5, use_scale: bool = True, use_bias: bool = True
) -> Layer:
    """Group normalisation: normalises each group of channels in each example to mean 0 and variance 1, then scales.

    Formula: the C channels are split into groups of C/groups neighbours. For each example and group, over
    the n values of its channels at all places (height and width),

        μ = Σ x/n,  σ² = Σ (x − μ)²/n,  x̂ = (x − μ)/√(σ² + ε),  y = scale ⊙ x̂ + b

    Each channel has its own scale and bias. Training and inference are the same. With one channel per group
    (groups = C) this is instance normalisation; a single group normalises each example as a whole.

    Derivation: every value affects μ and σ² of its group. With inv = 1/√(σ² + ε), ∂μ/∂x_j = 1/n and
    ∂σ²/∂x_j = 2(x_j − μ)/n give ∂x̂_i/∂x_j = inv·(δ_ij − 1/n − x̂_i·x̂_j/n). With dx̂ = scale ⊙ dy, ⟨·⟩ the
    mean over a group and Σ the sum over all examples and places,

        dscale = Σ dy ⊙ x̂,  db = Σ dy
        dx = inv·(dx̂ − ⟨dx̂⟩ − x̂·⟨dx̂ ⊙ x̂⟩)

    Args:
      groups: the number of groups; it divides C.
      dims: the number of axes of x between its batch axes and its channels: 2 for pictures
        (…, H, W, C), 1 for sequences, 0 for features only.
      epsilon: the number added to the variance.
      use_scale: whether the layer has a scale; otherwise `GroupNorm.scale` is None.
      use_bias: the same for `GroupNorm.b`.

    Returns:
      A `Layer` with params `GroupNorm(scale, b)`, x (…, places…, C) floats, y of the same shape in the dtype of
      scale (of x, without params). Statistics are computed in at least float32. Where a mask
      (…, places…) is False, y = 0, x does not enter the statistics and dy is ignored.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: groups does not divide C, x has too few axes, epsilon is not above 0, or the mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.group_norm(2, dims=0), jnp.array([1.0, 3.0, 20.0, 40.0])
      >>> net.apply(net.init(jax.random.key(0), x), x).round(3).tolist()
      [-1.0, 1.0, -1.0, 1.0]

    References:
      Wu & He, Group normalization (2018), eqs. 1-7; Ulyanov, Vedaldi & Lempitsky, Instance normalization (2016).

    Differences: in PyTorch, Keras and flax, only the first axis is the batch, and statistics run over all other axes.
    This layer takes `dims`, so it works with any number of batch axes.
    """
    checks.positive("group_norm", groups=groups)
    checks.whole("group_norm", dims=dims)
    checks.above_zero("group_norm", epsilon=epsilon)
    info = describe(
        group_norm, groups=groups, dims=dims, epsilon=epsilon, use_scale=use_scale, use_bias=use_bias
    )

    def init(key: Any, x: Any) -> GroupNorm:
        del key
        scale, b = a.start(info, x, use_scale, use_bias)
        divisible(x)
        return GroupNorm(scale, b)

    def divisible(x: Any) -> None:
        checks.rank(info, x, dims + 1)
        if x.shape[-1] % groups:
            raise ValueError(
                f"{info}: groups must divide the channels of x, got {x.shape[-1]} channels; the channels are "
                "the last axis of x."
            )

    def fitting(params: GroupNorm, x: Any, mask: Any) -> tuple[jax.Array, Any]:
        x, valid = a.fitting(info, params, GroupNorm, x, mask)
        divisible(x)
        return x, valid

    def in_groups(x: jax.Array, valid: Any) -> tuple[jax.Array, m.Places]:
        """x as (…, places…, groups, C/groups), and the places of each mean."""
        parts = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
        axes = (*(k - dims - 2 for k in range(dims)), -1)
        return parts, m.Places(axes, None if valid is None else valid[..., None])

    def apply(params: GroupNorm, x: Any, *, mask: Any = None) -> jax.Array:
        x, valid = fitting(params, x, mask)
        normal = m.textbook(*in_groups(a.clean(x, valid), valid), epsilon)
        return a.scaled(params, normal.reshape(x.shape), valid, x)

    def forward(params: GroupNorm, x: Any, *, mask: Any = None) -> tuple[jax.Array, a.NormSaved]:
        x, valid = fitting(params, x, mask)
        parts, places = in_groups(a.clean(x, valid), valid)
        centred, moments = m.centre(parts, places)
        normal = m.normalised(centred, moments, m.inverse(moments, epsilon))
        y = a.scaled(params, normal.reshape(x.shape), valid, x)
        return y, a.NormSaved(centred.reshape(x.shape).astype(x.dtype), valid, moments)

    def backward(params: GroupNorm, saved: a.NormSaved, dy: jax.Array) -> tuple[GroupNorm, jax.Array]:
        x, valid, moments = saved
        centred, places = in_groups(at_least_float32(x), valid)
        inv = m.inverse(moments, epsilon)
        normal = m.normalised(centred, moments, inv)
        dy = zero_where_masked(dy, valid).astype(normal.dtype)
        dnormal, _ = in_groups(dy if params.scale is None else dy * params.scale, valid)
        mean_dnormal = m.average(dnormal, places, moments.number)
        mean_product = m.average(dnormal * normal, places, moments.number)
        dx = m.through(dnormal, centred, moments.rest, inv, inv, mean_dnormal, mean_product).reshape(x.shape)
        dparams = GroupNorm(*a.scale_gradient(params, dy, normal.reshape(x.shape)))
        return dparams, zero_where_masked(dx, valid).astype(x.dtype)

    return layer(init, apply, forward, backward, name=info)
