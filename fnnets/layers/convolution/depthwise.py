"""The products of `products.py` if every input channel is its own group.

There is then no sum over channels: each place of the kernel adds one elementwise product. On a CPU, this is several
times faster than the compiler's grouped convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core.arrays import float32_or_wider
from fnnets.layers.convolution.geometry import Axis

# Here x is (n, spatial…, I), w (*kernel, 1, I·m) and y (n, spatial…, I·m). Each channel i has m features: the channels
# o = i·m … i·m + m − 1 of y. Sums are taken in at least float32, as inside a convolution.


def correlate(x: jax.Array, w: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """y[t, o] = Σ_k x[t·stride + k·dilation − low, ⌊o/m⌋] · w[k, o]."""
    wide = float32_or_wider(x.dtype)
    x_o = _repeated(x, w.shape[-1])
    y = sum(part.astype(wide) * w[k][0].astype(wide) for k, part in values_at_places(x_o, axes))
    return jnp.asarray(y, x.dtype)


def spread(y: jax.Array, w: jax.Array, axes: Sequence[Axis], channels: int) -> jax.Array:
    """x[j, i] = Σ_{t,k: t·stride + k·dilation − low = j} Σ_{o: ⌊o/m⌋ = i} w[k, o] · y[t, o]."""
    wide, m = float32_or_wider(y.dtype), y.shape[-1] // channels
    y_m = jnp.moveaxis(y.reshape(*y.shape[:-1], channels, m), -1, 0).astype(wide)
    w_m = jnp.moveaxis(w.reshape(*w.shape[:-2], channels, m), -1, 0).astype(wide)
    if m > 1:
        # Every place of the kernel reads it; the barrier makes XLA transpose it only once.
        y_m = jax.lax.optimization_barrier(y_m)
    x = sum(_placed(y_m[j] * w_m[(j, *k)], k, axes) for j in range(m) for k in places(axes))
    return jnp.asarray(x, y.dtype)


def kernel_sum(x: jax.Array, y: jax.Array, axes: Sequence[Axis]) -> jax.Array:
    """w[k, o] = Σ_{n,t} x[n, t·stride + k·dilation − low, ⌊o/m⌋] · y[n, t, o]."""
    wide, rows = float32_or_wider(x.dtype), tuple(range(x.ndim - 1))
    x_o = _repeated(x, y.shape[-1])
    w = jnp.stack([(part.astype(wide) * y.astype(wide)).sum(rows) for _, part in values_at_places(x_o, axes)])
    return w.reshape(*[axis.kernel for axis in axes], 1, -1).astype(x.dtype)


def places(axes: Sequence[Axis]) -> Iterator[tuple[int, ...]]:
    """The index tuples of the kernel's places."""
    return np.ndindex(*[axis.kernel for axis in axes])


def values_at_places(x: jax.Array, axes: Sequence[Axis]) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """For each place k of the kernel, its values at all positions t: x[t·stride + k·dilation − low]."""
    zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
    padded = jax.lax.pad(x, zero, [none, *[(axis.low, max(axis.high, 0), 0) for axis in axes], none])
    n, *_, channels = x.shape
    for k in places(axes):
        starts = [index * axis.dilation for index, axis in zip(k, axes, strict=True)]
        ends = [
            start + (axis.outputs - 1) * axis.stride + 1 for start, axis in zip(starts, axes, strict=True)
        ]
        strides = (1, *[axis.stride for axis in axes], 1)
        yield k, jax.lax.slice(padded, (0, *starts, 0), (n, *ends, channels), strides)


def _repeated(x: jax.Array, features: int) -> jax.Array:
    """Repeats each channel once for each of its features."""
    times = features // x.shape[-1]
    # Every place of the kernel reads it; the barrier makes XLA compute it only once.
    return x if times == 1 else jax.lax.optimization_barrier(jnp.repeat(x, times, -1))


def _placed(part: jax.Array, k: tuple[int, ...], axes: Sequence[Axis]) -> jax.Array:
    """Zeros of the size of x with part[t] at t·stride + k·dilation − low; entries outside are cut off."""
    none = (0, 0, 0)
    around = []
    for index, axis in zip(k, axes, strict=True):
        before = index * axis.dilation - axis.low
        around.append((before, axis.inputs - before - (axis.outputs - 1) * axis.stride - 1, axis.stride - 1))
    return jax.lax.pad(part, jnp.zeros((), part.dtype), [none, *around, none])
