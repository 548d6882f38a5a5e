"""Your own recurrent cell, its backward step, and the report on mistakes in it: `python examples/studies/own_cell.py`.

The cell is the minimal gated unit of Zhou et al. (2016), which the library has as `fn.mgu`: one gate sets how much of the
state is replaced, and how much of it the candidate sees. For x_t (D,) and h_{t−1} (H,), with ⊙ the elementwise product,

    f = σ(x_t·w_f + h_{t−1}·u_f + b_f)
    k = f⊙h_{t−1}
    n = tanh(x_t·w_n + k·u_n + b_n)
    h_t = (1 − f)⊙h_{t−1} + f⊙n

Derivation of one backward step, from dh = ∂E/∂h_t, which includes all later steps. In h_t, n occurs once, and f and
h_{t−1} occur twice each; in k, f and h_{t−1} occur once more; and h_{t−1} occurs in f:

    dn = dh⊙f                      da_n = dn⊙(1 − n²)
    dk = da_n·u_nᵀ
    df = dh⊙(n − h_{t−1}) + dk⊙h_{t−1}      da_f = df⊙f(1 − f)
    dh_{t−1} = dh⊙(1 − f) + dk⊙f + da_f·u_fᵀ

and after the last backward step, for all t at once: dw = Σ_t x_tᵀda, du_f = Σ_t h_{t−1}ᵀda_f, du_n = Σ_t kᵀda_n,
db = Σ_t da, dx_t = da·wᵀ, with a = [a_f, a_n].

`fn.Cell` holds these functions, `fn.recurrent` makes a layer of them (the scans, masks, carries and memory are written
once, there), and `fn.compare` checks the derivation. Then the study removes one term of the backward step, and another,
and prints the reports. The same on the command line, without a script:

    python -m fnnets compare examples/studies/own_cell.py:layer --shape 3,6,2
    python -m fnnets compare examples/studies/own_cell.py:broken --shape 3,6,2

Finally the layer learns to give, at the end of a sequence of numbers, the last marked number: a gate lets it keep this
number and ignore all others. The test sequences are four times as long as those in training.

`--quick` trains for fewer steps; `--out DIR` is the folder for the picture.

Zhou, Wu, Zhang & Zhou, Minimal gated unit for recurrent neural networks (2016), eqs. 6a-6c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

LOSS, RATE = fn.losses.mse(), 0.01
FEATURES, LENGTH, LONG, BATCH, MARKED = 16, 50, 200, 32, 0.04


class Minimal(NamedTuple):
    """The parameters of the minimal gated unit, in blocks f, n."""

    w: jax.Array  # (D, 2H)
    u: jax.Array  # (H, 2H)
    b: jax.Array  # (2H,)

    blocks = dict.fromkeys("wub", ("f", "n"))  # the names of the halves in a report


class Saved(NamedTuple):
    """What a step saves for its backward step; h_{t−1} is always saved."""

    f: jax.Array  # (…, H)
    n: jax.Array  # (…, H)


def halves(a: jax.Array) -> list[jax.Array]:
    """The blocks of f and of n."""
    return jnp.split(a, 2, -1)


def init(key: Any, x: Any, features: int) -> Minimal:
    """Small kernels, and a gate that is nearly closed at first, so that the state lasts."""
    w_key, u_key = jax.random.split(key)
    w = jax.nn.initializers.lecun_normal()(w_key, (x.shape[-1], 2 * features))
    u = jax.nn.initializers.lecun_normal()(u_key, (features, 2 * features))
    return Minimal(w, u, jnp.concatenate([jnp.full(features, -1.0), jnp.zeros(features)]))


def start(params: Minimal, batch: tuple[int, ...]) -> jax.Array:
    """The state before the first step."""
    return jnp.zeros((*batch, params.u.shape[0]), params.u.dtype)


def project(params: Minimal, x: jax.Array) -> jax.Array:
    """The part of a step that depends only on x, for all steps in one product."""
    return x @ params.w + params.b


def forward(params: Minimal, h: jax.Array, z: jax.Array) -> tuple[jax.Array, Saved]:
    """One step, and what its backward step needs."""
    (z_f, z_n), (u_f, u_n) = halves(z), halves(params.u)
    f = jax.nn.sigmoid(z_f + h @ u_f)
    n = jnp.tanh(z_n + (f * h) @ u_n)
    return (1 - f) * h + f * n, Saved(f, n)


def step(params: Minimal, h: jax.Array, z: jax.Array) -> jax.Array:
    """The equation alone."""
    return forward(params, h, z)[0]


def backward(
    params: Minimal, h: jax.Array, saved: Saved, dh: jax.Array, without: str = ""
) -> tuple[jax.Array, jax.Array]:
    """One backward step, the derivation; `without` names a term to leave out."""
    f, n = saved
    u_f, u_n = halves(params.u)
    da_n = dh * f * (1 - n**2)
    dk = da_n @ u_n.T
    df = dh * (n - h) + (0 if without == "dk⊙h in df" else dk * h)
    da_f = df * f * (1 - f)
    held = 0 if without == "dh⊙(1 − f) in dh" else dh * (1 - f)
    return held + dk * f + da_f @ u_f.T, jnp.concatenate([da_f, da_n], -1)


def collect(
    params: Minimal, x: jax.Array, h: jax.Array, saved: Saved, da: jax.Array
) -> tuple[Minimal, jax.Array]:
    """The sums over time and over the batch, after the last backward step."""

    def outer(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum("...i,...j->ij", a, b)

    da_f, da_n = halves(da)
    du = jnp.concatenate([outer(h, da_f), outer(saved.f * h, da_n)], -1)
    return Minimal(outer(x, da), du, jnp.einsum("...j->j", da)), da @ params.w.T


def minimal(features: int, without: str = "") -> fn.Layer:
    """The layer of the cell; `without` names a term that its backward step leaves out, for the report on it."""

    def init_features(key: Any, x: Any) -> Minimal:
        return init(key, x, features)

    def backward_without(*args: Any) -> tuple[jax.Array, jax.Array]:
        return backward(*args, without=without)

    name = f"minimal({features})"
    return fn.recurrent(
        fn.Cell(init_features, start, project, step, forward, backward_without, collect, name)
    )


MISTAKES = ("dk⊙h in df", "dh⊙(1 − f) in dh")
layer = minimal(3)
broken = minimal(3, MISTAKES[0])


def latch(key: Any, length: int, batch: int) -> tuple[jax.Array, jax.Array]:
    """Numbers and marks, x (batch, length, 2); the target is the last marked number, t (batch, 1)."""
    number_key, mark_key = jax.random.split(key)
    numbers = jax.random.uniform(number_key, (batch, length), minval=-1)
    marks = jax.random.bernoulli(mark_key, MARKED, (batch, length)).at[:, 0].set(True)
    last = jnp.where(marks, jnp.arange(length), 0).max(1, keepdims=True)
    return jnp.stack([numbers, marks.astype(numbers.dtype)], -1), jnp.take_along_axis(numbers, last, 1)


def network(recurrent: fn.Layer) -> fn.Layer:
    """The recurrent layer, with a dense output after the last step."""
    return fn.serial(recurrent, fn.last(), fn.dense(1))


class Trained(NamedTuple):
    """The result of training."""

    params: Any
    losses: jax.Array  # (steps,)
    test: jax.Array  # the loss on longer sequences


def trained(net: fn.Layer, steps: int) -> Trained:
    """The network trained by hand; every step draws a new batch."""
    updater = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)

    def step(state: Any, key: Any) -> tuple[Any, jax.Array]:
        params, memory = state
        (value, _), grads = value_and_grad(params, *latch(key, LENGTH, BATCH))
        updates, memory = updater.update(grads, memory)
        return (optax.apply_updates(params, updates), memory), value

    @jax.jit
    def train(key: Any) -> Trained:
        params = net.init(jax.random.fold_in(key, 0), jnp.zeros((1, LENGTH, 2)))
        keys = jax.random.split(jax.random.fold_in(key, 1), steps)
        (params, _), losses = jax.lax.scan(step, (params, updater.init(params)), keys)
        x, t = latch(jax.random.fold_in(key, 2), LONG, 256)
        return Trained(params, losses, LOSS.apply(net.apply(params, x), t))

    return jax.device_get(train(jax.random.key(0)))


def print_reports(mistakes: Sequence[str]) -> None:
    """Prints the report on the layer, and on each mistake."""
    x = jax.random.normal(jax.random.key(1), (3, 6, 2))
    params = jax.jit(layer.init)(jax.random.key(0), x)
    print(f"The layer\n\n{fn.compare(layer, params, x)}")
    for term in mistakes:
        print(f"\n\nMissing from the backward step: {term}\n\n{fn.compare(minimal(3, term), params, x)}")


def gate_of(params: Minimal, x: jax.Array, y: jax.Array) -> jax.Array:
    """f at each step of one sequence x (T, 2), from the layer's output y (T, H), its states."""
    before = jnp.concatenate([jnp.zeros_like(y[:1]), y[:-1]])
    (z_f, _), (u_f, _) = halves(project(params, x)), halves(params.u)
    return jax.nn.sigmoid(z_f + before @ u_f)


def draw(figure: Any, found: dict[str, Trained]) -> None:
    """The loss curves; a new sequence, with the network's answer and its gate."""
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    curves = left.subplots()
    for (name, one), color in zip(found.items(), (BLUE, RED, ORANGE, GREY), strict=False):
        smooth = np.convolve(one.losses, np.ones(20) / 20, "valid")
        curves.loglog(np.arange(len(smooth)) + 20, smooth, color=color, label=name)
    curves.set(
        title="Learning to keep a number", xlabel="step", ylabel="mean squared error, mean of 20 steps"
    )
    curves.legend(loc="lower left", fontsize=9)

    params = found["minimal, by hand"].params
    x = latch(jax.random.key(11), 100, 1)[0][0]
    h = jax.jit(minimal(FEATURES).apply)(params[0], x)
    answer, gate = h @ params[-1].w + params[-1].b, np.asarray(gate_of(params[0], x, h))
    marked, steps = np.flatnonzero(x[:, 1]), np.arange(len(x))
    above, below = right.subplots(2, 1, sharex=True, height_ratios=(1.4, 1))
    above.plot(steps, x[:, 0], ".", color="#c4c8ce", label="number")
    above.plot(marked, x[marked, 0], "o", color=RED, label="marked")
    above.step(steps, answer, where="post", color=BLUE, label="answer, if the sequence ended here")
    above.set(title="A new sequence", ylim=(-1.1, 1.1))
    above.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=9)
    shades = below.imshow(gate.T, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    below.set(title="The gate f of each unit", xlabel="t", ylabel="unit")
    below.grid(False)
    right.colorbar(shades, ax=below)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the cell, removes terms, trains, tests on longer sequences."""
    chosen = options(__doc__, argv)
    mistakes, steps = (MISTAKES[:1], 100) if chosen.quick else (MISTAKES, 1000)
    print_reports(mistakes)

    layers = {"minimal, by hand": minimal(FEATURES)}
    if not chosen.quick:
        layers |= {f"without {term}": minimal(FEATURES, term) for term in mistakes}
        layers["fn.elman"] = fn.elman(FEATURES)
    found = {name: trained(network(layers[name]), steps) for name in progress(layers, "training")}
    print(f"\n\nMean squared error after {steps} steps of training to give the last marked number")
    print(f"({LENGTH} numbers in training, {LONG} in the test; always to answer 0 gives {1 / 3:.3f})\n")
    rows = [(name, f"{one.losses[-50:].mean():.4f}", f"{one.test:.4f}") for name, one in found.items()]
    print(table(("", "training", "test, longer"), rows))
    if not chosen.quick:
        print("\nThe loss also falls without a term: a falling loss does not test a gradient.")
    with picture(chosen.out / "own_cell.png", 12, 5.4) as figure:
        draw(figure, found)
    return 0


if __name__ == "__main__":
    run(main)
