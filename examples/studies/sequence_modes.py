"""Five ways to use sequences, each trained by hand and tested on new data: `python examples/studies/sequence_modes.py`.

- **One to one**: a picture of a digit → its class; without a sequence, for comparison.
- **One to many**: a picture of a digit → its English name, letter by letter, like a caption. The encoder reads the
  picture as one step, and the decoder writes the name.
- **Many to one**: a line of Python's standard library → is it code, or text from a docstring? `fn.last` takes the
  state at the end of each line.
- **Many to many, through an encoder and a decoder**: a date as people write it → in ISO format ("March 7, 1974" →
  "1974-03-07"). In training the decoder reads the target, one step late (teacher forcing, `fn.shift_right`); in
  the test it reads its own output (`fn.generate`).
- **Many to many, in step**: each character of a line of code → is it part of a keyword, a name, a string …? This often
  depends on what follows, so the network reads the line in both directions (`fn.bidirectional`).

Lines, names and dates differ in length: they are padded, and masks distinguish steps from padding. All scores are on
held-out data: other pictures, other modules of the library, other days. A written sequence counts only if all of it is
correct.

The exit status is 1 if a network misses its score in `REQUIRED`.

`--quick` trains for a few steps; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from support import source_lines
from support.common import options, picture, progress, run, table
from support.sequence_pictures import draw

import fnnets as fn

LOSS = fn.losses.softmax_cross_entropy()
REQUIRED = {  # the least score of each
    "one to one": 0.95, "one to many": 0.95, "many to one": 0.90, "encoder to decoder": 0.97, "in step": 0.97,
}  # fmt: skip
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = " " + "".join(sorted(set("".join(NAMES))))  # a space begins and ends a name
DATE = "0123456789-"  # the characters of a date; "-" also begins it
ISO = 10  # the length of a date


class Examples(NamedTuple):
    """N examples, for training or testing."""

    x: Any  # (N, …), or a pair of such
    target: np.ndarray  # (N, …) integers
    mask: Any = None  # the network's
    loss_mask: Any = None  # the loss's

    def some(self, which: Any) -> Examples:
        """The selected examples."""
        return jax.tree.map(lambda a: a[which], self)


def trained(name: str, net: fn.Layer, data: Examples, steps: int, rate: float, batch: int = 64) -> Any:
    """The params after training by hand for that many batches."""
    clipped = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps))
    )
    updater = optax.flatten(clipped)  # all params as one vector, which compiles faster
    value_and_grad = fn.value_and_grad_by_hand(net, LOSS)
    data = jax.tree.map(jnp.asarray, data)

    def step(state: Any, which: jax.Array) -> tuple[Any, jax.Array]:
        params, memory = state
        now = data.some(which)
        masks = {"mask": now.mask, "loss_mask": now.loss_mask}
        (value, _), grads = value_and_grad(params, now.x, now.target, **masks)
        updates, memory = updater.update(grads, memory)
        return (optax.apply_updates(params, updates), memory), value

    @jax.jit
    def begin(key: Any) -> Any:
        params = net.init(key, data.some(slice(0, 1)).x)
        return params, updater.init(params)

    advance = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches)[0])
    state = begin(jax.random.key(0))
    batches = np.random.default_rng(0).integers(0, len(data.target), (10, steps // 10, batch))
    for some in progress(batches, name):
        state = advance(state, some)
    return state[0]


def written(net: fn.Layer, params: Any, source: Any, mask: Any, first: int, length: int) -> np.ndarray:
    """The ids that an encoder and a decoder write on their own, (N, length)."""
    encoder, decoder = net.info.children

    @jax.jit
    def write(params: Any, source: Any, mask: Any) -> jax.Array:
        y, carry, _ = encoder.forward(params[0], source, mask=mask)
        ids, _ = fn.generate(decoder, params[1], carry, jnp.full(len(y), first), length, temperature=0)
        return ids

    return np.asarray(write(params, source, mask))


class Digits(NamedTuple):
    """Pictures of digits and their classes."""

    x: np.ndarray  # (N, 64) in [0, 1]
    t: np.ndarray  # (N,)


def digits() -> tuple[Digits, Digits]:
    """scikit-learn's digits, split 7:3."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, t = load_digits(return_X_y=True)
    parts = train_test_split(np.float32(x) / 16, t, test_size=0.3, stratify=t, random_state=0)
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


def one_to_one(train: Digits, test: Digits, steps: int) -> np.ndarray:
    """The predicted classes of the test digits."""
    net = fn.serial(fn.dense(64), fn.relu(), fn.dense(10))
    params = trained("one to one", net, Examples(train.x, train.t), steps, 0.003)
    return np.asarray(jax.jit(net.apply)(params, test.x)).argmax(-1)


def one_to_many(train: Digits, test: Digits, steps: int) -> list[str]:
    """The written names of the test digits."""
    decoder = fn.serial(fn.embedding(len(LETTERS), 16), fn.gru(64), fn.dense(len(LETTERS)))
    net = fn.encoder_decoder(fn.gru(64), decoder)
    names = [np.array([LETTERS.index(letter) for letter in name + " "]) for name in NAMES]
    ids, mask = fn.pad_sequences(names)
    target, counts = ids[train.t], mask[train.t]
    x = train.x[:, None], np.asarray(fn.shift_right(target, 0))
    params = trained("one to many", net, Examples(x, target, (None, counts), counts), steps, 0.005)
    found = written(net, params, test.x[:, None], None, 0, ids.shape[1])
    return ["".join(LETTERS[i] for i in row).partition(" ")[0] for row in found]


class Verdict(NamedTuple):
    """The answers for lines of code and text."""

    lines: list[source_lines.Line]
    is_text: np.ndarray  # (N,)
    belief: np.ndarray  # (N, T), the probability of text after each character
    mask: np.ndarray  # (N, T)

    @property
    def score(self) -> float:
        """The share of lines whose last belief is correct."""
        last = np.take_along_axis(self.belief, self.mask.sum(1, keepdims=True) - 1, 1)[:, 0]
        return float(((last > 0.5) == self.is_text).mean())


Lines = tuple[list[source_lines.Line], list[source_lines.Line]]


def many_to_one(train: Lines, test: Lines, steps: int) -> Verdict:
    """Whether the test lines are text or code; there are equally many of both."""

    def balanced(lines: Lines) -> tuple[list[source_lines.Line], Examples]:
        rng, (code, text) = np.random.default_rng(0), lines
        code = [code[i] for i in rng.permutation(len(code))[: len(text)]]
        ids, mask = fn.pad_sequences([line.ids for line in code + text], source_lines.LONGEST)
        return code + text, Examples(ids, np.repeat([0, 1], [len(code), len(text)]), mask)

    reader, head = fn.serial(fn.embedding(len(source_lines.CHARACTERS), 16), fn.gru(32)), fn.dense(2)
    params = trained("many to one", fn.serial(reader, fn.last(), head), balanced(train)[1], steps, 0.01)

    @jax.jit
    def belief(params: Any, ids: Any, mask: Any) -> jax.Array:
        states = reader.apply(params[0], ids, mask=mask)
        return jax.nn.softmax(head.apply(params[2], states))[..., 1]

    lines, data = balanced(test)
    return Verdict(lines, data.target == 1, np.asarray(belief(params, data.x, data.mask)), data.mask)


class Dates(NamedTuple):
    """Days as people write them, and in ISO format."""

    people: list[str]
    computers: list[str]


def dates(seed: int, share: slice, count: int) -> Dates:
    """Days of 1900 to 2099 in one of three formats; `share` selects from all days, so disjoint shares share no day."""
    first, rng = datetime.date(1900, 1, 1), np.random.default_rng(seed)
    days = np.random.default_rng(0).permutation((datetime.date(2100, 1, 1) - first).days)[share]
    people, computers = [], []
    for number in rng.choice(days, count):
        day = first + datetime.timedelta(int(number))
        month, manner = day.strftime("%B"), rng.integers(3)
        people.append(
            f"{day.day} {month} {day.year}" if manner == 0
            else f"{month} {day.day}, {day.year}" if manner == 1
            else f"{day.day}.{day.month}.{day.year}"
        )  # fmt: skip
        computers.append(day.isoformat())
    return Dates(people, computers)


def encoder_to_decoder(train: Dates, test: Dates, steps: int) -> list[str]:
    """The ISO dates written for the test dates."""
    letters = sorted(set("".join(train.people)))

    def read(people: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return fn.pad_sequences([np.array([letters.index(letter) for letter in date]) for date in people], 18)

    decoder = fn.serial(fn.embedding(len(DATE), 16), fn.gru(96), fn.dense(len(DATE)))
    net = fn.encoder_decoder(fn.serial(fn.embedding(len(letters), 16), fn.gru(96)), decoder)
    source, mask = read(train.people)
    target = np.array([[DATE.index(letter) for letter in date] for date in train.computers])
    x, first = (source, np.asarray(fn.shift_right(target, DATE.index("-")))), DATE.index("-")
    params = trained("encoder to decoder", net, Examples(x, target, (mask, None)), steps, 0.01)
    found = written(net, params, *read(test.people), first, ISO)
    return ["".join(DATE[i] for i in row) for row in found]


class Tagged(NamedTuple):
    """The answers for each character."""

    lines: list[source_lines.Line]
    tags: np.ndarray  # (N, T), the answers
    target: np.ndarray  # (N, T), the correct tags
    mask: np.ndarray  # (N, T)
    baseline: float  # the score of always answering a character's most common tag

    @property
    def score(self) -> float:
        """The share of characters with the correct tag."""
        return float((self.tags == self.target)[self.mask].mean())


def in_step(train: Lines, test: Lines, steps: int) -> Tagged:
    """The tags of the characters of the test lines."""

    def padded(lines: list[source_lines.Line]) -> Examples:
        ids, mask = fn.pad_sequences([line.ids for line in lines], source_lines.LONGEST)
        tags, _ = fn.pad_sequences([line.tags for line in lines], source_lines.LONGEST)
        return Examples(ids, tags, mask, mask)

    many, tags = len(source_lines.CHARACTERS), len(source_lines.TAGS)
    net = fn.serial(fn.embedding(many, 16), fn.bidirectional(fn.gru(32)), fn.dense(tags))
    known, new = padded(train[0]), padded(test[0])
    params = trained("in step", net, known, steps, 0.01)
    found = jax.jit(net.apply)(params, new.x, mask=new.mask)

    counts = np.zeros((many, tags), int)
    np.add.at(counts, (known.x[known.mask], known.target[known.mask]), 1)
    baseline = (counts.argmax(1)[new.x] == new.target)[new.mask].mean()
    return Tagged(test[0], np.asarray(found).argmax(-1), new.target, new.mask, float(baseline))


class Found(NamedTuple):
    """The answers of all five networks in the test."""

    digits: Digits
    classes: np.ndarray
    names: list[str]
    verdict: Verdict
    dates: Dates
    iso: list[str]
    tagged: Tagged

    @property
    def correct_names(self) -> np.ndarray:
        """The names of the digits."""
        return np.array(NAMES)[self.digits.t]

    @property
    def scores(self) -> dict[str, float]:
        """The share of correct answers in each mode."""
        return {
            "one to one": float((self.classes == self.digits.t).mean()),
            "one to many": float((np.array(self.names) == self.correct_names).mean()),
            "many to one": self.verdict.score,
            "encoder to decoder": float(np.mean(np.array(self.iso) == np.array(self.dates.computers))),
            "in step": self.tagged.score,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and tests all five."""
    chosen = options(__doc__, argv)
    count = (lambda steps: 10) if chosen.quick else (lambda steps: steps)
    modules = source_lines.TRAIN[:2] if chosen.quick else source_lines.TRAIN
    known, new = source_lines.lines(modules), source_lines.lines(source_lines.TEST[: len(modules)])
    (pictures, tests), many = digits(), 500 if chosen.quick else 20_000
    days, others = dates(1, slice(0, 58_000), many), dates(2, slice(58_000, None), 500)
    found = Found(
        tests,
        one_to_one(pictures, tests, count(500)),
        one_to_many(pictures, tests, count(500)),
        many_to_one(known, new, count(800)),
        others,
        encoder_to_decoder(days, others, count(1500)),
        in_step(known, new, count(800)),
    )
    kinds = (
        ("picture → class", len(tests.t), 0.1),
        ("picture → name", len(tests.t), 0.1),
        ("line → code or text", len(found.verdict.lines), 0.5),
        ("date → ISO date", len(others.people), 0.0),
        ("characters → their tags", int(found.tagged.mask.sum()), found.tagged.baseline),
    )
    rows = [
        (f"{name}: {kind}", tested, f"{baseline:.1%}", f"{REQUIRED[name]:.0%}", f"{score:.1%}")
        for (name, score), (kind, tested, baseline) in zip(found.scores.items(), kinds, strict=True)
    ]
    print(table(("mode", "tested", "baseline", "required", "correct"), rows))
    print("\nbaseline: the most common answer; for tags, the most common tag of each character")
    with picture(chosen.out / "sequence_modes.png", 13, 7) as figure:
        draw(figure, found)
    return int(not chosen.quick and any(score < REQUIRED[name] for name, score in found.scores.items()))


if __name__ == "__main__":
    run(main)
