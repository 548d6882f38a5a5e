"""Handwritten digits read row by row: `python examples/studies/digits_by_rows.py`.

A picture of 8×8 pixels is a sequence of 8 rows, x (8, 8). An LSTM reads one after another, and a dense layer answers
from its last state,

    h_t = lstm(x_t, h_{t−1}),  y = softmax(h_8·w + b)

A mask gives the answer after fewer rows: where it is False the state is held, and `fn.last` takes the last state
before. The network is trained by hand in two ways, both in one vmapped program:

- to answer at the end: all digits have 8 rows;
- to answer at any row: for each digit in each batch, the number of rows is drawn from 1 to 8.

The first network does not learn to answer early, although its state holds what is needed. The second can answer after
each row; the picture shows its beliefs beside the row that it has just read.

The data are scikit-learn's 1797 digits, split 7:3 with equal shares of each class. The 540 test digits are used once,
at the end. `--quick` trains for a few epochs; `--out DIR` is the folder for the picture.
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

ROWS, BATCH, SEED = 8, 32, 0
LEAST_ROWS = {"at the end": ROWS, "at any row": 1}  # the least number of rows in training
NET = fn.serial(fn.lstm(64), fn.last(), fn.dense(10))
LOSS = fn.losses.softmax_cross_entropy()


class Data(NamedTuple):
    """Pictures and their labels."""

    x: jax.Array  # (N, 8, 8) in [0, 1]
    t: jax.Array  # (N,) integers


def load() -> tuple[Data, Data]:
    """The digits, 7:3."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, t = load_digits(return_X_y=True)
    x = x.reshape(-1, ROWS, ROWS).astype(np.float32) / 16
    parts = train_test_split(x, t, test_size=0.3, stratify=t, random_state=SEED)
    train, test = (Data(*map(jnp.asarray, part)) for part in zip(parts[:2], parts[2:], strict=True))
    return train, test


def trained(data: Data, epochs: int) -> Any:
    """The stacked params of both networks after training by hand."""
    steps = len(data.x) // BATCH
    updater = optax.adam(optax.cosine_decay_schedule(0.005, epochs * steps))
    value_and_grad = fn.value_and_grad_by_hand(NET, LOSS)

    def begin(least: jax.Array) -> Any:
        del least  # both start from the same params
        params = NET.init(jax.random.key(SEED), data.x)
        return params, updater.init(params)

    def epoch(state: Any, key: Any, least: jax.Array) -> Any:
        def step(state: Any, scanned: Any) -> tuple[Any, None]:
            (params, memory), (batch, key) = state, scanned
            mask = fn.length_mask(jax.random.randint(key, (BATCH,), least, ROWS + 1), ROWS)
            _, grads = value_and_grad(params, data.x[batch], data.t[batch], mask=mask)
            updates, memory = updater.update(grads, memory)
            return (optax.apply_updates(params, updates), memory), None

        order = jax.random.permutation(key, len(data.x))[: steps * BATCH].reshape(steps, BATCH)
        return jax.lax.scan(step, state, (order, jax.random.split(key, steps)))[0]

    least = jnp.array(list(LEAST_ROWS.values()))
    state = jax.jit(jax.vmap(begin))(least)
    both = jax.jit(jax.vmap(epoch, in_axes=(0, None, 0)))
    for i in progress(range(epochs), "epochs"):
        state = both(state, jax.random.fold_in(jax.random.key(SEED + 1), i), least)
    return state[0]


@jax.jit
def beliefs(params: Any, x: jax.Array) -> jax.Array:
    """The probabilities of both networks after each row, (2, 8, N, 10)."""

    def after(params: Any, row: jax.Array) -> jax.Array:
        mask = fn.length_mask(jnp.full(len(x), row), ROWS)
        return jax.nn.softmax(NET.apply(params, x, mask=mask))

    over_rows = jax.vmap(after, in_axes=(None, 0))
    return jax.vmap(over_rows, in_axes=(0, None))(params, jnp.arange(1, ROWS + 1))


def draw_accuracy(axes: Any, accuracy: dict[str, np.ndarray]) -> None:
    """The accuracy of each network after each row."""
    places = ((5.4, 0.22, ORANGE), (1, 0.87, BLUE))
    for (name, values), (x, y, color) in zip(accuracy.items(), places, strict=True):
        axes.plot(range(1, ROWS + 1), values, "o-", color=color)
        axes.text(x, y, f"answers\n{name}", color=color)
    axes.axhline(0.1, color=GREY, linestyle=":")
    axes.text(ROWS, 0.115, "chance", color=GREY, ha="right", fontsize=9)
    axes.set(xlabel="rows read", ylim=(0, 1.02), title="Test accuracy")


def draw_digits(figure: Any, test: Data, after: np.ndarray) -> None:
    """One digit of each class, and beside each of its rows the belief once it is read."""
    panels = figure.subplots(2, 10, width_ratios=[1, 1.35] * 5)
    figure.suptitle(
        "Each row of a test digit, and the belief once it is read (red: the correct answer)",
        fontsize=11,
        weight="bold",
    )
    for digit in range(10):
        n = int(np.flatnonzero(np.asarray(test.t) == digit)[0])
        left, right = panels[digit // 5, 2 * (digit % 5) : 2 * (digit % 5) + 2]
        left.imshow(test.x[n], cmap="Greys", aspect="auto")
        right.imshow(after[:, n], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        right.set_xticks(range(10), labels=map(str, range(10)), fontsize=7)
        right.get_xticklabels()[digit].set(color=RED, weight="bold", fontsize=9)
        for axes in (left, right):
            axes.set_yticks(np.arange(0.5, ROWS - 1), minor=True)
            axes.set_yticks([])
            axes.tick_params(which="both", length=0)
            axes.grid(False)
            axes.grid(True, which="minor", axis="y", color="#eeeeee")
        left.set_xticks([])


def main(argv: Sequence[str] | None = None) -> int:
    """Trains both networks, and tests them after each row."""
    chosen = options(__doc__, argv)
    train, test = load()
    print(f"{len(train.t)} digits for training, {len(test.t)} for testing\n\n{fn.summary(NET, train.x)}\n")
    found = np.asarray(beliefs(trained(train, 6 if chosen.quick else 40), test.x))
    right = (found.argmax(-1) == np.asarray(test.t)).mean(-1)
    accuracy = dict(zip(LEAST_ROWS, right, strict=True))
    rows = [(row + 1, *(f"{values[row]:.1%}" for values in accuracy.values())) for row in range(ROWS)]
    print("Test accuracy of the networks trained to answer at the end and at any row\n")
    print(table(("after row", *accuracy), rows))
    with picture(chosen.out / "digits_by_rows.png", 15, 4.1) as figure:
        left, wide = figure.subfigures(1, 2, width_ratios=(1, 3.6))
        draw_accuracy(left.subplots(), accuracy)
        draw_digits(wide, test, found[1])
    return 0


if __name__ == "__main__":
    run(main)
