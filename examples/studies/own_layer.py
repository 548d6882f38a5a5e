"""Your own layer, its gradient, and the report on mistakes in it: `python examples/studies/own_layer.py`.

The layer is a gated linear unit: one half of a dense layer's outputs is the value, the other is the gate that sets
how much of the value passes,

    y = v ⊙ σ(g),  [v, g] = x·w + b,  x (…, D), w (D, 2H), b (2H,), y (…, H)

Derivation. By the product rule, with s = σ(g) and σ' = s(1 − s),

    dv = dy ⊙ s
    dg = dy ⊙ v ⊙ s(1 − s)

and with dz = [dv, dg], because z = x·w + b is a dense layer, with sums over all leading axes n,

    dw = Σ_n x_nᵀ dz_n,  db = Σ_n dz_n,  dx = dz·wᵀ

`fn.layer` makes a layer of the four functions below, and `fn.compare` checks the derivation. Then the study plants
three mistakes, and the report names each. The same on the command line, without a script:

    python -m fnnets compare examples/studies/own_layer.py:layer
    python -m fnnets compare examples/studies/own_layer.py:broken

`--quick` trains for fewer steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, ORANGE, PURPLE, RED, options, picture, progress, run, table

import fnnets as fn


class Gated(NamedTuple):
    """The parameters of `gated`."""

    w: jax.Array  # (D, 2H), the value's columns, then the gate's
    b: jax.Array  # (2H,), likewise

    blocks = {"w": ("value", "gate"), "b": ("value", "gate")}  # the names of the halves in a report


class Saved(NamedTuple):
    """What `forward` keeps for `backward`."""

    x: jax.Array  # (…, D)
    v: jax.Array  # (…, H)
    s: jax.Array  # (…, H)


def init(key: Any, x: Any, features: int) -> Gated:
    """Small random weights."""
    return Gated(
        jax.nn.initializers.lecun_normal()(key, (x.shape[-1], 2 * features)), jnp.zeros(2 * features)
    )


def apply(params: Gated, x: jax.Array) -> jax.Array:
    """The equation."""
    v, g = jnp.split(x @ params.w + params.b, 2, axis=-1)
    return v * jax.nn.sigmoid(g)


def forward(params: Gated, x: jax.Array) -> tuple[jax.Array, Saved]:
    """The same y, and what the derivation needs."""
    v, g = jnp.split(x @ params.w + params.b, 2, axis=-1)
    s = jax.nn.sigmoid(g)
    return v * s, Saved(x, v, s)


def backward(params: Gated, saved: Saved, dy: jax.Array) -> tuple[Gated, jax.Array]:
    """The derivation."""
    x, v, s = saved
    dz = jnp.concatenate([dy * s, dy * v * s * (1 - s)], axis=-1)
    return Gated(jnp.einsum("...d,...h->dh", x, dz), jnp.einsum("...h->h", dz)), dz @ params.w.T


def gated(features: int, backward: Callable[..., Any] = backward) -> fn.Layer:
    """The layer; a wrong `backward` is for the report on it."""

    def init_features(key: Any, x: Any) -> Gated:
        return init(key, x, features)

    return fn.layer(init_features, apply, forward, backward, name=f"gated({features})")


def without_slope(params: Gated, saved: Saved, dy: jax.Array) -> tuple[Gated, jax.Array]:
    """The factor σ' of dg is missing."""
    x, v, s = saved
    dz = jnp.concatenate([dy * s, dy * v], axis=-1)
    return Gated(jnp.einsum("...d,...h->dh", x, dz), jnp.einsum("...h->h", dz)), dz @ params.w.T


def without_sum(params: Gated, saved: Saved, dy: jax.Array) -> tuple[Gated, jax.Array]:
    """The sum over the batch is missing in db."""
    dparams, dx = backward(params, saved, dy)
    dv, dg = dy * saved.s, dy * saved.v * saved.s * (1 - saved.s)
    return dparams._replace(b=jnp.concatenate([dv, dg], axis=-1)), dx


def exchanged(params: Gated, saved: Saved, dy: jax.Array) -> tuple[Gated, jax.Array]:
    """The gate's columns come before the value's in dw and db."""
    dparams, dx = backward(params, saved, dy)
    return jax.tree.map(lambda leaf: jnp.roll(leaf, leaf.shape[-1] // 2, axis=-1), dparams), dx


layer = gated(3)
broken = gated(3, without_slope)


def network(backward: Callable[..., Any] = backward) -> fn.Layer:
    """The layer, followed by a dense one."""
    return fn.serial(gated(8, backward), fn.dense(1))


def trained(net: fn.Layer, start: Any, steps: int, *, by_hand: bool = True) -> np.ndarray:
    """The loss before each step of training to multiply two numbers, as a gate does."""
    x = np.random.default_rng(0).uniform(-1, 1, (256, 2)).astype(np.float32)
    t = x[:, :1] * x[:, 1:]
    loss, updater = fn.losses.mse(), optax.adam(0.003)

    def value_and_grad(params: Any) -> tuple[jax.Array, Any]:
        if by_hand:
            (value, _), grads = fn.value_and_grad_by_hand(net, loss)(params, x, t)
            return value, grads
        return jax.value_and_grad(lambda params: loss.apply(net.apply(params, x), t))(params)

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        params, memory = state
        value, grads = value_and_grad(params)
        updates, memory = updater.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    train = jax.jit(lambda state: jax.lax.scan(step, state, length=steps)[1])
    return np.asarray(train((start, updater.init(start))))


def draw(figure: Any, losses: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
    """The loss curves, and dw as a map whose columns are the value's half and the gate's."""
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    axes = left.subplots()
    styles = ((ORANGE, 5, 0.5), (BLUE, 1.6, 1), (RED, 1.6, 1), (PURPLE, 1.6, 1))
    for (name, values), (color, width, alpha) in zip(losses.items(), styles, strict=True):
        steps = np.arange(1, len(values) + 1)
        axes.loglog(steps, values, color=color, linewidth=width, alpha=alpha, label=name)
    axes.set(title="A wrong gradient also learns, but less", xlabel="step", ylabel="mean squared error")
    axes.legend(loc="lower left")

    largest = max(np.abs(dw).max() for dw in gradients.values())
    panels = right.subplots(len(gradients), 1, sharex=True)
    for axes, (name, dw) in zip(panels, gradients.items(), strict=True):
        shades = axes.imshow(dw, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
        axes.axvline(dw.shape[1] / 2 - 0.5, color="black", linewidth=1.5)
        axes.set(title=f"dw, {name}", xticks=[1, 4], xticklabels=["value", "gate"], yticks=[])
        axes.tick_params(length=0)
        axes.grid(False)
    right.colorbar(shades, ax=panels, shrink=0.6)


def print_reports(params: Gated, x: jax.Array) -> None:
    """Prints the reports on the layer, on each mistake, and on a network with the layer in it."""
    print(f"The layer\n\n{fn.compare(layer, params, x)}")
    for mistake in (without_slope, without_sum, exchanged):
        print(f"\n\nPlanted: {mistake.__doc__}\n\n{fn.compare(gated(3, mistake), params, x)}")
    net = network()
    print(f"\n\nInside a network\n\n{fn.compare(net, jax.jit(net.init)(jax.random.key(2), x), x)}")


def print_losses(losses: dict[str, np.ndarray]) -> None:
    """Prints the loss curves side by side."""
    right, hand, *_ = losses.values()
    rows = [
        (step, *(f"{values[step - 1]:.6f}" for values in losses.values()))
        for step in (1, 10, 100, 300, 1000)
        if step <= len(hand)
    ]
    print("\n\nMean squared error while learning to multiply two numbers\n")
    print(table(("step", *losses), rows))
    print(f"\nThe losses by jax.grad and by hand differ by at most {np.abs(right - hand).max():.0e}.")
    print("With a wrong gradient the loss also falls, but less: a falling loss does not test a gradient.")


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the layer, plants the mistakes, trains."""
    chosen = options(__doc__, argv)
    x = jax.random.normal(jax.random.key(1), (5, 4))
    params = jax.jit(layer.init)(jax.random.key(0), x)
    params = params._replace(b=params.b + 0.1)  # a bias of 0 could hide a mistake
    print_reports(params, x)

    steps = 300 if chosen.quick else 1000
    start = jax.jit(network().init)(jax.random.key(0), jnp.zeros((1, 2)))
    backwards = {"by hand": backward, "without σ'": without_slope, "halves exchanged": exchanged}
    losses = {"jax.grad": trained(network(), start, steps, by_hand=False)}
    for name in progress(backwards, "training"):
        losses[name] = trained(network(backwards[name]), start, steps)
    print_losses(losses)

    y, _, saved = layer.forward(params, x)
    dy = jax.random.normal(jax.random.key(3), y.shape)
    gradients = {name: np.asarray(rule(params, saved, dy)[0].w) for name, rule in backwards.items()}
    with picture(chosen.out / "own_layer.png", 11, 4.8) as figure:
        draw(figure, losses, gradients)
    return 0


if __name__ == "__main__":
    run(main)
