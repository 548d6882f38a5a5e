"""Long short-term memory: plain, with peepholes, or with coupled gates."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.arrays import outer_sum, sum_leading
from fnnets.core.layer import Layer, describe
from fnnets.core.parameters import Initializer
from fnnets.rnn.cell import Cell
from fnnets.rnn.noise import dropped
from fnnets.rnn.recurrence import of_cell
from fnnets.rnn.run_options import DEFAULTS, RunOptions, options_of


class LSTM(NamedTuple):
    """The parameters of `lstm`: blocks in the order i, f, g, o."""

    w: jax.Array  # (D, 4H)
    u: jax.Array  # (H, 4H)
    b: jax.Array | None  # (4H,); None without a bias
    p: jax.Array | None  # (3, H), the peepholes of i, f, o; None without peepholes


class CoupledLSTM(NamedTuple):
    """The parameters of `lstm(coupled=True)`, where f = 1 − i: blocks in the order i, g, o."""

    w: jax.Array  # (D, 3H)
    u: jax.Array  # (H, 3H)
    b: jax.Array | None  # (3H,); None without a bias
    p: jax.Array | None  # (2, H), the peepholes of i, o; None without peepholes


# A class attribute, as `fn.layer` describes. In the class body, a type checker would take it for a field.
LSTM.blocks = dict.fromkeys("wub", ("i", "f", "g", "o")) | {"p": ("i", "f", "o")}  # type: ignore[attr-defined]
CoupledLSTM.blocks = dict.fromkeys("wub", ("i", "g", "o")) | {"p": ("i", "o")}  # type: ignore[attr-defined]


class LSTMCarry(NamedTuple):
    """The state that a step of `lstm` passes to the next step."""

    h: jax.Array  # (…, H), the output
    c: jax.Array  # (…, H), the cell's state


class LSTMFactors(NamedTuple):
    """The factors by which a backward step multiplies."""

    s: jax.Array  # (…, 4H), from dc to dz; in block o, from dh
    s_c: jax.Array  # (…, H), from dh to dc
    k: jax.Array  # (…, H), from dc to dc of the step before


def lstm(
    features: int,
    *,
    peephole: bool = False,
    coupled: bool = False,
    forget_bias: float = 1.0,
    use_bias: bool = True,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    **run: Unpack[RunOptions],
) -> Layer:
    """A long short-term memory (LSTM) layer.

    Formula: on x_t (…, D), h_{t−1} and c_{t−1} (…, H), in blocks of H columns,

        z = x_t·w + h_{t−1}·u + b
        i = σ(z_i), f = σ(z_f), g = tanh(z_g), o = σ(z_o)
        c_t = f⊙c_{t−1} + i⊙g,  h_t = o⊙tanh(c_t),  y_t = h_t

    peephole adds p_i⊙c_{t−1} to z_i, p_f⊙c_{t−1} to z_f and p_o⊙c_t to z_o. With coupled there is no forget
    block: f = 1 − i, so the cell forgets exactly where it writes.

    Derivation: given dh and dc of h_t and c_t (from step t+1 and from dy_t), with q = tanh(c_t), σ' = σ(1−σ):

        do = dh⊙q                     dz_o = do⊙o(1−o)
        dc ← dc + dh⊙o⊙(1−q²)         (peephole: + dz_o⊙p_o, as o sees c_t)
        di = dc⊙g  (coupled: dc⊙(g − c_{t−1}), as ∂f/∂i = −1)
        df = dc⊙c_{t−1},  dg = dc⊙i   dz_i = di⊙i(1−i), dz_f = df⊙f(1−f), dz_g = dg⊙(1−g²)
        dc_{t−1} = dc⊙f               (peephole: + dz_i⊙p_i + dz_f⊙p_f, as i and f see c_{t−1})
        dh_{t−1} = dz·uᵀ

    This is linear in dh and dc, with factors that the forward pass fixes. They are computed for all steps at once:

        s_i = g⊙i(1−i), s_f = c_{t−1}⊙f(1−f), s_g = i⊙(1−g²), s_o = q⊙o(1−o)
        s_c = o⊙(1−q²) + s_o⊙p_o,  k = f + s_i⊙p_i + s_f⊙p_f

    A step then has four lines: dc ← dc + dh⊙s_c; dz = (dc, dc, dc, dh)⊙s; dc_{t−1} = dc⊙k; dh_{t−1} = dz·uᵀ.
    After the loop, summed over all steps: dw = Σ_t x_tᵀdz, du = Σ_t h_{t−1}ᵀdz, db = Σ_t dz, dx_t = dz·wᵀ,
    dp_i = Σ_t dz_i⊙c_{t−1}, dp_f likewise, dp_o = Σ_t dz_o⊙c_t.

    In forward mode, d∗ is a change of ∗. The same factors apply in the opposite order. Before the loop, the changes of
    the params and of x give dz for all steps: dz = x·dw + dx·w + h_{t−1}·du + db, plus c_{t−1}⊙dp_i, c_{t−1}⊙dp_f and
    c_t⊙dp_o in the blocks i, f and o. Then, step by step,

        dz ← dz + dh_{t−1}·u
        dc_t = dc_{t−1}⊙k + s_i⊙dz_i + s_f⊙dz_f + s_g⊙dz_g     (coupled: no term of f)
        dh_t = dc_t⊙s_c + s_o⊙dz_o

    This is the backward step read from right to left: each factor is a derivative, and both directions use it.

    Args:
      features: H, the number of units.
      peephole: whether the gates see the cell state c. Each unit sees only its own.
      coupled: whether the forget gate is f = 1 − i.
      forget_bias: the initial value of the forget block of b.
      use_bias: whether the layer has a bias; otherwise b is None.
      kernel_init: `(key, shape, dtype) -> w`.
      recurrent_init: `(key, (H, H), dtype)` for each block of u.
      **run: memory, unroll, time_major, recurrent_dropout and variational, as in `fn.recurrent`.

    Returns:
      A `Layer` with params `LSTM(w, u, b, p)` in blocks i, f, g, o, or `CoupledLSTM(w, u, b, p)` in blocks i, g, o;
      x (…, T, D) floats, y (…, T, H) in the dtype of the params, and the carry `LSTMCarry(h, c)`, (…, H) each.

    Raises:
      TypeError: x is not floating point; params or a carry belong to another layer.
      ValueError: shapes do not match; a setting is out of range.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.lstm(128), jnp.ones((4, 28, 28))
      >>> params = net.init(jax.random.key(0), x)
      >>> net.apply(params, x).shape, fn.count_params(params) == (128 + 28) * (128 * 4) + 512
      ((4, 28, 128), True)

    References:
      Hochreiter & Schmidhuber, Long short-term memory (1997); Gers, Schmidhuber & Cummins, Learning to
      forget (2000); Gers & Schmidhuber, Recurrent nets that time and count (2000), the peepholes; Greff et
      al., LSTM: a search space odyssey (2017), eqs. in section 2 and CIFG, the coupled gates.

    Differences: PyTorch has two biases, whose sum is b, and stores transposed kernels. Keras and PyTorch also use the
    order i, f, g, o; flax and haiku use i, g, f, o. haiku adds its forget bias of 1 at every call; here b contains it.
    With peepholes, dc_{t−1} is that of Greff et al.
    """
    options = options_of(lstm, run)
    checks.positive("lstm", features=features)
    info = describe(
        lstm, features=features, peephole=peephole, coupled=coupled, forget_bias=forget_bias, use_bias=use_bias,
        defaults=DEFAULTS, **options._asdict(),
    )  # fmt: skip
    kind: Any = CoupledLSTM if coupled else LSTM
    names = kind.blocks["w"]
    n, peepholes = len(names), len(kind.blocks["p"])

    def init(key: Any, x: Any) -> Any:
        dtype = jnp.result_type(float)
        w_key, *u_keys = jax.random.split(key, n + 1)
        w = kernel_init(w_key, (x.shape[-1], n * features), dtype)
        u = jnp.concatenate([recurrent_init(key, (features, features), dtype) for key in u_keys], -1)
        b = jnp.repeat(jnp.array([forget_bias * (name == "f") for name in names], dtype), features)
        p = jnp.zeros((peepholes, features), dtype)
        return kind(w, u, b if use_bias else None, p if peephole else None)

    def start(params: Any, batch: tuple[int, ...]) -> LSTMCarry:
        checks.node(info, params, kind)
        zeros = jnp.zeros((*batch, features), params.u.dtype)
        return LSTMCarry(zeros, zeros)

    def project(params: Any, x: jax.Array) -> jax.Array:
        checks.width(info, x, params.w.shape[0])
        return x @ params.w  # the gates add the bias, which saves a pass over z

    def split_gates(z: jax.Array) -> list[jax.Array]:
        """The blocks i, f, g, o. Where coupled, f is the block i, and f = 1 − i is computed from i."""
        blocks = jnp.split(z, n, -1)
        return [blocks[0], *blocks] if coupled else blocks

    def before_gates(params: Any, h: jax.Array, z: jax.Array, noise: Any) -> jax.Array:
        z = z + dropped(h, noise) @ params.u
        return z if params.b is None else z + params.b

    def step(params: Any, carry: LSTMCarry, z: jax.Array, *, noise: Any = None) -> LSTMCarry:
        h, c = carry
        z_i, z_f, z_g, z_o = split_gates(before_gates(params, h, z, noise))
        if peephole:
            z_i, z_f = z_i + params.p[0] * c, z_f + params.p[1 - coupled] * c
        i, g = jax.nn.sigmoid(z_i), jnp.tanh(z_g)
        f = 1 - i if coupled else jax.nn.sigmoid(z_f)
        c = f * c + i * g
        o = jax.nn.sigmoid(z_o + params.p[-1] * c if peephole else z_o)
        return LSTMCarry(o * jnp.tanh(c), c)

    def gates(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        i, f, g, o = split_gates(a)
        return i, 1 - i if coupled else f, g, o

    def forward(params: Any, carry: LSTMCarry, z: jax.Array, *, noise: Any = None) -> tuple[LSTMCarry, Any]:
        h, c = carry
        z = before_gates(params, h, z, noise)
        if not peephole:
            i, f, g, o = gates(a := squash(z, names))
            c = f * c + i * g
            return LSTMCarry(o * jnp.tanh(c), c), a
        blocks = jnp.split(z, n, -1)
        for k in range(peepholes - 1):  # i, and f unless coupled
            blocks[k] = blocks[k] + params.p[k] * c
        a = squash(jnp.concatenate(blocks[:-1], -1), names[:-1])
        i, f, g, _ = gates(jnp.concatenate([a, blocks[-1]], -1))
        c = f * c + i * g
        o = squash(blocks[-1] + params.p[-1] * c, names[-1:])
        return LSTMCarry(o * jnp.tanh(c), c), jnp.concatenate([a, o], -1)

    def ready(params: Any, carry: LSTMCarry, a: jax.Array) -> LSTMFactors:
        i, f, g, o = gates(a)
        q = jnp.tanh(f * carry.c + i * g)
        s_i = (g - carry.c if coupled else g) * i * (1 - i)
        s_f = carry.c * f * (1 - f)
        s_g = i * (1 - g * g)
        s_o = q * o * (1 - o)
        s_c, k = o * (1 - q * q), f
        if peephole:
            s_c = s_c + s_o * params.p[-1]
            k = k + s_i * params.p[0] + (0 if coupled else s_f * params.p[1])
        return LSTMFactors(jnp.concatenate([s_i, s_g, s_o] if coupled else [s_i, s_f, s_g, s_o], -1), s_c, k)

    def backward(
        params: Any, carry: LSTMCarry, factors: LSTMFactors, dcarry: LSTMCarry, *, noise: Any = None
    ) -> tuple[LSTMCarry, jax.Array]:
        del carry
        (s, s_c, k), (dh, dc) = factors, dcarry
        dc = dc + dh * s_c
        dz = jnp.concatenate([dc] * (n - 1) + [dh], -1) * s
        return LSTMCarry(dropped(dz @ params.u.T, noise), dc * k), dz

    def collect(
        params: Any, x: jax.Array, carry: LSTMCarry, a: jax.Array, dz: jax.Array, *, noise: Any = None
    ) -> tuple[Any, jax.Array]:
        dp = None
        if peephole:
            i, f, g, _ = gates(a)
            dz_i, dz_f, _, dz_o = split_gates(dz)
            seen = [dz_i * carry.c, *([] if coupled else [dz_f * carry.c]), dz_o * (f * carry.c + i * g)]
            dp = jnp.stack([sum_leading(part) for part in seen])
        db = None if params.b is None else sum_leading(dz)
        return kind(outer_sum(x, dz), outer_sum(dropped(carry.h, noise), dz), db, dp), dz @ params.w.T

    def spread(
        params: Any,
        x: jax.Array,
        carry: LSTMCarry,
        a: jax.Array,
        dparams: Any,
        dx: jax.Array,
        *,
        noise: Any = None,
    ) -> jax.Array:
        dz = x @ dparams.w + dx @ params.w + dropped(carry.h, noise) @ dparams.u
        if params.b is not None:
            dz = dz + dparams.b
        if peephole:
            i, f, g, _ = gates(a)
            seen = [carry.c] * (peepholes - 1) + [f * carry.c + i * g]
            *parts, last = [c * dp for c, dp in zip(seen, dparams.p, strict=True)]
            dz = dz + jnp.concatenate([*parts, jnp.zeros_like(last), last], -1)
        return dz

    def tangent(
        params: Any,
        carry: LSTMCarry,
        factors: LSTMFactors,
        dcarry: LSTMCarry,
        dz: jax.Array,
        *,
        noise: Any = None,
    ) -> LSTMCarry:
        del carry
        (s, s_c, k), (dh, dc) = factors, dcarry
        *of_c, of_h = jnp.split((dz + dropped(dh, noise) @ params.u) * s, n, -1)
        dc = sum(of_c, dc * k)
        return LSTMCarry(dc * s_c + of_h, dc)

    def gates_by_name(carry: LSTMCarry, a: jax.Array) -> dict[str, jax.Array]:
        del carry
        values = zip(names, jnp.split(a, n, -1), strict=True)
        return {name: (value + 1) / 2 if name == "g" else value for name, value in values}

    cell = Cell(
        init, start, project, step, forward, backward, collect, info, ready, gates_by_name,
        spread=spread, tangent=tangent,
    )  # fmt: skip
    return of_cell(cell, info, options)


def squash(z: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """All gates at once, with one tanh: σ(z) = ½·tanh(z/2) + ½, and tanh(z) for the block g."""
    width = z.shape[-1] // len(names)
    half = jnp.asarray(np.repeat([1.0 if name == "g" else 0.5 for name in names], width), z.dtype)
    return half * jnp.tanh(half * z) + (1 - half)
