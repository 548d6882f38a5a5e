"""The products of `products.py` where every input channel is a group of its own.

There is then no sum over channels: each place of the kernel adds one elementwise product. So written it is
several times faster than the compilers' grouped convolution on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.convolution.window import Axis

# Here x is (n, spatial…, I), w (*kernel, 1, I·m) and y (n, spatial…, I·m): each channel has m features. The sums
# over places and positions are taken in float32 at least.


def correlate(x: jax.Array, w: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """y[t, i, m] = Σ_k x[t·stride + k·dilation − low, i] · w[k, i, m]."""
    channels, dtype = x.shape[-1], _wide(x)
    w = w.reshape(*w.shape[:-2], channels, -1).astype(dtype)
    y = sum(part[..., None].astype(dtype) * w[k] for k, part in seen(x, axes))
    return y.reshape(*y.shape[:-2], -1).astype(x.dtype)  # type: ignore[union-attr]


def spread(y: jax.Array, w: jax.Array, axes: Sequence[Axis], channels: int) -> jax.Array:
    """x[j, i] = Σ_{t,k: t·stride + k·dilation − low = j} Σ_m w[k, i, m] · y[t, i, m]."""
    dtype = _wide(y)
    w = w.reshape(*w.shape[:-2], channels, -1).astype(dtype)
    parts = y.reshape(*y.shape[:-1], channels, -1).astype(dtype)
    return sum(_placed((parts * w[k]).sum(-1), k, axes) for k in places(axes)).astype(y.dtype)  # type: ignore[union-attr]


def kernel_sum(x: jax.Array, y: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """w[k, i, m] = Σ_{n,t} x[n, t·stride + k·dilation − low, i] · y[n, t, i, m]."""
    dtype, kernel = _wide(x), [axis.kernel for axis in axes]
    parts = y.reshape(*y.shape[:-1], x.shape[-1], -1).astype(dtype)
    rows = tuple(range(x.ndim - 1))
    w = jnp.stack([(part[..., None].astype(dtype) * parts).sum(rows) for _, part in seen(x, axes)])
    return w.reshape(*kernel, 1, -1).astype(x.dtype)


def places(axes: Sequence[Axis]) -> Iterator[tuple[int, ...]]:
    """The places of the kernel."""
    return np.ndindex(*[axis.kernel for axis in axes])


def seen(x: jax.Array, axes: Sequence[Axis]) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """For each place k what it sees from all positions: x[t·stride + k·dilation − low], of (n, spatial…, I)."""
    zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
    padded = jax.lax.pad(x, zero, [none, *[(axis.low, max(axis.high, 0), 0) for axis in axes], none])
    n, *_, channels = x.shape
    for k in places(axes):
        starts = [one * axis.dilation for one, axis in zip(k, axes, strict=True)]
        ends = [
            start + (axis.outputs - 1) * axis.stride + 1 for start, axis in zip(starts, axes, strict=True)
        ]
        strides = (1, *[axis.stride for axis in axes], 1)
        yield k, jax.lax.slice(padded, (0, *starts, 0), (n, *ends, channels), strides)


def _placed(part: jax.Array, k: tuple[int, ...], axes: Sequence[Axis]) -> jax.Array:
    """Zeros of the size of x with part[t] at t·stride + k·dilation − low; what falls outside is cut off."""
    none = (0, 0, 0)
    around = []
    for one, axis in zip(k, axes, strict=True):
        before = one * axis.dilation - axis.low
        around.append((before, axis.inputs - before - (axis.outputs - 1) * axis.stride - 1, axis.stride - 1))
    return jax.lax.pad(part, jnp.zeros((), part.dtype), [none, *around, none])


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
