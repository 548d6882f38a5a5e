"""Hidden Markov models find the vowels, and n-grams beat them: `python examples/studies/markov_baseline.py`.

A hidden Markov model emits a letter x_t from a hidden state z_t, and then moves to the next state:

    P(z_1 = i) = π_i,  P(z_t+1 = j | z_t = i) = A_ij,  P(x_t = v | z_t = i) = B_iv

π and the rows of A and B are softmaxes of the logits, which are the params. The likelihood is a scan (the forward
algorithm), rescaled at every step so that nothing underflows; its products with A and B sum over all paths:

    α_1(j) = π_j B_j(x_1) / s_1,  α_t(j) = Σ_i α_t−1(i) A_ij B_j(x_t) / s_t,  s_t so that Σ_j α_t(j) = 1
    log P(x) = Σ_t log s_t

Derivation. The derivative of log P(x) with respect to the logarithm of a parameter is the expected number of times that
a path uses this parameter, given x: ∂ log P / ∂ log A_ij = E[number of moves from i to j | x] (Fisher's identity). These
expected counts are the E-step of Baum and Welch. A second scan, backward in time, gives them:

    β_T(i) = 1,  β_t−1(i) = Σ_j A_ij B_j(x_t) β_t(j) / s_t
    states  γ_t(i) = α_t(i) β_t(i)
    moves   ξ_ij = A_ij Σ_t>1 α_t−1(i) B_j(x_t) β_t(j) / s_t

The softmax has ∂ log A_ij / ∂a_ik = [j = k] − A_ik, and so the gradient with respect to the logits is

    dπ_i = γ_1(i) − π_i,  da_ij = ξ_ij − A_ij Σ_k ξ_ik,  db_iv = Σ_{t: x_t=v} γ_t(i) − B_iv Σ_t γ_t(i)

The text is reduced to lower-case letters and blanks. With two states the model separates vowels from consonants without
being told about them. The test is the last tenth of the text; an n-gram of order n sees n letters back, the model only
its state. The best of a few starts is chosen by the likelihood of the training part.

`--text FILE` reads another text; `--quick` trains small models for a few steps; `--out DIR` is the folder for the picture.

References: Baum, Petrie, Soules & Weiss, Annals of Mathematical Statistics 41 (1970); Rabiner, Proceedings of the IEEE
77 (1989), eqs. 19-27 and 91-94 (scaling); Cave & Neuwirth (1980) first saw the vowels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, options, picture, progress, run, table
from support.corpus import Corpus, described, read, split_text, text_option
from support.ngrams import bits, fitted, stored

import fnnets as fn

ORDERS = 6
STREAMS, LENGTH, STEPS, STARTS, SEED = 128, 100, 300, 8, 0
COLOURS = (ORANGE, BLUE, GREEN, PURPLE, RED)


class HMM(NamedTuple):
    """The logits of a hidden Markov model with K states and V symbols."""

    start: jax.Array  # (K,) of π
    move: jax.Array  # (K, K) of A, from row to column
    emit: jax.Array  # (K, V) of B


def init(key: jax.Array, states: int, size: int) -> HMM:
    """Random logits; from equal ones, all states would stay equal."""
    keys = jax.random.split(key, 3)
    shapes = ((states,), (states, states), (states, size))
    return HMM(*(0.5 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)))


def scaled_forward(params: HMM, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """α (T, …, K) and s (T, …) of the texts x (T, …)."""
    first, move, emit = map(jax.nn.softmax, params)
    emitted = emit.T[x]  # (T, …, K)

    def step(state: jax.Array, emitted: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        alpha = state * emitted
        s = alpha.sum(-1)
        alpha = alpha / s[..., None]
        return alpha @ move, (alpha, s)

    _, (alpha, s) = jax.lax.scan(step, jnp.broadcast_to(first, emitted.shape[1:]), emitted)
    return alpha, s


def log_likelihood(params: HMM, x: jax.Array) -> jax.Array:
    """log P(x) of the texts x (T, …), summed over them: the forward algorithm."""
    return jnp.log(scaled_forward(params, x)[1]).sum()


def backward(params: HMM, x: jax.Array, s: jax.Array) -> jax.Array:
    """β (T, …, K): the second scan, backward in time."""
    _, move, emit = map(jax.nn.softmax, params)

    def step(beta: jax.Array, emitted: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (emitted * beta) @ move.T, beta

    emitted = emit.T[x] / s[..., None]
    return jax.lax.scan(step, jnp.ones_like(emitted[0]), emitted, reverse=True)[1]


def expected_counts(params: HMM, x: jax.Array) -> tuple[jax.Array, HMM]:
    """log P(x), and the expected counts of each start, move and emission, given x (T, N)."""
    _, move, emit = map(jax.nn.softmax, params)
    alpha, s = scaled_forward(params, x)
    beta = backward(params, x, s)
    gamma = alpha * beta
    moves = move * jnp.einsum("tni,tnj->ij", alpha[:-1], (emit.T[x] / s[..., None] * beta)[1:])
    emissions = jnp.zeros_like(emit.T).at[x].add(gamma).T
    return jnp.log(s).sum(), HMM(gamma[0].sum(0), moves, emissions)


def value_and_grad(params: HMM, x: jax.Array) -> tuple[jax.Array, HMM]:
    """log P(x), and its gradient with respect to the logits: expected counts minus their total times the softmax."""
    value, counts = expected_counts(params, x)
    return value, jax.tree.map(
        lambda count, logits: count - count.sum(-1, keepdims=True) * jax.nn.softmax(logits), counts, params
    )


def compared() -> fn.Report:
    """The gradient by hand compared with autodiff and differences, on three short texts."""
    x = jax.random.randint(jax.random.key(1), (12, 3), 0, 5)
    params = init(jax.random.key(2), 3, 5)
    return fn.compare_grad(log_likelihood, lambda params, x: value_and_grad(params, x)[1], params, x)


def streams(ids: np.ndarray) -> jax.Array:
    """The text as a hundred parallel stretches, (T, 100): short, wide scans are fast."""
    return jnp.asarray(ids[: len(ids) // 100 * 100].reshape(100, -1).T)


def trained(corpus: Corpus, states: int, starts: int, steps: int) -> HMM:
    """The best of several starts, all trained at the same time."""
    text, updater = jnp.asarray(corpus.train), optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def step(state: Any, x: jax.Array) -> Any:
        params, memory = state
        _, grads = value_and_grad(params, x)
        updates, memory = updater.update(jax.tree.map(lambda leaf: -leaf / x.size, grads), memory)
        return optax.apply_updates(params, updates), memory

    @jax.jit
    def some_steps(state: Any, keys: jax.Array) -> Any:
        def on_a_batch(state: Any, key: jax.Array) -> tuple[Any, None]:
            places = jax.random.randint(key, (STREAMS,), 0, len(text) - LENGTH)
            x = text[places + jnp.arange(LENGTH)[:, None]]
            return jax.vmap(step, in_axes=(0, None))(state, x), None

        return jax.lax.scan(on_a_batch, state, keys)[0]

    init_key, key = jax.random.split(jax.random.key(SEED))
    params = jax.vmap(lambda key: init(key, states, len(corpus.letters)))(jax.random.split(init_key, starts))
    state = params, jax.vmap(updater.init)(params)
    for keys in progress(jax.random.split(key, (10, steps // 10)), f"{states} states"):
        state = some_steps(state, keys)
    likelihoods = jax.jit(jax.vmap(log_likelihood, in_axes=(0, None)))(state[0], streams(corpus.train))
    return jax.tree.map(lambda leaf: leaf[likelihoods.argmax()], state[0])


def bits_per_character(params: HMM, corpus: Corpus) -> float:
    """Bits per character of the test part, read from a hundred letters before it."""
    s = jax.jit(scaled_forward)(params, jnp.asarray(corpus.before(corpus.test, 100)))[1]
    return float(-jnp.log2(s[100:]).mean())


def letters_only(text: str) -> str:
    """Lower-case letters, with one blank for everything between them."""
    return re.sub(r"[\W\d_]+", " ", text.lower())


def share_of_states(params: HMM, corpus: Corpus) -> np.ndarray:
    """P(state | letter), (V, K), the mean over the letter's places in the training part."""
    counts = np.asarray(jax.jit(expected_counts)(params, streams(corpus.train))[1].emit.T)
    return counts / counts.sum(-1, keepdims=True).clip(min=1e-9)


def most_common(corpus: Corpus, number: int) -> np.ndarray:
    """The ids of the most common letters of the training part, at most `number`, sorted by id."""
    counts = np.bincount(corpus.train, minlength=len(corpus.letters))
    return np.sort(np.argsort(-counts, kind="stable")[:number][: int((counts > 0).sum())])


def written(corpus: Corpus, ids: np.ndarray) -> list[str]:
    """The letters, with a visible sign for the blank."""
    return [corpus.letters[i].replace(" ", "␣") for i in ids]


def free(params: HMM) -> int:
    """The number of free parameters: a softmax over V logits has V − 1."""
    return sum(leaf.size // leaf.shape[-1] * (leaf.shape[-1] - 1) for leaf in params)


def print_states(params: HMM, shares: np.ndarray, corpus: Corpus) -> None:
    """Prints the moves of each state, and the letters that it emits more often than the other states."""
    moves, shown = np.asarray(jax.nn.softmax(params.move)), most_common(corpus, 27)
    owner = shares[shown].argmax(1)
    head = ("state", *(f"to {j + 1}" for j in range(len(moves))), "letters mostly from this state")
    rows = (
        (k + 1, *(f"{p:.2f}" for p in moves[k]), " ".join(written(corpus, shown[owner == k])))
        for k in range(len(moves))
    )
    print(f"\n{table(head, rows)}")


def draw_shares(axes: Any, shares: np.ndarray, corpus: Corpus) -> None:
    """A bar for each letter, divided by P(state | letter)."""
    shown = most_common(corpus, 27)
    shown = shown[np.lexsort((shown, -shares[shown].max(1), shares[shown].argmax(1)))]
    bottom = np.zeros(len(shown))
    for k, share in enumerate(shares[shown].T):
        axes.bar(range(len(shown)), share, bottom=bottom, color=COLOURS[k], label=f"state {k + 1}")
        bottom += share
    axes.set_xticks(range(len(shown)), written(corpus, shown))
    axes.set(
        ylabel="P(state | letter)", ylim=(0, 1), title=f"{shares.shape[1]} states: which emits a letter?"
    )
    axes.grid(False)


def draw_text(axes: Any, params: HMM, corpus: Corpus, width: int = 92, lines: int = 4) -> None:
    """The beginning of the test part, each letter in the colour of its most probable state."""
    x = corpus.test[: width * lines]
    alpha, s = scaled_forward(params, x)
    states = np.asarray(alpha * backward(params, x, s)).argmax(-1)
    for i, (letter, state) in enumerate(zip(corpus.text(x), states, strict=True)):
        axes.text(i % width, i // width, letter, color=COLOURS[state], family="monospace", ha="center")
    axes.set(xlim=(-1, width), ylim=(lines - 0.5, -0.7))
    axes.set_axis_off()
    title = f"The test's first letters, by their most probable of {alpha.shape[-1]} states"
    axes.set_title(title, loc="left")


def draw_bits(axes: Any, hidden: dict[int, float], markov: np.ndarray) -> None:
    """Bits per character by the number of states, and those of the n-grams."""
    axes.semilogx(list(hidden), list(hidden.values()), "o-", base=2, color=BLUE, label="hidden Markov model")
    for n, value in enumerate(markov):
        axes.axhline(value, color=GREY, linewidth=1)
        place = {"x": 0.98 - 0.14 * (n % 4), "va": "bottom" if n % 2 else "top", "ha": "right"}
        axes.text(
            y=value, s=f"order {n}", color=GREY, fontsize=8, transform=axes.get_yaxis_transform(), **place
        )
    axes.set_xticks(list(hidden), list(hidden))
    axes.minorticks_off()
    axes.set(xlabel="states", title="Bits per character of the test, n-grams in grey")


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the gradient, trains with it, and compares the models with n-grams."""
    chosen = options(__doc__, argv, text_option)
    print(f"{compared()}\n")
    name, text = read(chosen.text)
    corpus = split_text(name, letters_only(text))
    print(described(corpus))

    markov = fitted(corpus.train, len(corpus.letters), ORDERS)
    markov_bits = bits(markov, corpus.before(corpus.test, ORDERS))
    models, shares = {}, {}
    for states in (2,) if chosen.quick else (2, 3, 4, 8, 16, 32, 64):
        starts, steps = (2, 20) if chosen.quick else (STARTS if states <= 4 else 1, STEPS)
        models[states] = trained(corpus, states, starts, steps)
        if states <= 3:
            shares[states] = share_of_states(models[states], corpus)
            print_states(models[states], shares[states], corpus)
    hidden_bits = {states: bits_per_character(params, corpus) for states, params in models.items()}

    rows = [
        (f"hidden Markov model, {states} states", f"{free(models[states])} probabilities", f"{value:.3f}")
        for states, value in hidden_bits.items()
    ]
    rows += [
        (f"n-gram of order {n}", f"{size} counts", f"{value:.3f}")
        for n, (size, value) in enumerate(zip(stored(markov), markov_bits, strict=True))
    ]
    print(f"\n{table(('model', 'size', 'test, bits per character'), rows)}")
    with picture(chosen.out / "markov_baseline.png", 11, 8.5) as figure:
        left = [[str(states), "bits"] for states in shares]
        panels = figure.subplot_mosaic([*left, ["text", "text"]], height_ratios=[2] * len(left) + [1])
        for states, share in shares.items():
            draw_shares(panels[str(states)], share, corpus)
        draw_bits(panels["bits"], hidden_bits, markov_bits)
        draw_text(panels["text"], models[2], corpus)
    return 0


if __name__ == "__main__":
    run(main)
