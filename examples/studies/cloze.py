"""Guessing a missing character from one side and from both sides: `python examples/studies/cloze.py`.

A network guesses a character of a text from the characters around it. The bidirectional one reads the text before and
after the character; the other one, with as many parameters, reads only the text before. Neither sees the character
itself: from the states a_t, which has read x_1 … x_t, and b_t, which has read x_T … x_t, the layer `beside` takes

    y_t = [a_t−1, b_t+1]

with zeros beyond the ends, so that one pass guesses every character of a stretch at once. Derivation: a_t is part of
y_t+1 alone, and b_t of y_t−1 alone, so with dy = [dy^a, dy^b]

    da_t = dy^a_t+1,  db_t = dy^b_t−1

The test replaces one character at a time in the last tenth of the text by an unknown symbol, and shows 40 characters
on either side. From one side, the n-gram guesses the most probable character after those before it. From both sides,
it guesses the one that makes the whole most probable: the c with the greatest Π_k P(x_t+k | x_t+k−n … x_t+k−1),
k = 0 … n. Its order n is chosen on the tenth before the last.

`--text FILE` reads another text; `--quick` trains for a few steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREY, ORANGE, PURPLE, RED, options, picture, progress, run, table
from support.corpus import Corpus, described, load, text_option
from support.ngrams import Ngrams, bits, fitted, probabilities

import fnnets as fn

BATCH, LENGTH, RATE, SEED = 32, 64, 6e-3, 0
SIDE = 40  # characters on either side of a missing one
LOSS = fn.losses.softmax_cross_entropy()
COLOURS = {
    "n-gram, one side": GREY,
    "network, one side": ORANGE,
    "n-gram, both sides": PURPLE,
    "network, both sides": BLUE,
}

Guess = Callable[[np.ndarray], np.ndarray]  # from stretches (N, 2·SIDE + 1) to their missing ids, (N,)


def shifted(x: jax.Array, later: bool) -> jax.Array:
    """x (…, T, D) one step later or earlier, with zeros at the free end."""
    zeros = jnp.zeros_like(x[..., :1, :])
    parts = [zeros, x[..., :-1, :]] if later else [x[..., 1:, :], zeros]
    return jnp.concatenate(parts, -2)


def beside(sides: int) -> fn.Layer:
    """The state before each step, of x (…, T, H); with two sides also the state after it, of x (…, T, 2H)."""

    def moved(x: jax.Array, later: bool) -> jax.Array:
        a, *b = jnp.split(x, sides, -1)
        return jnp.concatenate([shifted(a, later), *(shifted(b, not later) for b in b)], -1)

    return fn.layer(
        init=lambda key, x: (),
        apply=lambda params, x: moved(x, later=True),
        forward=lambda params, x: (moved(x, later=True), ()),
        backward=lambda params, saved, dy: ((), moved(dy, later=False)),
        name=f"beside({sides})",
    )


def network(size: int, units: int, sides: int) -> fn.Layer:
    """A recurrent layer in one direction or in both, and an answer for each step from the states beside it."""
    reader = fn.gru(units)
    return fn.serial(
        fn.embedding(size, 48),
        reader if sides == 1 else fn.bidirectional(reader),
        beside(sides),
        fn.dense(128),
        fn.relu(),
        fn.dense(size),
    )


def count_params(net: fn.Layer) -> int:
    """The number of parameters, without creating them."""
    return fn.count_params(jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, LENGTH), int)))


def two_networks(size: int, units: int) -> dict[str, fn.Layer]:
    """The bidirectional network, and the smallest one in one direction with at least as many parameters."""
    both = network(size, units, 2)
    wanted = count_params(both)
    one = next(net for more in count(units) if count_params(net := network(size, more, 1)) >= wanted)
    return {"network, one side": one, "network, both sides": both}


def trained(net: fn.Layer, corpus: Corpus, steps: int, name: str) -> Any:
    """The params after training on random stretches of the training part."""
    text, value_and_grad = jnp.asarray(corpus.train), fn.value_and_grad_by_hand(net, LOSS)
    rates = optax.warmup_cosine_decay_schedule(0, RATE, steps // 20, steps, RATE / 50)
    updater = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates, b2=0.99))

    @jax.jit
    def ten_steps(state: Any, keys: jax.Array) -> Any:
        def step(state: Any, key: jax.Array) -> tuple[Any, None]:
            params, memory = state
            places = jax.random.randint(key, (BATCH, 1), 0, len(text) - LENGTH + 1)
            x = text[places + jnp.arange(LENGTH)]
            _, grads = value_and_grad(params, x, x)
            updates, memory = updater.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory), None

        return jax.lax.scan(step, state, keys)[0]

    init_key, key = jax.random.split(jax.random.key(SEED))
    params = jax.jit(net.init)(init_key, text[:LENGTH])
    state = (params, updater.init(params))
    for keys in progress(jax.random.split(key, (steps // 10, 10)), name):
        state = ten_steps(state, keys)
    return state[0]


def by_network(net: fn.Layer, params: Any) -> Guess:
    """The network's guesses."""

    @jax.jit
    def guess(x: jax.Array) -> jax.Array:
        return net.apply(params, x)[:, SIDE].argmax(-1)

    def in_parts(x: np.ndarray) -> np.ndarray:  # parts of one length, so that it compiles once
        rows = np.pad(x, ((0, -len(x) % 500), (0, 0))).reshape(-1, 500, x.shape[1])
        return np.concatenate([np.asarray(guess(part)) for part in rows])[: len(x)]

    return in_parts


def by_ngram(model: Ngrams, sides: int) -> Guess:
    """The n-gram's guesses: the candidate with the most probable windows around the missing place."""

    def guess(x: np.ndarray) -> np.ndarray:
        n = model.order
        candidates = np.repeat(x[:, None], model.size, 1)
        candidates[:, :, SIDE] = np.arange(model.size)
        last = SIDE + (n if sides == 2 else 0)
        grams = (candidates[:, :, i - n : i + 1] for i in range(SIDE, last + 1))
        return sum(np.log(probabilities(model, gram)[n]) for gram in grams).argmax(-1)

    return guess


def best_ngram(corpus: Corpus, orders: int = 6) -> Ngrams:
    """The n-gram of order 1 to 6 with the fewest bits per character on the validation part."""
    model = fitted(corpus.train, len(corpus.letters), orders)
    n = 1 + int(bits(model, corpus.before(corpus.validation, orders))[1:].argmin())
    return Ngrams(model.size, model.tables[: n + 1])


def missing(corpus: Corpus, places: np.ndarray) -> np.ndarray:
    """The stretches of the test part around these places, with the unknown symbol in the middle, (N, 2·SIDE + 1)."""
    x = fn.data.windows(corpus.before(corpus.test, SIDE), 2 * SIDE + 1)[places].copy()
    x[:, SIDE] = 0
    return x


def kinds(characters: np.ndarray) -> dict[str, np.ndarray]:
    """A mask of the characters for each kind."""
    marks = {
        "letters": np.char.isalpha(characters),
        "digits": np.char.isdigit(characters),
        "blanks": np.char.isspace(characters),
    }
    return {"all": np.ones(len(characters), bool), **marks, "others": ~np.any(list(marks.values()), 0)}


def print_examples(corpus: Corpus, places: np.ndarray, guesses: dict[str, np.ndarray]) -> None:
    """Prints some of the places, with the missing character and the guesses."""
    x, rows = missing(corpus, places), []
    for i in np.linspace(0, len(places) - 1, 14).astype(int):
        sides = (corpus.text(x[i, SIDE - 18 : SIDE]), corpus.text(x[i, SIDE + 1 : SIDE + 13]))
        answers = (corpus.letters[ids[i]] for ids in (corpus.test[places], *guesses.values()))
        shown = ("□".join(sides), *answers)
        rows.append([text.replace("\n", "⏎").replace(" ", "␣") for text in shown])
    print(f"\n{table(('text', 'missing', *guesses), rows)}")


def draw_kinds(axes: Any, right: dict[str, np.ndarray], groups: dict[str, np.ndarray]) -> None:
    """The share of correct guesses, by the kind of character."""
    for i, (name, hits) in enumerate(right.items()):
        shares = [hits[group].mean() if group.any() else 0 for group in groups.values()]
        bars = axes.bar(np.arange(len(groups)) + (i - 1.5) / 5, shares, 0.18, color=COLOURS[name], label=name)
        axes.bar_label(bars, [f"{100 * share:.0f}" for share in shares], fontsize=7)
    names = [f"{name}\n({group.mean():.0%})" for name, group in groups.items()]
    axes.set_xticks(range(len(groups)), names)
    axes.set(ylim=(0, 1.2), title="Correct guesses, %, by kind of character")
    axes.set_yticks([])
    axes.legend(ncols=2, loc="upper right")


def draw_text(axes: Any, corpus: Corpus, guess: dict[str, Guess], width: int = 100) -> None:
    """A line of the test part, and below it every model's guess at each place, with mistakes in red."""
    stretches = fn.data.windows(np.arange(len(corpus.test) - SIDE), width)
    letters = np.char.isalpha(list(corpus.text(corpus.test)))
    places = stretches[letters[stretches].sum(1).argmax()]  # the stretch with the most letters
    lines = {"text": corpus.test[places]} | {
        name: one(missing(corpus, places)) for name, one in guess.items()
    }
    for row, (name, ids) in enumerate(lines.items()):
        axes.text(-1, row, name, ha="right", va="center", color=COLOURS.get(name, "black"))
        for column, (i, right) in enumerate(zip(ids, lines["text"], strict=True)):
            letter = corpus.letters[i].replace("\n", "⏎").replace(" ", "␣" if i != right else " ")
            colour, weight = ("black", "normal") if i == right else (RED, "bold")
            axes.text(
                column, row, letter, family="monospace", ha="center", va="center", color=colour, weight=weight
            )
    axes.set(xlim=(-18, width), ylim=(len(lines) - 0.5, -0.7))
    axes.set_axis_off()
    axes.set_title("Each character in turn is missing; wrong guesses in red")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains both networks; all models guess the same places."""
    chosen = options(__doc__, argv, text_option)
    corpus = load(chosen.text, 60_000 if chosen.quick else None)
    print(f"{described(corpus)}\n")
    x = jax.random.normal(jax.random.key(1), (2, 5, 6))
    print(f"{fn.compare(beside(2), (), x)}\n")

    nets = two_networks(len(corpus.letters), 16 if chosen.quick else 128)
    steps = 20 if chosen.quick else 1200
    markov = best_ngram(corpus)
    guess = {
        "n-gram, one side": by_ngram(markov, 1),
        "n-gram, both sides": by_ngram(markov, 2),
        **{name: by_network(net, trained(net, corpus, steps, name)) for name, net in nets.items()},
    }
    guess = {name: guess[name] for name in COLOURS}

    places = np.arange(0, len(corpus.test) - SIDE, 20 if chosen.quick else 10)
    guesses = {name: one(missing(corpus, places)) for name, one in guess.items()}
    right = {name: ids == corpus.test[places] for name, ids in guesses.items()}
    groups = kinds(np.array(list(corpus.text(corpus.test[places]))))
    sizes = {name: f"{count_params(net)} weights" for name, net in nets.items()}
    counts = f"{sum(len(level.grams) for level in markov.tables)} counts"
    rows = [
        (
            name,
            sizes.get(name, counts),
            *(f"{hits[group].mean():.1%}" for group in groups.values() if group.any()),
        )
        for name, hits in right.items()
    ]
    print(f"correct guesses at {len(places)} places of the test; the n-gram has order {markov.order}")
    print(table(("guess", "size", *(name for name, group in groups.items() if group.any())), rows))
    print_examples(corpus, places, guesses)
    with picture(chosen.out / "cloze.png", 12, 7) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(2, 1))
        draw_kinds(upper, right, groups)
        draw_text(lower, corpus, guess)
    return 0


if __name__ == "__main__":
    run(main)
