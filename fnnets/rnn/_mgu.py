"""The minimal gated unit: a GRU with one gate that both forgets and resets."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Key, Layer, PyTree, describe
from fnnets.core.parameters import Initializer
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import dropped
from fnnets.rnn.recurrence import of_cell
from fnnets.rnn.run_options import DEFAULTS, RunOptions, options_of


class MGU(NamedTuple):
    """The parameters of `mgu`: blocks in the order f, n."""

    w: jax.Array  # (D, 2H)
    u: jax.Array  # (H, 2H)
    b: jax.Array | None  # (2H,); None without a bias


# A class attribute, as `fn.layer` describes. In the class body, a type checker would take it for a field.
MGU.blocks = dict.fromkeys("wub", ("f", "n"))  # type: ignore[attr-defined]


class MGUStep(NamedTuple):
    """What a step saves."""

    f: jax.Array  # (…, H)
    n: jax.Array  # (…, H)


class MGUFactors(NamedTuple):
    """The factors by which a backward step multiplies, (…, H) each. The forward pass fixes them."""

    f: jax.Array
    n: jax.Array  # f(1−n²), from dh to da_n
    output: jax.Array  # (n−h)·f(1−f), from dh to da_f
    reset: jax.Array  # h·f(1−f), from dk to da_f


def mgu(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    **run: Unpack[RunOptions],
) -> Layer:
    """A minimal gated unit (MGU) layer, with two thirds of a GRU's weights.

    Formula: on x_t (…, D) and h_{t−1} (…, H), in blocks f, n of H columns, with x̂ = x_t·w + b:

        f = σ(x̂_f + h_{t−1}·u_f)
        n = tanh(x̂_n + (f⊙h_{t−1})·u_n)
        h_t = (1−f)⊙h_{t−1} + f⊙n
        y_t = h_t

    Derivation: given dh of h_t (from step t+1 and from dy_t), with k = f⊙h_{t−1}:

        da_n = dh⊙f⊙(1−n²),  dk = da_n·u_nᵀ
        df = dh⊙(n − h_{t−1}) + dk⊙h_{t−1}             f weights the candidate, and the state in it
        da_f = df⊙f(1−f)
        dh_{t−1} = dh⊙(1−f) + dk⊙f + da_f·u_fᵀ

    Everything but the products is dh or dk times factors that the forward pass fixes. They are computed for all
    steps at once. After the loop, summed over all steps, with a = (a_f, a_n): dw = Σ_t x_tᵀda, db = Σ_t da, dx_t = da·wᵀ,
    du_f = Σ_t h_{t−1}ᵀda_f and du_n = Σ_t kᵀda_n.

    Args:
      features: H, the number of units.
      use_bias: whether the layer has a bias; otherwise `MGU.b` is None.
      kernel_init: `(key, shape, dtype) -> w`.
      recurrent_init: `(key, (H, H), dtype)` for each block of u.
      **run: memory, unroll, time_major, recurrent_dropout and variational, as in `fn.recurrent`.

    Returns:
      A `Layer` with params `MGU(w, u, b)` in blocks f, n, x (…, T, D) floats, y (…, T, H) in the dtype of the params,
      and the carry h (…, H).

    Raises:
      TypeError: x is not floating point; params or a carry belong to another layer.
      ValueError: shapes do not match.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.mgu(8), jnp.ones((4, 20, 3))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 20, 8)

    References:
      Zhou, Wu, Zhang & Zhou, Minimal gated unit for recurrent neural networks (2016).

    Differences: flax's `MGUCell` resets after the product, n = tanh(x̂_n + f⊙(h_{t−1}·u_n + b_n)), and there f
    weights the old state. Its bias starts at 1; here b starts at 0. This layer equals
    `fn.gru(reset="before", update="new")` with the same weights for r and z.
    """
    options = options_of(mgu, run)
    checks.positive("mgu", features=features)
    info = describe(mgu, features=features, use_bias=use_bias, defaults=DEFAULTS, **options._asdict())

    def init(key: Key, x: PyTree) -> MGU:
        dtype = jnp.result_type(float)
        w_key, *u_keys = jax.random.split(key, 3)
        w = kernel_init(w_key, (x.shape[-1], 2 * features), dtype)
        u = jnp.concatenate([recurrent_init(key, (features, features), dtype) for key in u_keys], -1)
        return MGU(w, u, jnp.zeros(2 * features, dtype) if use_bias else None)

    def start(params: MGU, batch: tuple[int, ...]) -> jax.Array:
        checks.node(info, params, MGU)
        return jnp.zeros((*batch, features), params.u.dtype)

    def project(params: MGU, x: jax.Array) -> jax.Array:
        checks.width(info, x, params.w.shape[0])
        z = x @ params.w
        return z if params.b is None else z + params.b

    def step(params: MGU, h: jax.Array, z: jax.Array, *, noise: Any = None) -> jax.Array:
        (u_f, u_n), (z_f, z_n), seen = halves(params.u), halves(z), dropped(h, noise)
        f = jax.nn.sigmoid(z_f + seen @ u_f)
        return (1 - f) * h + f * jnp.tanh(z_n + (f * seen) @ u_n)

    def forward(params: MGU, h: jax.Array, z: jax.Array, *, noise: Any = None) -> tuple[jax.Array, MGUStep]:
        (u_f, u_n), (z_f, z_n), seen = halves(params.u), halves(z), dropped(h, noise)
        f = jax.nn.sigmoid(z_f + seen @ u_f)
        n = jnp.tanh(z_n + (f * seen) @ u_n)
        return h + f * (n - h), MGUStep(f, n)

    def ready(params: MGU, h: jax.Array, saved: MGUStep, *, noise: Any = None) -> MGUFactors:
        del params
        f, n = saved
        slope = f * (1 - f)
        return MGUFactors(f, f * (1 - n * n), (n - h) * slope, dropped(h, noise) * slope)

    def backward(
        params: MGU, h: jax.Array, factors: MGUFactors, dh: jax.Array, *, noise: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        del h
        u_f, u_n = halves(params.u)
        da_n = dh * factors.n
        dk = da_n @ u_n.T
        da_f = dh * factors.output + dk * factors.reset
        through = dropped(dk * factors.f + da_f @ u_f.T, noise)
        return dh * (1 - factors.f) + through, jnp.concatenate([da_f, da_n], -1)

    def collect(
        params: MGU, x: jax.Array, h: jax.Array, saved: MGUStep, da: jax.Array, *, noise: Any = None
    ) -> tuple[MGU, jax.Array]:
        (da_f, da_n), seen = halves(da), dropped(h, noise)
        du = jnp.concatenate([outer_sum(seen, da_f), outer_sum(saved.f * seen, da_n)], -1)
        db = None if params.b is None else sum_leading(da)
        return MGU(outer_sum(x, da), du, db), da @ params.w.T

    def gates(h: jax.Array, saved: MGUStep) -> dict[str, jax.Array]:
        del h
        return {"f": saved.f, "n": (saved.n + 1) / 2}

    cell = Cell(init, start, project, step, forward, backward, collect, info, ready, gates)
    return of_cell(cell, info, options)


def halves(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The blocks f and n of the last axis."""
    f, n = jnp.split(a, 2, -1)
    return f, n
