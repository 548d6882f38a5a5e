"""Overfitting and its remedies: `python examples/studies/regularisation.py`.

A network with 64 hidden units, 4810 weights and biases, learns 200 of scikit-learn's handwritten digits until it gets
every one right: once with the correct labels, and once with 30 of the 200 labels wrong, which it memorises as well. The
remedies, each alone:

- L1, λΣ|w|, which moves every weight by ηλ towards 0 in a step of gradient descent, however small the weight is. A
  weight that the data do not need ends near 0, not at it: a step of ηλ passes 0, and the next one returns.
- L1 by shrinking, the same penalty by a proximal step: after each step on the loss alone, w becomes
  sgn(w)·max(|w| − ηλ, 0), which stops at 0. Only here are weights exactly 0.
- L2, λ/2·Σw², which shrinks a weight by the factor 1 − ηλ: large weights lose much, small ones little, and none
  reaches 0.
- Dropout of the hidden units; batch norm before their relu.
- Early stopping: the params with the lowest validation loss, from the run without a remedy.

With correct labels there is little to gain: here memorising all pictures costs hardly any accuracy, and increases the
loss a little. With wrong labels it costs 13 points of 93. Early stopping and dropout regain 7 of them, L2 4 and L1 3;
batch norm alone learns fastest and regains none.

Every seed draws its own 200 pictures, wrong labels, initial weights and batches, the same for all methods. The methods
are compared seed by seed: the gain is over "nothing", ± its standard error. 357 other pictures choose λ, the rate of
dropout and when to stop; 540 more, the test part, are used once, at the end. Both have correct labels. Pixels are scaled
from 0…16 to −1…1, which needs no statistics. All strengths, labels and seeds of a network are one vmapped `lax.scan`,
with the gradient by hand.

The bottom of the picture shows why L1 makes weights 0 and L2 does not. Minimising E + λΣ|w| or E + λ/2·Σw² means
minimising E where Σ|w| ≤ t or Σw² ≤ t². For two weights these regions are a diamond and a disc, and E is least where a
contour of E touches the region: at a corner of the diamond, if t is small enough. E is the squared error of telling 8s
from 3s by two pixels. The touching point is computed, for the t in the picture and, dotted, for every other t.

`--quick` takes fewer pictures, seeds, strengths and epochs, and no dropout; `--out DIR` is the folder for the picture.

Tibshirani (1996), figure 2, for the diamond; Srivastava et al. (2014) for dropout; Ioffe & Szegedy (2015) for batch
norm; Daubechies, Defrise & De Mol (2004) for shrinking; Prechelt, Early stopping - but when? (1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support.common import options, picture, progress, run, table
from support.regularisation_pictures import draw

import fnnets as fn

UNITS, BATCH, RATE, EVERY = 64, 20, 0.1, 5  # the validation loss is measured after every 5th epoch
WRONG = 0.15
LABELS = ("correct labels", f"{WRONG:.0%} of the labels wrong")
TINY = 1e-3
LOSS = fn.losses.softmax_cross_entropy()

Part = tuple[jax.Array, jax.Array]  # pictures (…, 64) and their digits (…)


class Size(NamedTuple):
    """The size of the study."""

    pictures: int
    seeds: int
    epochs: int
    l1: tuple[float, ...]
    l2: tuple[float, ...]
    dropout: tuple[float, ...]


FULL = Size(200, 10, 150, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (1e-3, 3e-3, 1e-2, 3e-2), (0.25, 0.5, 0.75, 0.9))
QUICK = Size(60, 2, 20, (1e-3,), (1e-2,), ())


class Strength(NamedTuple):
    """The strength λ of each penalty; 0 for none."""

    l1: float = 0.0
    shrink: float = 0.0
    l2: float = 0.0


class Data(NamedTuple):
    """The training part of each of S seeds, with both kinds of labels, and the validation and test parts."""

    x: jax.Array  # (S, N, 64)
    t: jax.Array  # (2, S, N), the correct labels, and those with some wrong
    order: jax.Array  # (S, checks, steps, BATCH), the pictures of every step
    validation: Part
    test: Part


class Run(NamedTuple):
    """The result of training."""

    last: Any  # params after the last epoch
    best: Any  # params where the validation loss was lowest
    curves: jax.Array  # (checks, 2, 2): of the training and of the validation part, loss and accuracy


class Candidate(NamedTuple):
    """A method at one strength, with one kind of labels; the leaves of `run` are (S, …)."""

    strength: str
    net: fn.Layer
    run: Run


class Found(NamedTuple):
    """A method at its chosen strength."""

    strength: str
    curves: np.ndarray  # (S, checks, 2, 2)
    at: np.ndarray  # (S,), the check at which the params were taken
    weights: np.ndarray  # (S, W), all kernels
    test: np.ndarray  # (S, 2), loss and accuracy

    def reached(self) -> np.ndarray:
        """The curves at that check, the mean over the seeds, (2, 2)."""
        return self.curves[np.arange(len(self.at)), self.at].mean(0)


def load(size: Size) -> Data:
    """The digits, split into parts; each seed's sample has equal shares of each digit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    def split(x: np.ndarray, t: np.ndarray, count: int, seed: int) -> tuple[Any, Any]:
        x, taken_x, t, taken_t = train_test_split(x, t, test_size=count, stratify=t, random_state=seed)
        return (x, t), (taken_x, taken_t)

    pixels, digits = load_digits(return_X_y=True)
    rest, test = split(np.float32(pixels / 8 - 1), digits, 540, 0)
    pool, validation = split(*rest, 357, 0)
    samples = []
    for seed in range(size.seeds):
        _, (x, t) = split(*pool, size.pictures, seed)
        random = np.random.default_rng(seed)
        wrong = random.permutation(len(t)) < WRONG * len(t)
        mistaken = np.where(wrong, (t + random.integers(1, 10, len(t))) % 10, t)
        order = random.permuted(np.tile(np.arange(len(t)), (size.epochs, 1)), axis=1)
        samples.append((x, t, mistaken, order.reshape(size.epochs // EVERY, -1, BATCH)))
    x, t, mistaken, order = map(np.stack, zip(*samples, strict=True))
    return jax.tree.map(jnp.asarray, Data(x, np.stack([t, mistaken]), order, validation, test))


def network(*, rate: float = 0.0, norm: bool = False) -> fn.Layer:
    """The network, with dropout at that rate, and batch norm if `norm`."""
    hidden = fn.dense(UNITS, kernel_init=jax.nn.initializers.he_uniform())
    normalised = (fn.batch_norm(),) if norm else ()
    return fn.serial(hidden, *normalised, fn.relu(), fn.dropout(rate), fn.dense(10))


def scores(net: fn.Layer, params: Any, part: Part) -> jax.Array:
    """Loss and accuracy in inference, (2,)."""
    x, t = part
    y = net.apply(params, x)
    return jnp.stack([LOSS.apply(y, t), (y.argmax(-1) == t).mean()])


@partial(jax.jit, static_argnums=0)
def scores_of_seeds(net: fn.Layer, params: Any, part: Part) -> jax.Array:
    """The same for S networks, (S, 2)."""
    return jax.vmap(lambda params: scores(net, params, part))(params)


def shrunk(params: Any, by: jax.Array) -> Any:
    """The proximal step of L1: moves every weight by `by` towards 0, but not past it."""
    return jax.tree.map(
        lambda kernel, w: jnp.sign(w) * jnp.maximum(jnp.abs(w) - by, 0) if kernel else w,
        fn.kernels(params),
        params,
    )


def trained(
    net: fn.Layer,
    params: Any,
    strength: Strength,
    key: jax.Array,
    x: Any,
    t: Any,
    order: Any,
    validation: Part,
) -> Run:
    """Trains one network."""
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)
    penalties, updater = (fn.l1(strength.l1), fn.l2(strength.l2)), fn.updaters.sgd(RATE)

    def step(state: Any, batch: jax.Array) -> tuple[Any, None]:
        params, memory = state
        draw = jax.random.fold_in(key, memory.count)
        (_, aux), grads = value_and_grad(params, x[batch], t[batch], key=draw, train=True)
        for penalty in penalties:
            _, saved = penalty.forward(params)
            grads = jax.tree.map(jnp.add, grads, penalty.backward(saved))
        updates, memory = updater.update(grads, memory, params)
        params = shrunk(optax.apply_updates(params, updates), RATE * strength.shrink)
        return (net.update_stats(params, aux.saved), memory), None

    def check(carry: Any, batches: jax.Array) -> tuple[Any, jax.Array]:
        state, best, lowest = carry
        state, _ = jax.lax.scan(step, state, batches)
        measured = jnp.stack([scores(net, state[0], part) for part in ((x, t), validation)])
        loss = measured[1, 0]
        best = jax.tree.map(lambda new, old: jnp.where(loss < lowest, new, old), state[0], best)
        return (state, best, jnp.minimum(loss, lowest)), measured

    start = ((params, updater.init(params)), params, jnp.inf)
    (state, best, _), curves = jax.lax.scan(check, start, order)
    return Run(state[0], best, curves)


def runs(net: fn.Layer, strengths: Sequence[Strength], data: Data) -> list[list[Run]]:
    """The network at all strengths, with both kinds of labels, from all seeds: [strength][labels], (S, …)."""
    keys = jax.random.split(jax.random.key(0), len(data.x))
    starts = [net.init(key, x) for key, x in zip(keys, data.x, strict=True)]  # outside jit: compiles faster
    params = jax.tree.map(lambda *each: jnp.stack(each), *starts)
    seeds = jax.vmap(partial(trained, net), in_axes=(0, None, 0, 0, 0, 0, None))
    labels = jax.vmap(seeds, in_axes=(None, None, None, None, 0, None, None))
    everything = jax.jit(jax.vmap(labels, in_axes=(None, 0, None, None, None, None, None)))
    stacked = jax.tree.map(lambda *each: jnp.array(each), *strengths)
    found = jax.device_get(everything(params, stacked, keys, data.x, data.t, data.order, data.validation))

    def one(i: int, kind: int) -> Run:
        return jax.tree.map(lambda leaf: leaf[i, kind], found)

    return [[one(i, kind) for kind in range(len(LABELS))] for i in range(len(strengths))]


def candidates(size: Size, data: Data) -> list[dict[str, list[Candidate]]]:
    """Every method at every strength, for each kind of labels."""
    penalised = [
        ("nothing", "", Strength()),
        *(("L1", f"λ = {rate:g}", Strength(l1=rate)) for rate in size.l1),
        *(("L1 by shrinking", f"λ = {rate:g}", Strength(shrink=rate)) for rate in size.l1),
        *(("L2", f"λ = {rate:g}", Strength(l2=rate)) for rate in size.l2),
    ]
    programs = [
        (network(), penalised),
        *((network(rate=rate), [("dropout", f"rate {rate:g}", Strength())]) for rate in size.dropout),
        (network(norm=True), [("batch norm", "", Strength())]),
    ]
    found: list[dict[str, list[Candidate]]] = [{} for _ in LABELS]
    for net, tried in progress(programs, "networks"):
        results = runs(net, [strength for *_, strength in tried], data)
        for (name, label, _), result in zip(tried, results, strict=True):
            for kind, each in zip(found, result, strict=True):
                kind.setdefault(name, []).append(Candidate(label, net, each))
    return found


def weights(params: Any) -> np.ndarray:
    """All kernels of S networks, (S, W)."""
    chosen = zip(jax.tree.leaves(params), jax.tree.leaves(fn.kernels(params)), strict=True)
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf, kernel in chosen if kernel], axis=1)


def tested(tried: dict[str, list[Candidate]], test: Part) -> dict[str, Found]:
    """Each method at the strength with the lowest validation loss, and early stopping, tested once."""

    def found(strength: str, candidate: Candidate, params: Any, at: np.ndarray) -> Found:
        on_test = np.asarray(scores_of_seeds(candidate.net, params, test))
        return Found(strength, candidate.run.curves, at, weights(params), on_test)

    results = {}
    for name, each in tried.items():
        best = min(each, key=lambda candidate: candidate.run.curves[:, -1, 1, 0].mean())
        seeds, checks = best.run.curves.shape[:2]
        results[name] = found(best.strength, best, best.run.last, np.full(seeds, checks - 1))
        if name == "nothing":
            lowest = best.run.curves[:, :, 1, 0].argmin(1)
            epoch = EVERY * (lowest.mean() + 1)
            results["early stopping"] = found(f"epoch {epoch:.0f} (mean)", best, best.run.best, lowest)
    return results


def report(results: list[dict[str, Found]]) -> str:
    """A table of every method with both kinds of labels; means over the seeds, ± the deviation over the seeds."""
    rows: list[tuple[Any, ...]] = []
    for kind, methods in zip(LABELS, results, strict=True):
        rows.append((f"{kind}:", *[""] * 11))
        for name, one in methods.items():
            (train_loss, train_accuracy), (validation_loss, validation_accuracy) = one.reached()
            accuracy, gain = one.test[:, 1], one.test[:, 1] - methods["nothing"].test[:, 1]
            rows.append(
                (
                    f"  {name}",
                    one.strength,
                    f"{train_loss:.3f}",
                    f"{train_accuracy:.1%}",
                    f"{validation_loss:.3f}",
                    f"{validation_accuracy:.1%}",
                    f"{one.test[:, 0].mean():.3f}",
                    f"{accuracy.mean():.1%} ± {accuracy.std(ddof=1):.1%}",
                    ""
                    if name == "nothing"
                    else f"{100 * gain.mean():+.1f} ± {100 * standard_error(gain):.1f}",
                    f"{np.mean(np.abs(one.weights) < TINY):.1%}",
                    f"{np.mean(one.weights == 0):.1%}",
                    f"{np.linalg.norm(one.weights, axis=1).mean():.1f}",
                )
            )
    head = ("", "strength", "training loss", "accuracy", "validation loss", "accuracy", "test loss")
    return table((*head, "test accuracy", "gain", f"|w| < {TINY:g}", "w = 0", "norm of w"), rows)


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean of the values."""
    return float(values.std(ddof=1) / len(values) ** 0.5)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, chooses, tests once, prints and draws."""
    chosen = options(__doc__, argv)
    size = QUICK if chosen.quick else FULL
    data = load(size)
    results = [tested(tried, data.test) for tried in candidates(size, data)]
    print(report(results))
    with picture(chosen.out / "regularisation.png", 15, 9) as figure:
        draw(figure, results, LABELS, EVERY)
    return 0


if __name__ == "__main__":
    run(main)
