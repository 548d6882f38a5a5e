"""The examples' n-grams, compared with numbers worked out by hand, and the text that they read."""

from fractions import Fraction

import numpy as np
import pytest
from support.corpus import load, split_text
from support.ngrams import bits, fitted, probabilities, stored

import fnnets as fn

UNKNOWN = "\ufffd"

SEEN = np.array([0, 1, 0, 0, 1])  # symbol 2 is never seen

# Order 0: N = 5, T = 2, so P(0) = (3 + 2/3)/7 = 11/21. Order 1, after 0: N = 3 (01 twice, 00 once), T = 2,
# so P(1 | 0) = (2 + 2·8/21)/5 = 58/105; after 1: N = T = 1, so P(0 | 1) = (1 + 11/21)/2 = 16/21.
ORDER_0 = [Fraction(11, 21), Fraction(8, 21), Fraction(2, 21)]
ORDER_1 = [
    [Fraction(43, 105), Fraction(58, 105), Fraction(4, 105)],
    [Fraction(16, 21), Fraction(4, 21), Fraction(1, 21)],
    ORDER_0,  # an unseen context uses the lower order
]


def test_probabilities_are_those_worked_out_by_hand():
    grams = np.array([[[h, c] for c in range(3)] for h in range(3)])
    p = probabilities(fitted(SEEN, 3, order=1), grams)
    np.testing.assert_allclose(p[0], np.array([ORDER_0] * 3, float), rtol=1e-15)
    np.testing.assert_allclose(p[1], np.array(ORDER_1, float), rtol=1e-15)


def test_probabilities_sum_to_one_at_every_order_for_seen_and_unseen_contexts():
    rng = np.random.default_rng(0)
    model = fitted(rng.integers(0, 4, 300), 5, order=6)
    h = np.broadcast_to(rng.integers(0, 5, (40, 1, 6)), (40, 5, 6))
    c = np.broadcast_to(np.arange(5)[:, None], (40, 5, 1))
    p = probabilities(model, np.concatenate([h, c], -1))
    assert p.shape == (7, 40, 5)
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-14)


def test_bits_per_character_and_the_size_of_the_tables():
    model = fitted(SEEN, 3, order=1)
    text = np.array([2, 0, 1, 2])  # the first symbol is only a context: 0 after 2, 1 after 0, 2 after 1
    expected = -np.log2([[11 / 21, 8 / 21, 2 / 21], [11 / 21, 58 / 105, 1 / 21]]).mean(1)
    np.testing.assert_allclose(bits(model, text), expected, rtol=1e-14)
    assert stored(model) == [2, 5]  # 0 and 1; with them 00, 01 and 10


def test_counts_equal_those_of_a_dictionary():
    ids = np.random.default_rng(1).integers(0, 3, 200)
    table = fitted(ids, 3, order=2).tables[2]
    counts: dict[tuple[int, ...], int] = {}
    for gram in map(tuple, fn.data.windows(ids, 3).tolist()):
        counts[gram] = counts.get(gram, 0) + 1
    assert dict(zip(table.grams.tolist(), table.counts.tolist(), strict=True)) == {
        9 * a + 3 * b + c: n for (a, b, c), n in counts.items()
    }
    assert table.types.sum() == len(counts)
    assert table.totals.sum() == 198


def test_keys_that_would_overflow_raise():
    with pytest.raises(ValueError, match="order 7 over 256 symbols"):
        fitted(SEEN, 256, order=7)


def test_a_text_is_split_in_order_and_rare_symbols_are_those_rare_in_training():
    text = (
        "ab" * 395 + "𝔘" * 9 + "é" + "ab" * 50 + "é" * 100
    )  # é: once in training, a hundred times in the test
    corpus = split_text("text", text)
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [800, 100, 100]
    assert corpus.letters == UNKNOWN + "ab𝔘"
    assert corpus.text(corpus.train) == text[:799] + UNKNOWN
    assert corpus.text(corpus.validation) == text[800:900]
    assert corpus.text(corpus.test) == UNKNOWN * 100


def test_a_part_can_be_read_with_the_text_before_it():
    corpus = split_text("text", "0123456789" * 100)
    assert corpus.text(corpus.before(corpus.validation, 3)[:5]) == "78901"
    assert corpus.text(corpus.before(corpus.test, 102)[:4]) == "8901"


def test_the_default_text_is_real_and_a_file_can_replace_it(tmp_path):
    assert len(load().train) > 100_000
    path = tmp_path / "mine.txt"
    path.write_text("naïve text " * 2000, encoding="utf-8")
    assert load(path).letters == UNKNOWN + " aentvxï"
    with pytest.raises(SystemExit, match="No such file"):
        load(tmp_path / "nothing.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemExit, match="utf-8"):
        load(path)
    path.write_text("short")
    with pytest.raises(SystemExit, match="5 characters are too few"):
        load(path)
    with pytest.raises(SystemExit, match="5 characters are too few"):
        split_text("mine", "short")
