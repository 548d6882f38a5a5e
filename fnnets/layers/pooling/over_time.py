"""Layers that reduce the time axis away: the last step, the mean and the maximum over valid steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import float32_or_wider, zero_where_masked
from fnnets.core.layer import Info, Layer, Static, describe, layer, no_params


class Picked(NamedTuple):
    """What `last` and `max_over_time` keep for their backward: the step of each output."""

    step: jax.Array  # (…, 1, 1) for a whole row, or (…, 1, D) for each feature
    counts: jax.Array  # (…, T, 1), whether a step is valid
    dtype: Static  # of x


class Averaged(NamedTuple):
    """What `mean_over_time` keeps for its backward."""

    counts: jax.Array  # (…, T, 1), whether a step is valid
    dtype: Static  # of x


def last() -> Layer:
    """The last valid step of a sequence.

    Formula: y = x_l, l = max {t : mask_t}; y = 0 if no step is valid.

    Derivation: y is one step of x, and l does not depend on x, so

        dx_t = dy where t = l, else 0

    Returns:
      A `Layer` without params, x (…, T, D) floats, y (…, D). The mask (…, T) may have gaps and padding on
      either side; without a mask, l = T − 1. Values in the padding, even NaN, have no effect.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: x has no time axis or no steps, or the mask does not have the shape (…, T).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> x = jnp.arange(6.0).reshape(2, 3, 1)
      >>> fn.last().apply((), x, mask=jnp.array([[True, True, False], [True, True, True]])).tolist()
      [[1.0], [5.0]]

    References:
      Sutskever, Vinyals & Le, Sequence to sequence learning with neural networks (2014), section 2.

    Differences: the common `x[:, -1]` is padding for all but the longest sequences.
    """
    info = describe(last)

    def pick(x: jax.Array, counts: jax.Array) -> jax.Array:
        steps = jnp.arange(x.shape[-2])[:, None]
        return jnp.where(counts, steps, 0).max(-2, keepdims=True)

    return _picking(info, pick)


def max_over_time() -> Layer:
    """The largest value of each feature over the valid steps.

    Formula: y_d = x_{l_d, d}, l_d = argmax_t x_td over the t with mask_t; y = 0 if no step is valid.

    Derivation: y_d is one entry of x, and l_d does not change when x changes slightly. So dx is dy at this entry and 0
    elsewhere:

        dx_td = dy_d where t = l_d, else 0

    If several steps share the largest value, l_d is the first of them.

    Returns:
      A `Layer` without params, x (…, T, D) floats, y (…, D). Values in the padding, even NaN, have no effect; NaN in a
      valid step gives NaN.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: x has no time axis or no steps, or the mask does not have the shape (…, T).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> x = jnp.array([[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]])
      >>> fn.max_over_time().apply((), x, mask=jnp.array([True, True, False])).tolist()
      [3.0, 5.0]

    References:
      Collobert et al., Natural language processing (almost) from scratch, JMLR 12 (2011), eq. 6.

    Differences: among equal values, the first one gets the whole gradient: the one that `jnp.argmax` and PyTorch's
    `max(dim)` choose. `jnp.max` and PyTorch's `amax` divide the gradient among them. Keras' GlobalMaxPooling1D takes no
    mask.
    """
    info = describe(max_over_time)

    def pick(x: jax.Array, counts: jax.Array) -> jax.Array:
        best = jnp.where(counts, x, -jnp.inf).argmax(-2, keepdims=True)
        # If all valid values are −∞, the padding ties with them; this picks the first valid step.
        return jnp.where(jnp.take_along_axis(counts, best, -2), best, counts.argmax(-2, keepdims=True))

    return _picking(info, pick)


def mean_over_time() -> Layer:
    """The mean of each feature over the valid steps.

    Formula: y = Σ_t m_t x_t / n, n = Σ_t m_t, with m_t = 1 where the mask is True, else 0; y = 0 if n = 0.

    Derivation: ∂y/∂x_t = m_t/n, so

        dx_t = m_t·dy/n

    Returns:
      A `Layer` without params, x (…, T, D) floats, y (…, D); the sum is taken in at least float32. Values in the
      padding, even NaN, have no effect.

    Raises:
      TypeError: x is not floating point, or the mask does not hold bools.
      ValueError: x has no time axis or no steps, or the mask does not have the shape (…, T).

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> x = jnp.array([[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]])
      >>> fn.mean_over_time().apply((), x, mask=jnp.array([True, True, False])).tolist()
      [2.0, 3.5]

    References:
      Lin, Chen & Yan, Network in network (2014), section 3.2 (global average pooling).

    Differences: Keras' GlobalAveragePooling1D takes masks too, but gives NaN if no step is valid.
    """
    info = describe(mean_over_time)

    def averaged(x: Any, mask: Any) -> tuple[jax.Array, Averaged]:
        x, counts = _valid(info, x, mask)
        total = zero_where_masked(x, counts).sum(-2, dtype=float32_or_wider(x.dtype))
        y = total / _number(counts, total.dtype)
        return y.astype(x.dtype), Averaged(counts, Static(x.dtype))

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        del params
        return averaged(x, mask)[0]

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, Averaged]:
        del params
        return averaged(x, mask)

    def backward(params: Any, saved: Averaged, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        share = dy.astype(float32_or_wider(saved.dtype.value))
        share /= _number(saved.counts, share.dtype)
        return (), jnp.where(saved.counts, share[..., None, :], 0).astype(saved.dtype.value)

    return layer(no_params, apply, forward, backward, name=info)


def _picking(info: Info, pick: Any) -> Layer:
    """A layer that returns one step for each row or feature, chosen by `pick(x, counts)`."""

    def chosen(x: Any, mask: Any) -> tuple[jax.Array, Picked]:
        x, counts = _valid(info, x, mask)
        step = pick(x, counts)
        y = jnp.take_along_axis(zero_where_masked(x, counts), step, -2)
        return y[..., 0, :], Picked(step, counts, Static(x.dtype))

    def apply(params: Any, x: Any, *, mask: Any = None) -> jax.Array:
        del params
        return chosen(x, mask)[0]

    def forward(params: Any, x: Any, *, mask: Any = None) -> tuple[jax.Array, Picked]:
        del params
        return chosen(x, mask)

    def backward(params: Any, saved: Picked, dy: jax.Array) -> tuple[tuple[()], jax.Array]:
        del params
        steps = jnp.arange(saved.counts.shape[-2])[:, None]
        here = (steps == saved.step) & saved.counts
        return (), jnp.where(here, dy[..., None, :], 0).astype(saved.dtype.value)

    return layer(no_params, apply, forward, backward, name=info)


def _valid(info: Info, x: Any, mask: Any) -> tuple[jax.Array, jax.Array]:
    """Checks and returns x and which of its steps are valid, (…, T, 1)."""
    x = checks.floats(info, x)
    checks.rank(info, x, 2)
    checks.positive(str(info), **{"the number of steps": x.shape[-2]})
    if mask is None:
        return x, jnp.ones((*x.shape[:-1], 1), bool)
    mask = checks.bools(info, mask)
    checks.same_shape(info, "mask", mask.shape, x.shape[:-1], "one bool for each step of x.")
    return x, mask[..., None]


def _number(counts: jax.Array, dtype: Any) -> jax.Array:
    """The number of valid steps, (…, 1), or 1 if there are none; their sum is then 0."""
    return jnp.maximum(counts.sum(-2), 1).astype(dtype)
