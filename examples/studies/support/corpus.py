"""Real text as numbers: what the examples about text read, and how they part it.

Not an example itself. By default the text is the standard library's own documentation of the language, which every
complete Python brings along (`pydoc_data.topics`, about half a million characters); its wording differs a little from
one Python to the next, and so do the figures. `--text FILE` reads another.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fnnets as fn

RARE, LARGEST = 5, 255  # a character seen less often is unknown; so are all but the 255 commonest
SHORTEST = 20_000  # characters of a file


class Corpus(NamedTuple):
    """A text in three parts, in its order: ids are indices into `letters`."""

    name: str
    letters: str  # every symbol once, the unknown one first
    train: np.ndarray  # (0.8·N,) integers
    validation: np.ndarray  # (0.1·N,): whatever is chosen is chosen here
    test: np.ndarray  # (0.1·N,): the last tenth, looked at once

    def text(self, ids: np.ndarray) -> str:
        """The symbols with those ids."""
        return fn.data.Vocabulary(self.letters).decode(ids)

    def before(self, part: np.ndarray, length: int) -> np.ndarray:
        """That part of the corpus with the last `length` ids before it in front: a reader has read so far."""
        earlier = self.train if part is self.validation else np.concatenate([self.train, self.validation])
        return np.concatenate([earlier[len(earlier) - length :], part])


def text_option(parser: ArgumentParser) -> None:
    """The option `--text FILE`."""
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="a UTF-8 text, instead of Python's documentation"
    )


def read(path: Path | None = None) -> tuple[str, str]:
    """A name and a text: the file's, or the standard library's documentation of the language."""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SystemExit(f"--text {path}: {getattr(error, 'strerror', None) or error}") from None
        if len(text) < SHORTEST:
            raise SystemExit(f"--text {path}: {len(text)} characters are too few, {SHORTEST} are needed")
        return path.name, text
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise SystemExit("this Python comes without pydoc_data: give a text, --text FILE") from None
    return "Python's documentation", "\n\n".join(topics[name] for name in sorted(topics))


def parted(name: str, text: str) -> Corpus:
    """The text as ids, 8:1:1 in its order. What is rare, and so unknown, is learned from the first part alone."""
    tenth = len(text) // 10
    if tenth < 100:
        raise SystemExit(f"{name}: {len(text)} characters are too few to be parted in tenths")
    known = fn.data.vocabulary(text[: -2 * tenth], least=RARE, largest=LARGEST)
    ids = known.encode(text)
    return Corpus(name, known.symbols, ids[: -2 * tenth], ids[-2 * tenth : -tenth], ids[-tenth:])


def load(path: Path | None = None, first: int | None = None) -> Corpus:
    """A file's text, or by default Python's documentation, as a `Corpus`; or its `first` so many characters."""
    name, text = read(path)
    return parted(name, text[:first])


def in_words(corpus: Corpus) -> str:
    """What the corpus is, in a line."""
    unknown = int((corpus.test == 0).sum())
    return (
        f"{corpus.name}: {len(corpus.train)} characters for training, {len(corpus.validation)} for validation, "
        f"{len(corpus.test)} for testing (the last tenth); {len(corpus.letters)} symbols, "
        f"{unknown} of the test's unknown"
    )
