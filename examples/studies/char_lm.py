"""A recurrent network learns a text character by character and beats n-grams: `python examples/studies/char_lm.py`.

The network reads the text as parallel streams, in windows. The LSTM's state passes from one window to the next, the
gradient does not (truncated backpropagation through time). No autodiff is used. The streams start at a different place
in every epoch. Dropout keeps the network from memorising the training part.

Its bits per character on the last tenth of the text are compared with n-grams of order 1 to 6 with Witten-Bell
smoothing, and with a feed-forward network that sees the last three characters. All learn from the first eight tenths;
the ninth chooses the order and when to stop, so the test part is used once. Every character of the test is predicted
from the text before it: the network reads the test as 64 streams, each preceded by 200 characters that are not counted.

Texts repeat themselves. The last column counts only characters that no model can copy: together with the 19 before
them, they do not occur in the training part.

The default takes about a minute and a half on two cores; `--full` trains a larger network for three times as many
epochs, in about six minutes. Ctrl-C ends the training and shows the results so far. `--text FILE` reads another text;
`--quick` trains for a few steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREEN, GREY, ORANGE, options, picture, progress, run, say, table
from support.corpus import Corpus, described, load, text_option
from support.ngrams import fitted, probabilities, stored

import fnnets as fn

ORDERS, SEED = 6, 0
STREAMS, WINDOW = 32, 64  # of training
BURN_IN = 200  # characters read before the first that counts
LOSS = fn.losses.softmax_cross_entropy()


class Setting(NamedTuple):
    """The size of the network, and how long it trains."""

    units: int
    epochs: int
    rate: float
    dropout: float


SHORT, FULL, QUICK = Setting(256, 4, 4e-3, 0.2), Setting(384, 12, 4e-3, 0.4), Setting(16, 1, 4e-3, 0.2)


class Learned(NamedTuple):
    """The params with the best validation score, and the learning curve."""

    params: Any
    curve: np.ndarray  # (n, 3): epoch, and bits per character in training and on the validation part


def full_option(parser: ArgumentParser) -> None:
    """The option `--full`."""
    parser.add_argument(
        "--full", action="store_true", help="a larger network, about six minutes on two cores"
    )


def network(size: int, setting: Setting) -> fn.Layer:
    """Maps characters to the logits of the next one. Dropout drops a unit for a whole window."""
    return fn.serial(
        fn.embedding(size, 64),
        fn.lstm(setting.units),
        fn.dropout(setting.dropout, shared_axes=(-2,)),
        fn.dense(size),
    )


def stream_windows(ids: np.ndarray, bptt: fn.TruncatedBPTT, key: jax.Array) -> fn.Window:
    """An epoch: the text from a random place on, as parallel streams, cut into windows."""
    length = (len(ids) - 1) // STREAMS // WINDOW * WINDOW
    start = int(jax.random.randint(key, (), 0, len(ids) - STREAMS * length))
    text = jnp.asarray(ids[start : start + STREAMS * length + 1])
    return bptt.windows(text[:-1].reshape(STREAMS, -1), text[1:].reshape(STREAMS, -1))


def trained(net: fn.Layer, corpus: Corpus, setting: Setting) -> Learned:
    """Trains the network for all epochs, or until it is interrupted."""
    bptt = fn.truncated_bptt(net, LOSS, WINDOW)
    init_key, order_key, dropout_key = jax.random.split(jax.random.key(SEED), 3)
    parts = stream_windows(corpus.train, bptt, order_key)
    steps = setting.epochs * len(parts.x)
    rates = optax.warmup_cosine_decay_schedule(0, setting.rate, steps // 20, steps, setting.rate / 50)
    updater = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rates, b2=0.99, weight_decay=0.01))

    @jax.jit
    def step(state: Any, window: fn.Window, key: jax.Array) -> tuple[Any, jax.Array]:
        params, memory, carry = state
        (value, aux), grads = bptt.value_and_grad(params, window, carry, key=key, train=True)
        updates, memory = updater.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, aux.carry), value

    params = jax.jit(net.init)(init_key, parts.x[0])
    zeros = fn.zero_carry(net, params, parts.x[0])
    state, values, curve, best = (params, updater.init(params), zeros), [], [], (np.inf, params)
    began = perf_counter()
    try:
        for i in progress(range(steps), "training"):
            epoch, k = divmod(i, len(parts.x))
            if k == 0:
                parts = stream_windows(corpus.train, bptt, jax.random.fold_in(order_key, epoch))
                state = (*state[:2], zeros)
            window = jax.tree.map(lambda leaf, k=k: leaf[k], parts)
            state, value = step(state, window, jax.random.fold_in(dropout_key, i))
            values.append(float(value) / np.log(2))
            if 2 * (i + 1) // len(parts.x) > 2 * i // len(parts.x):  # twice an epoch
                bits = information(net, state[0], corpus, corpus.validation).mean()
                best = min(best, (bits, state[0]), key=lambda pair: pair[0])
                curve.append(((i + 1) / len(parts.x), np.mean(values), bits))
                line = "epoch {:5.1f}   training {:.3f}   validation {:.3f}".format(*curve[-1])
                say(f"{line}   after {perf_counter() - began:.0f} s")
                values.clear()
    except KeyboardInterrupt:
        print("interrupted; the results so far:", file=sys.stderr, flush=True)
        best = best if curve else (np.inf, state[0])
    return Learned(best[1], np.array(curve).reshape(-1, 3))


def information(net: fn.Layer, params: Any, corpus: Corpus, part: np.ndarray) -> np.ndarray:
    """The bits of every character of a part of the text, (N,), given the text before it."""
    length = -(-len(part) // 64)
    text = np.pad(corpus.before(part, BURN_IN + 1), (0, 64 * length - len(part)))
    # 64 streams; each begins with the end of the one before it
    text = fn.data.windows(text, BURN_IN + 1 + length)[::length]
    return np.asarray(per_character(net, params, text)).ravel()[: len(part)]


@partial(jax.jit, static_argnums=0)
def per_character(net: fn.Layer, params: Any, text: jax.Array) -> jax.Array:
    """The bits of the characters text[:, BURN_IN + 1:], each given the text before it."""
    y = net.apply(params, text[:, :-1])
    return LOSS.per_example(y[:, BURN_IN:], text[:, BURN_IN + 1 :]) / jnp.log(2)


class Row(NamedTuple):
    """A model and its scores."""

    name: str
    size: str
    validation: float
    test: np.ndarray  # (N,) bits of every character


def of_ngrams(corpus: Corpus) -> list[Row]:
    """The n-grams of order 1 to 6."""
    model = fitted(corpus.train, len(corpus.letters), ORDERS)
    validation, test = (
        -np.log2(probabilities(model, fn.data.windows(corpus.before(part, ORDERS), ORDERS + 1)))
        for part in (corpus.validation, corpus.test)
    )
    return [
        Row(f"n-gram, order {n}", f"{stored(model)[n]} counts", validation[n].mean(), test[n])
        for n in range(1, ORDERS + 1)
    ]


def of_window(corpus: Corpus, epochs: int) -> Row:
    """A feed-forward network over the last three characters."""
    size = len(corpus.letters)
    net = fn.serial(fn.embedding(size, 32), fn.flatten(2), fn.dense(256), fn.relu(), fn.dense(size))
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)
    x, rows = jnp.asarray(fn.data.windows(corpus.train, 4)), 512
    steps = (len(x) // rows) * epochs
    updater = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def train(key: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            params, memory = state
            batch = x[jax.random.randint(key, (rows,), 0, len(x))]
            _, grads = value_and_grad(params, batch[:, :3], batch[:, 3])
            updates, memory = updater.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory), None

        params = net.init(key, x[:1, :3])
        return jax.lax.scan(step, (params, updater.init(params)), jax.random.split(key, steps))[0][0]

    params = train(jax.random.key(SEED))

    def bits(part: np.ndarray) -> np.ndarray:
        text = fn.data.windows(corpus.before(part, 3), 4)
        return np.asarray(LOSS.per_example(net.apply(params, text[:, :3]), text[:, 3])) / np.log(2)

    name = f"{fn.count_params(params)} weights"
    return Row("feed-forward, 3 characters", name, bits(corpus.validation).mean(), bits(corpus.test))


def is_new(corpus: Corpus, length: int = 20) -> np.ndarray:
    """Which characters of the test end a substring of that length that the training part does not contain, (N,)."""
    train, test = corpus.text(corpus.train), corpus.text(corpus.before(corpus.test, length - 1))
    seen = {train[i : i + length] for i in range(len(train) - length + 1)}
    return np.array([test[i : i + length] not in seen for i in range(len(test) - length + 1)])


def print_rows(rows: Sequence[Row], new: np.ndarray) -> None:
    """Prints the table, and the network beside the best n-gram."""
    shown = (
        (
            row.name,
            row.size,
            *(f"{bits:.3f}" for bits in (row.validation, row.test.mean(), row.test[new].mean())),
        )
        for row in rows
    )
    print(f"\nbits per character; {new.mean():.0%} of the test's characters are new")
    print(table(("model", "size", "validation", "test", "test, new only"), shown))
    *ngrams, _, net = rows
    best = min(ngrams, key=lambda row: row.validation)
    ours, theirs = net.test.mean(), best.test.mean()
    print(f"\n{net.name}: {ours:.3f} bits per character; {best.name}, the best by validation: {theirs:.3f}")
    print(f"the network needs {abs(1 - ours / theirs):.1%} {'less' if ours < theirs else 'more'}")


def print_samples(net: fn.Layer, params: Any, corpus: Corpus, length: int) -> None:
    """Prints what the network writes after the last whole paragraph of the validation part."""
    end = max(corpus.text(corpus.validation).rfind("\n\n") + 2, BURN_IN)
    read = jnp.asarray(corpus.validation[end - BURN_IN : end])
    _, carry, _ = jax.jit(net.forward)(params, read[:-1])
    print(f"\nthe network continues after {corpus.text(read[-60:])!r}")
    write = jax.jit(partial(fn.generate, net), static_argnames="length")
    for temperature in (0.8, 1.0):
        ids, _ = write(
            params, carry, read[-1], length=length, key=jax.random.key(SEED), temperature=temperature
        )
        print(f"\n--- temperature {temperature}\n{corpus.text(ids)}")


def draw(figure: Any, rows: Sequence[Row], curve: np.ndarray) -> None:
    """The learning curve, and each model's bits by its size."""
    left, right = figure.subplots(1, 2)
    *ngrams, window, net = rows
    best = min(ngrams, key=lambda row: row.validation)
    left.plot(curve[:, 0], curve[:, 1], ".-", color=GREY, label="network, training (with dropout)")
    left.plot(curve[:, 0], curve[:, 2], ".-", color=BLUE, label="network, validation")
    left.axhline(best.validation, color=ORANGE, label=f"{best.name}, validation")
    left.set(xlabel="epoch", title="Bits per character while learning")
    left.legend()

    def point(row: Row) -> tuple[int, float]:
        return int(row.size.split()[0]), float(row.test.mean())

    right.semilogx(*zip(*map(point, ngrams), strict=True), "o-", color=ORANGE, label="n-grams: counts")
    for n, row in enumerate(ngrams, 1):
        right.annotate(f"order {n}", point(row), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    for row, colour in ((window, GREEN), (net, BLUE)):
        right.semilogx(*point(row), "o", color=colour, label=f"{row.name}: weights")
    right.tick_params(axis="x", which="minor", labelbottom=False)
    right.set(xlabel="counts or weights", title="Bits per character of the test, by size")
    right.legend()


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, tests once, writes some text."""
    chosen = options(__doc__, argv, text_option, full_option)
    setting = QUICK if chosen.quick else FULL if chosen.full else SHORT
    corpus = load(chosen.text, 60_000 if chosen.quick else None)
    print(f"{described(corpus)}\n")

    net = network(len(corpus.letters), setting)
    print(f"{fn.summary(net, jnp.zeros((STREAMS, WINDOW), int))}\n")
    learned = trained(net, corpus, setting)
    validation = information(net, learned.params, corpus, corpus.validation).mean()
    test = information(net, learned.params, corpus, corpus.test)
    ours = Row(f"LSTM, {setting.units} units", f"{fn.count_params(learned.params)} weights", validation, test)
    rows = [*of_ngrams(corpus), of_window(corpus, 1 if chosen.quick else 3), ours]
    print_rows(rows, is_new(corpus))
    print_samples(net, learned.params, corpus, 50 if chosen.quick else 500)
    with picture(chosen.out / "char_lm.png", 11, 4.6) as figure:
        draw(figure, rows, learned.curve)
    return 0


if __name__ == "__main__":
    run(main)
