"""Handwritten digits as pictures, with two convolutional networks: `python examples/studies/cnn_digits.py`.

The first has convolution, relu, pool and dropout, twice, and a dense layer; its dropout is spatial and drops whole
feature maps. The second is a small residual network with batch normalisation; its second block halves height and
width, and so has a projection as its shortcut. Each is trained twice from the same seed, on the same batches and with
the same draws of dropout: with `jax.grad` of the layers' forward, and with the gradient derived by hand. Rounding
slowly separates the two curves, but both end at the same accuracy.

The data are scikit-learn's 1797 pictures of 8×8 pixels, split 7:3 with equal shares of each class. The 540 test
pictures are used once, at the end: the settings below were chosen on a fifth of the training part.

The picture shows the kernels of the first network, its feature maps of one digit, and the misclassified digits.
`--quick` trains the first network for two epochs on 96 pictures; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREEN, GREY, options, picture, progress, run, say, table

import fnnets as fn

LOSS = fn.losses.softmax_cross_entropy()
BATCH, EPOCHS, SEED, RATE = 32, 30, 0, 3e-3


def conv_pool(features: int) -> list[fn.Layer]:
    """Convolution, activation, pool, dropout of whole feature maps."""
    drop = fn.dropout(0.2, shared_axes=(-3, -2))
    return [fn.conv(features, (3, 3)), fn.relu(), fn.max_pool((2, 2)), drop]


def conv_norm(features: int, kernel_size: int, strides: int = 1) -> list[fn.Layer]:
    """A convolution and its normalisation; the normalisation has the bias."""
    conv = fn.conv(features, (kernel_size, kernel_size), strides=strides, use_bias=False)
    return [conv, fn.batch_norm()]


def body(features: int, strides: int = 1) -> fn.Layer:
    """The body of a residual block."""
    return fn.serial(*conv_norm(features, 3, strides), fn.relu(), *conv_norm(features, 3))


PLAIN = fn.serial(*conv_pool(32), *conv_pool(64), fn.flatten(3), fn.dense(10))
RESIDUAL = fn.serial(
    *conv_norm(16, 3),
    fn.relu(),
    fn.residual(body(16)),
    fn.relu(),
    fn.residual(body(32, strides=2), fn.serial(*conv_norm(32, 1, strides=2))),
    fn.relu(),
    fn.global_avg_pool(),
    fn.dense(10),
)
NETWORKS = {"convolution, pool, dropout": PLAIN, "residual, batch norm": RESIDUAL}


class Data(NamedTuple):
    """Pictures and their labels."""

    x: jax.Array  # (N, 8, 8, 1), standardised
    t: jax.Array  # (N,) integers


def load() -> tuple[Data, Data]:
    """The digits, 7:3, standardised by the training part's mean and deviation of all pixels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, t = load_digits(return_X_y=True)
    x, x_test, t, t_test = train_test_split(pixels, t, test_size=0.3, stratify=t, random_state=SEED)
    mean, deviation = x.mean(), x.std()

    def data(x: np.ndarray, t: np.ndarray) -> Data:
        pictures = (x.reshape(-1, 8, 8, 1) - mean) / deviation
        return Data(jnp.asarray(pictures, jnp.float32), jnp.asarray(t))

    return data(x, t), data(x_test, t_test)


def by_autodiff(net: fn.Layer) -> Callable[..., Any]:
    """Value, saved for `update_stats`, and gradient, by `jax.grad` through the layers' forward."""

    def value(params: Any, x: jax.Array, t: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        y, _, saved = net.forward(params, x, key=key, train=True)
        return LOSS.apply(y, t), saved

    return jax.value_and_grad(value, has_aux=True)


def by_hand(net: fn.Layer) -> Callable[..., Any]:
    """The same three, by the derivations of the layers and of the loss."""
    gradient = fn.value_and_grad_by_hand(net, LOSS)

    def value_and_grad(params: Any, x: jax.Array, t: jax.Array, key: jax.Array) -> Any:
        (value, aux), grads = gradient(params, x, t, key=key, train=True)
        return (value, aux.saved), grads

    return value_and_grad


def trained(
    net: fn.Layer, gradient: Callable[..., Any], data: Data, epochs: int, what: str
) -> tuple[Any, np.ndarray]:
    """The params after training, and the loss of every batch, (epochs, steps)."""
    steps = len(data.x) // BATCH
    updater = optax.adam(optax.cosine_decay_schedule(RATE, epochs * steps))

    @jax.jit
    def step(state: Any, batch: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
        params, memory = state
        (value, saved), grads = gradient(params, data.x[batch], data.t[batch], key)
        updates, memory = updater.update(grads, memory, params)
        return (net.update_stats(optax.apply_updates(params, updates), saved), memory), value

    init_key, order_key, drop_key = jax.random.split(jax.random.key(SEED), 3)
    params = jax.jit(net.init)(init_key, data.x)
    state, losses = (params, updater.init(params)), []
    # One call per step: inside `lax.scan`, XLA's convolutions on CPUs do not use all cores.
    for epoch in progress(range(epochs), what):
        order = jax.random.permutation(jax.random.fold_in(order_key, epoch), len(data.x))
        keys = jax.random.split(jax.random.fold_in(drop_key, epoch), steps)
        for batch, key in zip(order[: steps * BATCH].reshape(steps, BATCH), keys, strict=True):
            state, value = step(state, batch, key)
            losses.append(value)
    return state[0], np.asarray(losses).reshape(epochs, steps)


class Result(NamedTuple):
    """One network after both trainings."""

    params: Any  # by hand
    losses: dict[str, np.ndarray]
    answers: dict[str, np.ndarray]  # for the test pictures


def both_ways(net: fn.Layer, train: Data, test: Data, epochs: int) -> Result:
    """The network trained by autodiff and by hand, with the answers of both."""
    losses, answers = {}, {}
    for name, gradient in {"jax.grad": by_autodiff(net), "by hand": by_hand(net)}.items():
        params, losses[name] = trained(net, gradient, train, epochs, name)
        answers[name] = np.asarray(jax.jit(net.apply)(params, test.x).argmax(-1))
    return Result(params, losses, answers)


def report(results: dict[str, Result], t: np.ndarray) -> str:
    """A line for each network and gradient."""
    rows = []
    for network, result in results.items():
        for name, answers in result.answers.items():
            wrong, losses = int((answers != t).sum()), result.losses[name]
            first, last = (f"{losses[epoch].mean():.6f}" for epoch in (0, -1))
            rows.append((network, name, first, last, f"{1 - wrong / len(t):.1%}", wrong))
    return table(("", "gradient", "loss, first epoch", "last epoch", "test accuracy", "misclassified"), rows)


def tiles(axes: Any, maps: np.ndarray, columns: int, title: str, **style: Any) -> None:
    """Pictures (H, W, N) side by side in rows, with a gap between them."""
    height, width, number = maps.shape
    rows = -(-number // columns)
    wall = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i in range(number):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        wall[top : top + height, left : left + width] = maps[..., i]
    axes.imshow(wall, **style)
    axes.set_title(title)
    axes.set_axis_off()


def draw(figure: Any, results: dict[str, Result], test: Data) -> None:
    """Kernels and feature maps, the curves, and the misclassified digits."""
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.02))
    draw_maps(upper, results["convolution, pool, dropout"].params, test.x[7])
    left, right = lower.subfigures(1, 2, width_ratios=(1.05, 1))
    draw_curves(left.subplots(2, 1, sharex=True), results)
    draw_mistakes(right, results, test)


def draw_maps(figure: Any, params: Any, x: jax.Array) -> None:
    """The kernels of the first layer, a digit, and its feature maps in two layers."""
    seen = [np.asarray(y) for y in fn.intermediates(PLAIN, params, x).values()]
    axes = figure.subplots(1, 4, width_ratios=(1, 0.55, 1.5, 1.5))
    kernels = np.asarray(params[0].w)[:, :, 0]
    most = np.abs(kernels).max()
    tiles(axes[0], kernels, 4, "32 kernels of 3×3", cmap="RdBu_r", vmin=-most, vmax=most)
    tiles(axes[1], np.asarray(x), 1, "a digit", cmap="Greys")
    tiles(axes[2], seen[1], 6, "its 32 feature maps, 8×8", cmap="viridis")
    tiles(axes[3], seen[5], 8, "64 maps of the next layer, 4×4", cmap="viridis")


def draw_curves(panels: Any, results: dict[str, Result]) -> None:
    """The losses by both gradients in one panel, their differences in the other."""
    losses, differences = panels
    for (network, result), colour in zip(results.items(), (BLUE, GREEN), strict=False):
        autodiff, hand = result.losses.values()
        epochs = np.arange(1, len(hand) + 1)
        losses.semilogy(epochs, autodiff.mean(1), color=colour, linewidth=5, alpha=0.35)
        losses.semilogy(epochs, hand.mean(1), color=colour, label=network)
        differences.semilogy(epochs, np.abs(autodiff - hand).max(1), ".-", color=colour)
    losses.plot([], [], color=GREY, linewidth=5, alpha=0.35, label="jax.grad")
    losses.set(title="Training loss")
    losses.legend()
    differences.set(xlabel="epoch", title="Largest difference of the two gradients' losses")


def draw_mistakes(figure: Any, results: dict[str, Result], test: Data) -> None:
    """The digits that a network misclassifies."""
    t = np.asarray(test.t)
    wrong = [
        (i, colour, result.answers["by hand"][i])
        for result, colour in zip(results.values(), (BLUE, GREEN), strict=False)
        for i in np.flatnonzero(result.answers["by hand"] != t)
    ]
    shown = wrong[:18]
    more = "" if len(shown) == len(wrong) else f", {len(shown)} of {len(wrong)}"
    figure.suptitle(f"Misclassified (digit → answer){more}", fontsize=11, weight="bold")
    panels = figure.subplots(max(3, -(-len(shown) // 6)), 6)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (i, colour, answer) in zip(panels.flat, shown, strict=False):
        axes.imshow(np.asarray(test.x[i, ..., 0]), cmap="Greys")
        axes.set_title(f"{t[i]} → {answer}", fontsize=9, color=colour)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains both networks twice, tests once."""
    chosen = options(__doc__, argv)
    train, test = load()
    if chosen.quick:
        train, test = (Data(data.x[:96], data.t[:96]) for data in (train, test))
    say(f"{len(train.t)} digits for training, {len(test.t)} for testing\n")
    results = {}
    for name, net in list(NETWORKS.items())[: 1 if chosen.quick else None]:
        say(f"{name}\n{fn.summary(net, train.x)}\n")
        results[name] = both_ways(net, train, test, 2 if chosen.quick else EPOCHS)
    print(report(results, np.asarray(test.t)))
    with picture(chosen.out / "cnn_digits.png", 12, 9) as figure:
        draw(figure, results, test)
    return 0


if __name__ == "__main__":
    run(main)
