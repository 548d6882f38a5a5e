"""The gated recurrent unit, with both reset and both update conventions."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Layer, describe
from fnnets.core.parameters import Initializer
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import dropped
from fnnets.rnn.recurrence import of_cell
from fnnets.rnn.run_options import DEFAULTS, RunOptions, options_of


class GRU(NamedTuple):
    """The parameters of `gru`: blocks in the order r, z, n."""

    w: jax.Array  # (D, 3H)
    u: jax.Array  # (H, 3H)
    b: jax.Array | None  # (3H,); None without a bias
    b_n: jax.Array | None  # (H,), the candidate's recurrent bias; None without a bias, or with reset="before"


# A class attribute, as `fn.layer` describes. In the class body, a type checker would take it for a field.
GRU.blocks = dict.fromkeys("wub", ("r", "z", "n"))  # type: ignore[attr-defined]


class GRUStep(NamedTuple):
    """What a step saves."""

    rz: jax.Array  # (…, 2H), r and z
    n: jax.Array  # (…, H)
    m: Any  # (…, H), h·u_n + b_n, which r multiplies; None with reset="before"


class GRUFactors(NamedTuple):
    """The factors by which a backward step multiplies."""

    s: jax.Array  # (…, 3H), for r, z and m; (…, 2H), for r and z, with reset="before"
    s_n: jax.Array  # (…, H)
    keep: jax.Array  # (…, H), the weight of the old state
    r: Any  # (…, H), with reset="before"; None otherwise


class GRUGradient(NamedTuple):
    """The gradients that a backward step returns."""

    rzm: jax.Array  # (…, 3H), of a_r, a_z and m; (…, 2H), of a_r and a_z, with reset="before"
    n: jax.Array  # (…, H), of a_n


def gru(
    features: int,
    *,
    reset: Literal["before", "after"] = "after",
    update: Literal["new", "old"] = "old",
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    **run: Unpack[RunOptions],
) -> Layer:
    """A gated recurrent unit (GRU) layer.

    Formula: on x_t (…, D) and h_{t−1} (…, H), in blocks r, z, n of H columns, with x̂ = x_t·w + b:

        r = σ(x̂_r + h_{t−1}·u_r),  z = σ(x̂_z + h_{t−1}·u_z)
        n = tanh(x̂_n + r⊙(h_{t−1}·u_n + b_n))      reset="after"
        n = tanh(x̂_n + (r⊙h_{t−1})·u_n)            reset="before"
        h_t = z⊙h_{t−1} + (1−z)⊙n                  update="old": z weights the old state
        h_t = (1−z)⊙h_{t−1} + z⊙n                  update="new": z weights the candidate
        y_t = h_t

    The defaults are those of PyTorch, cuDNN and Keras, so their weights can be used here. "after" needs one product
    per step; "before" needs two, one after the other.

    Derivation: given dh of h_t (from step t+1 and from dy_t), for update="old":

        dz = dh⊙(h_{t−1} − n)         ("new": the opposite sign)
        dn = dh⊙(1−z), dh_{t−1} = dh⊙z     ("new": z and 1−z swapped)
        da_n = dn⊙(1−n²)
        after:   m = h_{t−1}·u_n + b_n:  dr = da_n⊙m,  dm = da_n⊙r
        before:  k = r⊙h_{t−1}:  dk = da_n·u_nᵀ,  dr = dk⊙h_{t−1},  dh_{t−1} += dk⊙r
        da_r = dr⊙r(1−r), da_z = dz⊙z(1−z)
        dh_{t−1} += (da_r, da_z)·(u_r, u_z)ᵀ  and, after, + dm·u_nᵀ

    Everything but the products is dh times factors that the forward pass fixes. They are computed for all steps at
    once. After the loop, summed over all steps, with a = (a_r, a_z, a_n): dw = Σ_t x_tᵀda, db = Σ_t da, dx_t = da·wᵀ,
    (du_r, du_z) = Σ_t h_{t−1}ᵀ(da_r, da_z), du_n = Σ_t h_{t−1}ᵀdm and db_n = Σ_t dm (after) or Σ_t kᵀda_n (before).

    Args:
      features: H, the number of units.
      reset: whether r multiplies the state "before" its product with u_n (the original), or the product, "after" it.
      update: whether z weights the "new" candidate (Chung et al.), or the "old" state (Cho et al.).
      use_bias: whether the layer has biases; otherwise b and b_n are None.
      kernel_init: `(key, shape, dtype) -> w`.
      recurrent_init: `(key, (H, H), dtype)` for each block of u.
      **run: memory, unroll, time_major, recurrent_dropout and variational, as in `fn.recurrent`.

    Returns:
      A `Layer` with params `GRU(w, u, b, b_n)` in blocks r, z, n, x (…, T, D) floats, y (…, T, H) in the dtype of
      the params, and the carry h (…, H).

    Raises:
      TypeError: x is not floating point; params or a carry belong to another layer.
      ValueError: shapes do not match; reset or update is not one of its values.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.gru(8), jnp.ones((4, 20, 3))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 20, 8)

    References:
      Cho et al., Learning phrase representations using RNN encoder-decoder (2014), eqs. 5-8, where z weights the old
      state and the reset comes before the product; Chung et al., Empirical evaluation of gated recurrent neural networks (2014),
      eqs. 4-8, where z weights the candidate.

    Differences: the order r, z, n is PyTorch's; Keras uses z, r, n. In PyTorch r and z have two biases each; b is their
    sum. haiku uses reset="before" and update="new"; flax "after" and "old".
    """
    options = options_of(gru, run)
    checks.positive("gru", features=features)
    checks.choice("gru", "reset", reset, ("before", "after"))
    checks.choice("gru", "update", update, ("new", "old"))
    info = describe(
        gru, features=features, reset=reset, update=update, use_bias=use_bias, defaults=DEFAULTS, **options._asdict(),
    )  # fmt: skip
    after, old, both = reset == "after", update == "old", 2 * features

    def init(key: Any, x: Any) -> GRU:
        dtype = jnp.result_type(float)
        w_key, *u_keys = jax.random.split(key, 4)
        w = kernel_init(w_key, (x.shape[-1], 3 * features), dtype)
        u = jnp.concatenate([recurrent_init(key, (features, features), dtype) for key in u_keys], -1)
        b = jnp.zeros(3 * features, dtype) if use_bias else None
        return GRU(w, u, b, jnp.zeros(features, dtype) if use_bias and after else None)

    def start(params: GRU, batch: tuple[int, ...]) -> jax.Array:
        checks.node(info, params, GRU)
        return jnp.zeros((*batch, features), params.u.dtype)

    def project(params: GRU, x: jax.Array) -> jax.Array:
        checks.width(info, x, params.w.shape[0])
        return x @ params.w  # the gates add the bias, which saves a pass over z

    def with_bias(params: GRU, x: jax.Array) -> jax.Array:
        return x if params.b is None else x + params.b

    def step(params: GRU, h: jax.Array, x: jax.Array, *, noise: Any = None) -> jax.Array:
        u_r, u_z, u_n = jnp.split(params.u, 3, -1)
        x_r, x_z, x_n = jnp.split(with_bias(params, x), 3, -1)
        seen = dropped(h, noise)
        r, z = jax.nn.sigmoid(x_r + seen @ u_r), jax.nn.sigmoid(x_z + seen @ u_z)
        m = seen @ u_n if params.b_n is None else seen @ u_n + params.b_n
        n = jnp.tanh(x_n + (r * m if after else (r * seen) @ u_n))
        return z * h + (1 - z) * n if old else (1 - z) * h + z * n

    def forward(params: GRU, h: jax.Array, x: jax.Array, *, noise: Any = None) -> tuple[jax.Array, GRUStep]:
        seen, x = dropped(h, noise), with_bias(params, x)
        product = seen @ (params.u if after else params.u[:, :both])
        rz = 0.5 * jnp.tanh(0.5 * (x[..., :both] + product[..., :both])) + 0.5  # σ, with one tanh for both
        r, z = jnp.split(rz, 2, -1)
        m: Any = product[..., both:] if after else None
        if params.b_n is not None:
            m = m + params.b_n
        n = jnp.tanh(x[..., both:] + (r * m if after else (r * seen) @ params.u[:, both:]))
        return n + z * (h - n) if old else h + z * (n - h), GRUStep(rz, n, m)

    def ready(params: GRU, h: jax.Array, saved: GRUStep, *, noise: Any = None) -> GRUFactors:
        del params
        (r, z), n = jnp.split(saved.rz, 2, -1), saved.n
        keep = z if old else 1 - z
        s_z = (h - n if old else n - h) * z * (1 - z)
        s_n = (1 - keep) * (1 - n * n)
        if after:
            return GRUFactors(
                jnp.concatenate([s_n * saved.m * r * (1 - r), s_z, s_n * r], -1), s_n, keep, None
            )
        return GRUFactors(jnp.concatenate([dropped(h, noise) * r * (1 - r), s_z], -1), s_n, keep, r)

    def backward(
        params: GRU, h: jax.Array, factors: GRUFactors, dh: jax.Array, *, noise: Any = None
    ) -> tuple[jax.Array, GRUGradient]:
        del h
        s, s_n, keep, r = factors
        da_n = dh * s_n
        if after:  # s of r, z and m, each times dh
            d = jnp.concatenate([dh] * 3, -1) * s
            return dh * keep + dropped(d @ params.u.T, noise), GRUGradient(d, da_n)
        dk = da_n @ params.u[:, both:].T  # s of r times dk, s of z times dh
        d = jnp.concatenate([dk, dh], -1) * s
        return dh * keep + dropped(dk * r + d @ params.u[:, :both].T, noise), GRUGradient(d, da_n)

    def of_product(dz: GRUGradient) -> jax.Array:
        return jnp.concatenate([dz.rzm[..., :both], dz.n], -1)

    def collect(
        params: GRU, x: jax.Array, h: jax.Array, saved: GRUStep, dz: GRUGradient, *, noise: Any = None
    ) -> tuple[GRU, jax.Array]:
        seen = dropped(h, noise)
        da = of_product(dz)
        if after:
            du = outer_sum(seen, dz.rzm)
        else:
            k = saved.rz[..., :features] * seen
            du = jnp.concatenate([outer_sum(seen, dz.rzm), outer_sum(k, dz.n)], -1)
        db = None if params.b is None else sum_leading(da)
        db_n = None if params.b_n is None else sum_leading(dz.rzm[..., both:])
        return GRU(outer_sum(x, da), du, db, db_n), da @ params.w.T

    def gates(h: jax.Array, saved: GRUStep) -> dict[str, jax.Array]:
        del h
        r, z = jnp.split(saved.rz, 2, -1)
        return {"r": r, "z": z, "n": (saved.n + 1) / 2}

    def shown(dz: GRUGradient) -> dict[str, jax.Array]:
        m = {"m": dz.rzm[..., both:]} if after else {}
        return {"z": of_product(dz), **m}

    cell = Cell(init, start, project, step, forward, backward, collect, info, ready, gates, shown)
    return of_cell(cell, info, options)
