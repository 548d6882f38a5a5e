"""Handwritten digits, trained by autodiff and by hand: `python examples/studies/digits.py`.

The same network, from the same seed and on the same batches, is trained once with `jax.grad` of the plain equations
and once with the gradient derived by hand, without autodiff. The study prints the two loss curves side by side: they
differ only by the rounding of float32.

The data are scikit-learn's 1797 pictures of 8×8 pixels, split 7:3 with equal shares of each class. The 540 test
pictures are used once, at the end, for the accuracy: neither the settings below nor the scaling of the inputs
depends on them.

`--quick` trains for a few epochs; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREY, ORANGE, RED, options, picture, progress, run, table

import fnnets as fn

NET = fn.serial(fn.dense(128), fn.relu(), fn.dense(64), fn.relu(), fn.dense(10))
LOSS = fn.losses.softmax_cross_entropy()
UPDATER = optax.adam(1e-3)
BATCH, EPOCHS, SEED = 32, 40, 0

ValueAndGrad = Callable[..., tuple[jax.Array, Any]]


class Data(NamedTuple):
    """Pictures as standardised rows, and their labels."""

    x: jax.Array  # (N, 64)
    t: jax.Array  # (N,) integers
    pixels: np.ndarray  # (N, 8, 8), the original pictures


def load() -> tuple[Data, Data]:
    """The digits, 7:3, standardised by the mean and deviation of the training part."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, t = load_digits(return_X_y=True)
    parts = train_test_split(pixels, t, test_size=0.3, stratify=t, random_state=SEED)
    mean, deviation = parts[0].mean(0), parts[0].std(0, ddof=1)
    scale = np.where(deviation == 0, 1, deviation)  # some pixels are blank in every picture
    train, test = (
        Data(jnp.asarray((pixels - mean) / scale, jnp.float32), jnp.asarray(t), pixels.reshape(-1, 8, 8))
        for pixels, t in zip(parts[:2], parts[2:], strict=True)
    )
    return train, test


def by_autodiff(params: Any, x: jax.Array, t: jax.Array) -> tuple[jax.Array, Any]:
    """The loss and its gradient, by `jax.grad` of the plain equations."""
    return jax.value_and_grad(lambda params: LOSS.apply(NET.apply(params, x), t))(params)


def by_hand(params: Any, x: jax.Array, t: jax.Array) -> tuple[jax.Array, Any]:
    """The same two, by the derivations of the layers and of the loss."""
    (value, _), grads = fn.value_and_grad_by_hand(NET, LOSS)(params, x, t)
    return value, grads


def trained(value_and_grad: ValueAndGrad, data: Data, epochs: int) -> tuple[Any, np.ndarray]:
    """The params after training, and the loss of every batch, (epochs, steps)."""
    steps = len(data.x) // BATCH

    def step(state: Any, batch: jax.Array) -> tuple[Any, jax.Array]:
        params, memory = state
        value, grads = value_and_grad(params, data.x[batch], data.t[batch])
        updates, memory = UPDATER.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        order = jax.random.permutation(key, len(data.x))[: steps * BATCH]
        return jax.lax.scan(step, state, order.reshape(steps, BATCH))

    init_key, order_key = jax.random.split(jax.random.key(SEED))
    params = jax.jit(NET.init)(init_key, data.x)
    state, losses = (params, UPDATER.init(params)), []
    for i in progress(range(epochs), value_and_grad.__name__):
        state, values = epoch(state, jax.random.fold_in(order_key, i))
        losses.append(np.asarray(values))
    return state[0], np.stack(losses)


def print_curves(losses: dict[str, np.ndarray]) -> None:
    """Prints both loss curves side by side, and their largest difference."""
    autodiff, hand = losses.values()
    epochs = len(hand)
    shown = sorted({1, 2, 3, 5, 10, 20, 30, epochs} & set(range(1, epochs + 1)))
    means = zip(
        shown, autodiff.mean(1)[np.subtract(shown, 1)], hand.mean(1)[np.subtract(shown, 1)], strict=True
    )
    rows = [(epoch, f"{a:.7f}", f"{b:.7f}", f"{abs(a - b):.1e}") for epoch, a, b in means]
    print(table(("epoch", *losses, "difference"), rows))
    print(f"\nlargest difference over all {hand.size} batches: {np.abs(autodiff - hand).max():.1e}")


def draw(figure: Any, losses: dict[str, np.ndarray], probabilities: np.ndarray, test: Data) -> None:
    """The confusion matrix, the misclassified digits, and the curves."""
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    left, right = upper.subfigures(1, 2, width_ratios=(1, 1.1))
    answers, t = probabilities.argmax(1), np.asarray(test.t)
    draw_confusion(left.subplots(), answers, t)
    draw_mistakes(right, probabilities, test)
    draw_curves(lower.subplots(1, 2), losses)


def draw_confusion(axes: Any, answers: np.ndarray, t: np.ndarray) -> None:
    """The confusion matrix: the counts off the diagonal are mistakes."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (t, answers), 1)
    right = np.eye(10, dtype=bool)
    axes.imshow(np.where(right, counts, 0), cmap="Blues", vmax=1.6 * counts.max())
    axes.imshow(np.ma.masked_where(right | (counts == 0), counts), cmap="Reds", vmin=-1, vmax=5)
    for (digit, answer), n in np.ndenumerate(counts):
        if n:
            axes.text(answer, digit, n, ha="center", va="center", fontsize=9)
    axes.set(xticks=range(10), yticks=range(10), xlabel="answer", ylabel="digit", title="Confusion matrix")
    axes.set_xticks(np.arange(0.5, 9), minor=True)
    axes.set_yticks(np.arange(0.5, 9), minor=True)
    axes.tick_params(which="both", length=0)
    axes.grid(False)
    axes.grid(True, which="minor", color="white")


def draw_mistakes(figure: Any, probabilities: np.ndarray, test: Data) -> None:
    """The misclassified digits, those with the most confident answers first."""
    answers, t = probabilities.argmax(1), np.asarray(test.t)
    wrong = np.flatnonzero(answers != t)
    wrong = wrong[np.argsort(-probabilities[wrong, answers[wrong]])]
    shown = wrong[:20]
    more = "" if len(shown) == len(wrong) else f", {len(shown)} shown"
    title = f"Misclassified: {len(wrong)} of {len(t)}{more} (digit → answer, probability)"
    figure.suptitle(title, fontsize=11, weight="bold")
    panels = figure.subplots(max(3, -(-len(shown) // 5)), 5)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, i in zip(panels.flat, shown, strict=False):
        axes.imshow(test.pixels[i], cmap="Greys")
        axes.set_title(f"{t[i]} → {answers[i]}, {probabilities[i].max():.0%}", fontsize=9, color=RED)


def draw_curves(panels: Any, losses: dict[str, np.ndarray]) -> None:
    """Both curves in one panel, their differences in the other."""
    curves, differences = panels
    styles = ({"color": ORANGE, "linewidth": 5, "alpha": 0.5}, {"color": BLUE, "linewidth": 1.5})
    epochs = np.arange(1, len(losses["by hand"]) + 1)
    for (name, values), style in zip(losses.items(), styles, strict=True):
        curves.semilogy(epochs, values.mean(1), label=name, **style)
    curves.set(xlabel="epoch", title="Training loss")
    curves.legend()
    autodiff, hand = losses.values()
    differences.semilogy(epochs, np.abs(autodiff - hand).max(1), ".-", color=GREY)
    differences.set(xlabel="epoch", title="Largest difference of the two losses")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains twice, compares the curves, tests once."""
    chosen = options(__doc__, argv)
    train, test = load()
    print(f"{len(train.t)} digits for training, {len(test.t)} for testing\n\n{fn.summary(NET, train.x)}\n")

    results = {
        name: trained(value_and_grad, train, 8 if chosen.quick else EPOCHS)
        for name, value_and_grad in {"jax.grad": by_autodiff, "by hand": by_hand}.items()
    }
    losses = {name: values for name, (_, values) in results.items()}
    print_curves(losses)

    for name, (params, _) in results.items():
        probabilities = np.asarray(jax.nn.softmax(NET.apply(params, test.x)))
        wrong = int((probabilities.argmax(1) != np.asarray(test.t)).sum())
        share = 1 - wrong / len(test.t)
        print(f"test accuracy, {name}: {share:.1%} ({wrong} of {len(test.t)} misclassified)")
    with picture(chosen.out / "digits.png", 11, 9) as figure:
        draw(figure, losses, probabilities, test)
    return 0


if __name__ == "__main__":
    run(main)
