"""The Elman network, or simple RNN: the context is the last hidden state."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Layer, describe
from fnnets.core.parameters import Initializer
from fnnets.layers.activations.squashing import tanh
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import dropped
from fnnets.rnn.recurrence import of_cell
from fnnets.rnn.run_options import DEFAULTS, RunOptions, options_of
from fnnets.rnn.step_records import squashed


class Elman(NamedTuple):
    """The parameters of `elman`."""

    w: jax.Array  # (D, H)
    u: jax.Array  # (H, H)
    b: jax.Array | None  # (H,); None without a bias


def elman(
    features: int,
    activation: Layer = tanh(),
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    **run: Unpack[RunOptions],
) -> Layer:
    """An Elman network (simple RNN), whose context units hold the last hidden state.

    Formula: h_t = f(x_t·w + h_{t−1}·u + b), y_t = h_t. The network's output o_t = g(h_t·v + c) is a layer after it:
    `fn.serial(fn.elman(8), fn.dense(2), g)`.

    Derivation: given dh of h_t (from step t+1 and from dy_t),

        dz = f'(z)⊙dh                 f's own backward
        dh_{t−1} = dz·uᵀ

    After the loop, summed over all steps: dw = Σ_t x_tᵀdz, du = Σ_t h_{t−1}ᵀdz, db = Σ_t dz, dx_t = dz·wᵀ. Unrolled,
    du = Σ_t Σ_{k≤t} ∂E_t/∂h_t (Π_{j=k+1..t} ∂h_j/∂h_{j−1}) ∂⁺h_k/∂u. Each factor is diag(f')·uᵀ, so the product
    vanishes or explodes as t − k grows.

    Args:
      features: H, the number of units.
      activation: f, a layer without params, such as `fn.tanh()`, `fn.sigmoid()` or `fn.relu()`.
      use_bias: whether the layer has a bias; otherwise `Elman.b` is None.
      kernel_init: `(key, shape, dtype) -> w`.
      recurrent_init: `(key, (H, H), dtype) -> u`.
      **run: memory, unroll, time_major, recurrent_dropout and variational, as in `fn.recurrent`.

    Returns:
      A `Layer` with params `Elman(w, u, b)`, x (…, T, D) floats, y (…, T, H) in the dtype of the params, and the
      carry h (…, H).

    Raises:
      TypeError: x is not floating point; params or a carry belong to another layer; activation is not a `Layer`.
      ValueError: shapes do not match; activation has params.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.elman(8, fn.relu()), jnp.ones((4, 20, 3))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 20, 8)

    References:
      Elman, Finding structure in time, Cognitive Science 14 (1990); Bengio, Simard & Frasconi, Learning long-term
      dependencies with gradient descent is difficult (1994), for the product of the factors.

    Differences: PyTorch has two biases, whose sum is b. u starts orthogonal, as in Keras; PyTorch draws it from a uniform
    distribution.
    """
    options = options_of(elman, run)
    checks.positive("elman", features=features)
    info = describe(
        elman, features=features, activation=activation, use_bias=use_bias, defaults=DEFAULTS, **options._asdict(),
    )  # fmt: skip
    checks.activation(info, "activation", activation, Layer)

    def init(key: Any, x: Any) -> Elman:
        dtype = jnp.result_type(float)
        w_key, u_key = jax.random.split(key)
        w = kernel_init(w_key, (x.shape[-1], features), dtype)
        u = recurrent_init(u_key, (features, features), dtype)
        return Elman(w, u, jnp.zeros(features, dtype) if use_bias else None)

    def start(params: Elman, batch: tuple[int, ...]) -> jax.Array:
        checks.node(info, params, Elman)
        return jnp.zeros((*batch, features), params.u.dtype)

    def project(params: Elman, x: jax.Array) -> jax.Array:
        checks.width(info, x, params.w.shape[0])
        z = x @ params.w
        return z if params.b is None else z + params.b

    def step(params: Elman, h: jax.Array, z: jax.Array, *, noise: Any = None) -> jax.Array:
        return activation.apply((), z + dropped(h, noise) @ params.u)

    def forward(params: Elman, h: jax.Array, z: jax.Array, *, noise: Any = None) -> tuple[jax.Array, Any]:
        h, _, saved = activation.forward((), z + dropped(h, noise) @ params.u)
        return h, saved

    def backward(
        params: Elman, h: jax.Array, saved: Any, dh: jax.Array, *, noise: Any = None
    ) -> tuple[jax.Array, jax.Array]:
        del h
        _, dz, _ = activation.backward((), saved, dh)
        return dropped(dz @ params.u.T, noise), dz

    def collect(
        params: Elman, x: jax.Array, h: jax.Array, saved: Any, dz: jax.Array, *, noise: Any = None
    ) -> tuple[Elman, jax.Array]:
        del saved
        db = None if params.b is None else sum_leading(dz)
        return Elman(outer_sum(x, dz), outer_sum(dropped(h, noise), dz), db), dz @ params.w.T

    def gates(h: jax.Array, saved: Any) -> dict[str, jax.Array]:
        del saved
        return squashed(activation, "h", h)

    cell = Cell(init, start, project, step, forward, backward, collect, info, gates=gates)
    return of_cell(cell, info, options)
