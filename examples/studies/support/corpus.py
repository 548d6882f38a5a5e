"""Real text as numbers, split into three parts, for the studies about text. Not a program.

By default the text is Python's own documentation of the language, which comes with every complete Python
(`pydoc_data.topics`, about half a million characters). Its wording differs a little between versions of Python, and
so do the results. `--text FILE` reads another text.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fnnets as fn

RARE, LARGEST = 5, 255  # rarer characters are unknown, and so are all but the 255 most common
SHORTEST = 20_000  # the least number of characters of a file


class Corpus(NamedTuple):
    """A text in three consecutive parts; ids are indices into `letters`."""

    name: str
    letters: str  # every symbol once, the unknown one first
    train: np.ndarray  # (0.8·N,) integers
    validation: np.ndarray  # (0.1·N,): for all choices
    test: np.ndarray  # (0.1·N,): the last tenth, used once

    def text(self, ids: np.ndarray) -> str:
        """The symbols with those ids."""
        return fn.data.Vocabulary(self.letters).decode(ids)

    def before(self, part: np.ndarray, length: int) -> np.ndarray:
        """A part of the corpus, preceded by the `length` ids before it, as a reader has read them."""
        earlier = self.train if part is self.validation else np.concatenate([self.train, self.validation])
        return np.concatenate([earlier[len(earlier) - length :], part])


def text_option(parser: ArgumentParser) -> None:
    """The option `--text FILE`."""
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="read this UTF-8 text instead of Python's documentation"
    )


def read(path: Path | None = None) -> tuple[str, str]:
    """The name and the text of a file, or of Python's documentation of the language."""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SystemExit(f"--text {path}: {getattr(error, 'strerror', None) or error}") from None
        if len(text) < SHORTEST:
            raise SystemExit(f"--text {path}: {len(text)} characters are too few; give at least {SHORTEST}")
        return path.name, text
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise SystemExit("this Python has no pydoc_data: give a text by --text FILE") from None
    return "Python's documentation", "\n\n".join(topics[name] for name in sorted(topics))


def split_text(name: str, text: str) -> Corpus:
    """The text as ids, split 8:1:1 in its order. A character is rare, and so unknown, if it is rare in the first part."""
    tenth = len(text) // 10
    if tenth < 100:
        raise SystemExit(f"{name}: {len(text)} characters are too few to split; give at least 1000")
    known = fn.data.vocabulary(text[: -2 * tenth], least=RARE, largest=LARGEST)
    ids = known.encode(text)
    return Corpus(name, known.symbols, ids[: -2 * tenth], ids[-2 * tenth : -tenth], ids[-tenth:])


def load(path: Path | None = None, first: int | None = None) -> Corpus:
    """A file's text, or by default Python's documentation, as a `Corpus`; `first` limits the number of characters."""
    name, text = read(path)
    return split_text(name, text[:first])


def described(corpus: Corpus) -> str:
    """A line that describes the corpus."""
    unknown = int((corpus.test == 0).sum())
    return (
        f"{corpus.name}: {len(corpus.train)} characters for training, {len(corpus.validation)} for validation, "
        f"{len(corpus.test)} for testing (the last tenth); {len(corpus.letters)} symbols, "
        f"{unknown} unknown characters in the test part"
    )
