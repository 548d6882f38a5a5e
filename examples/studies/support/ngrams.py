"""Markov models of characters: n-grams smoothed after Witten and Bell, in NumPy.

Not a program. A model of order n predicts a symbol c from the n symbols before it, h. The text it is fitted to holds
the n-gram hc N(h, c) times, h as a context N(h) = Σ_c N(h, c) times, and T(h) different symbols follow h. Then

    P_n(c | h) = (N(h, c) + T(h)·P_{n−1}(c | h')) / (N(h) + T(h))

where h' is h without its oldest symbol, P_{−1} = 1/V over the V symbols, and P_n = P_{n−1} if h was never seen.
It sums to one: Σ_c gives (N(h) + T(h)·1) / (N(h) + T(h)). T(h) counts how often a new symbol followed h so far;
this much is set aside for new symbols.

References: Witten & Bell, The zero-frequency problem, IEEE Transactions on Information Theory 37 (1991), method C; Chen &
Goodman, An empirical study of smoothing techniques for language modeling (1998), section 2.6, eq. 16 is the form above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import fnnets as fn


class Table(NamedTuple):
    """The counts of one order n; an n-gram's key is the number in base V whose digits are its ids."""

    grams: np.ndarray  # (G,) the keys of every hc, sorted
    counts: np.ndarray  # (G,) N(h, c)
    contexts: np.ndarray  # (H,) the keys of every h, sorted
    totals: np.ndarray  # (H,) N(h)
    types: np.ndarray  # (H,) T(h)


class Ngrams(NamedTuple):
    """The models of order 0, 1, …, one table each."""

    size: int  # V, the number of symbols
    tables: tuple[Table, ...]

    @property
    def order(self) -> int:
        """The highest order n: how many symbols back the model sees."""
        return len(self.tables) - 1


def keys(grams: np.ndarray, size: int) -> np.ndarray:
    """The numbers (…) in base `size` whose digits are the ids (…, n)."""
    key = np.zeros(grams.shape[:-1], np.int64)
    for i in range(grams.shape[-1]):
        key = key * size + grams[..., i]
    return key


def fitted(ids: np.ndarray, size: int, order: int) -> Ngrams:
    """The models of every order up to `order`, counted in `ids`, whose symbols are 0, …, size − 1."""
    if size ** (order + 1) >= 2**63:
        raise ValueError(f"order {order} over {size} symbols: the keys do not fit into 64 bits")
    tables = []
    for n in range(order + 1):
        grams, counts = np.unique(keys(fn.data.windows(ids, n + 1), size), return_counts=True)
        contexts, starts = np.unique(grams // size, return_index=True)  # the grams of one h are adjacent
        types = np.diff(starts, append=len(grams))
        tables.append(Table(grams, counts, contexts, np.add.reduceat(counts, starts), types))
    return Ngrams(size, tuple(tables))


def looked_up(key: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values of the keys, 0 for a key that is not in the sorted `known`."""
    place = np.searchsorted(known, key).clip(max=len(known) - 1)
    return np.where(known[place] == key, values[place], 0)


def probabilities(model: Ngrams, grams: np.ndarray) -> np.ndarray:
    """P_n(c | h) of every order n, (order + 1, …): grams (…, order + 1) hold h and then c."""
    p = np.full(grams.shape[:-1], 1 / model.size)
    results = []
    for n, table in enumerate(model.tables):
        key = keys(grams[..., model.order - n :], model.size)
        context = key // model.size
        total, types = (looked_up(context, table.contexts, values) for values in (table.totals, table.types))
        count = looked_up(key, table.grams, table.counts)
        p = np.where(total > 0, (count + types * p) / np.maximum(total + types, 1), p)
        results.append(p)
    return np.stack(results)


def bits(model: Ngrams, ids: np.ndarray) -> np.ndarray:
    """Bits per character of every order, (order + 1,), on ids[order:]; the first ids are only context."""
    return -np.log2(probabilities(model, fn.data.windows(ids, model.order + 1))).mean(-1)


def stored(model: Ngrams) -> Sequence[int]:
    """The number of counts N(h, c) that a model of each order uses, those of lower orders included."""
    return np.cumsum([len(table.grams) for table in model.tables]).tolist()
