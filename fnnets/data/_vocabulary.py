"""Text as numbers: an id for each character."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fnnets.core import checks

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for every character outside the vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """The known characters; an id is an index into `symbols`.

    Attributes:
      symbols: every character once; the first one, of id 0, stands for all unknown characters.

    Example:
      >>> import fnnets as fn
      >>> known = fn.data.vocabulary("banana")
      >>> len(known), known.encode("band").tolist(), known.decode([2, 1, 0])
      (4, [2, 1, 3, 0], 'ba\ufffd')
    """

    symbols: str

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text's characters, (len(text),) int32 in NumPy."""
        known, points = _points(self.symbols[1:]), _points(text)
        if not len(known):
            return np.zeros(len(points), np.int32)
        places = np.searchsorted(known, points).clip(max=len(known) - 1)
        return np.where(known[places] == points, places + 1, 0).astype(np.int32)

    def decode(self, ids: Any) -> str:
        """The text of ids (…), in their order; U+FFFD stands for unknown characters."""
        return "".join(self.symbols[i] for i in np.asarray(ids).ravel())


def vocabulary(text: str, *, least: int = 1, largest: int | None = None) -> Vocabulary:
    """Collects the characters of a text. Use it on the training part alone.

    Args:
      text: the text to collect from.
      least: characters that occur less often are unknown.
      largest: at most this many characters are known, the most frequent ones; by default all.

    Returns:
      A `Vocabulary`: the unknown character, then the known ones in the order of their code points.

    Raises:
      ValueError: least or largest is below 1.

    Example:
      >>> import fnnets as fn
      >>> fn.data.vocabulary("banana", least=2).symbols[1:]
      'an'
    """
    checks.positive("vocabulary", least=least, **({} if largest is None else {"largest": largest}))
    seen, counts = np.unique(_points(text), return_counts=True)
    counts[seen == ord(UNKNOWN)] = 0
    common = np.argsort(-counts, kind="stable")[:largest]
    known = np.sort(seen[common[counts[common] >= least]])
    return Vocabulary(UNKNOWN + "".join(map(chr, known)))


def _points(text: str) -> np.ndarray:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
