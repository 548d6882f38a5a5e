"""The Jordan network: the context is the last output."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Layer, describe
from fnnets.core.parameters import Initializer
from fnnets.layers.activations.squashing import tanh
from fnnets.layers.shapes import identity
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import dropped
from fnnets.rnn.recurrence import of_cell
from fnnets.rnn.run_options import DEFAULTS, RunOptions, options_of
from fnnets.rnn.step_records import squashed


class Jordan(NamedTuple):
    """The parameters of `jordan`."""

    w: jax.Array  # (D, S), from the input to the hidden units
    u: jax.Array  # (F, S), from the last output to the hidden units
    b: jax.Array | None  # (S,); None without a bias
    v: jax.Array  # (S, F), from the hidden units to the output
    c: jax.Array | None  # (F,); None without a bias


class JordanGradient(NamedTuple):
    """The gradients that a backward step returns: those of the inputs of the two activations."""

    z: jax.Array  # (…, S)
    o: jax.Array  # (…, F)


class JordanStep(NamedTuple):
    """What a step saves."""

    s: jax.Array  # (…, S), the hidden units
    hidden: Any  # what the hidden activation saved
    output: Any  # what the output activation saved


def jordan(
    hidden: int,
    features: int,
    activation: Layer = tanh(),
    output_activation: Layer = identity(),
    *,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    **run: Unpack[RunOptions],
) -> Layer:
    """A Jordan network, whose context units hold the last output.

    Formula: s_t = f(x_t·w + y_{t−1}·u + b), y_t = g(s_t·v + c).

    Derivation: given dy of y_t (from step t+1 and from the loss), with z_t = x_t·w + y_{t−1}·u + b and
    o_t = s_t·v + c,

        do = g'(o)⊙dy                 g's own backward
        ds = do·vᵀ
        dz = f'(z)⊙ds                 f's own backward
        dy_{t−1} = dz·uᵀ

    After the loop, summed over all steps: dw = Σ_t x_tᵀdz, du = Σ_t y_{t−1}ᵀdz, db = Σ_t dz, dv = Σ_t s_tᵀdo,
    dc = Σ_t do, dx_t = dz·wᵀ.

    Args:
      hidden: S, the number of hidden units.
      features: F, the number of outputs and of context units.
      activation: f, a layer without params, such as `fn.tanh()`.
      output_activation: g, also a layer without params.
      use_bias: whether the layer has biases; otherwise b and c are None.
      kernel_init: `(key, shape, dtype)` for w and v.
      recurrent_init: `(key, (F, S), dtype) -> u`.
      **run: memory, unroll, time_major, recurrent_dropout and variational, as in `fn.recurrent`.

    Returns:
      A `Layer` with params `Jordan(w, u, b, v, c)`, x (…, T, D) floats, y (…, T, F) in the dtype of the params, and
      the carry y (…, F).

    Raises:
      TypeError: x is not floating point; params or a carry belong to another layer; an activation is not a `Layer`.
      ValueError: shapes do not match; an activation has params.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.jordan(8, 2), jnp.ones((4, 20, 3))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 20, 2)

    References:
      Jordan, Serial order: a parallel distributed processing approach (1986).

    Differences: Jordan's context units also keep part of their own last value. Here they copy the output, with weight 1.
    PyTorch, Keras and flax do not have this layer.
    """
    options = options_of(jordan, run)
    checks.positive("jordan", hidden=hidden, features=features)
    info = describe(
        jordan, hidden=hidden, features=features, activation=activation, output_activation=output_activation,
        use_bias=use_bias, defaults=DEFAULTS, **options._asdict(),
    )  # fmt: skip
    checks.activation(info, "activation", activation, Layer)
    checks.activation(info, "output_activation", output_activation, Layer)

    def init(key: Any, x: Any) -> Jordan:
        dtype = jnp.result_type(float)
        w_key, u_key, v_key = jax.random.split(key, 3)
        w = kernel_init(w_key, (x.shape[-1], hidden), dtype)
        u = recurrent_init(u_key, (features, hidden), dtype)
        v = kernel_init(v_key, (hidden, features), dtype)
        b, c = (jnp.zeros(n, dtype) if use_bias else None for n in (hidden, features))
        return Jordan(w, u, b, v, c)

    def start(params: Jordan, batch: tuple[int, ...]) -> jax.Array:
        checks.node(info, params, Jordan)
        return jnp.zeros((*batch, features), params.v.dtype)

    def project(params: Jordan, x: jax.Array) -> jax.Array:
        checks.width(info, x, params.w.shape[0])
        return with_bias(x @ params.w, params.b)

    def step(params: Jordan, y: jax.Array, z: jax.Array, *, noise: Any = None) -> jax.Array:
        s = activation.apply((), z + dropped(y, noise) @ params.u)
        return output_activation.apply((), with_bias(s @ params.v, params.c))

    def forward(
        params: Jordan, y: jax.Array, z: jax.Array, *, noise: Any = None
    ) -> tuple[jax.Array, JordanStep]:
        s, _, saved = activation.forward((), z + dropped(y, noise) @ params.u)
        y, _, kept = output_activation.forward((), with_bias(s @ params.v, params.c))
        return y, JordanStep(s, saved, kept)

    def backward(
        params: Jordan, y: jax.Array, saved: JordanStep, dy: jax.Array, *, noise: Any = None
    ) -> tuple[jax.Array, JordanGradient]:
        del y
        _, do, _ = output_activation.backward((), saved.output, dy)
        _, dz, _ = activation.backward((), saved.hidden, do @ params.v.T)
        return dropped(dz @ params.u.T, noise), JordanGradient(dz, do)

    def collect(
        params: Jordan,
        x: jax.Array,
        y: jax.Array,
        saved: JordanStep,
        dz: JordanGradient,
        *,
        noise: Any = None,
    ) -> tuple[Jordan, jax.Array]:
        db, dc = (sum_leading(dz.z), sum_leading(dz.o)) if use_bias else (None, None)
        du = outer_sum(dropped(y, noise), dz.z)
        return Jordan(outer_sum(x, dz.z), du, db, outer_sum(saved.s, dz.o), dc), dz.z @ params.w.T

    def gates(y: jax.Array, saved: JordanStep) -> dict[str, jax.Array]:
        return squashed(activation, "s", saved.s) | squashed(output_activation, "y", y)

    cell = Cell(init, start, project, step, forward, backward, collect, info, gates=gates)
    return of_cell(cell, info, options)


def with_bias(z: jax.Array, b: jax.Array | None) -> jax.Array:
    """z + b; z itself if b is None."""
    return z if b is None else z + b
