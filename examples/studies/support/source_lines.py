"""Lines from the source of Python's standard library, with a tag for each character. Not a program.

The source comes with every Python; it differs a little between versions, and so do the results. The lines for testing
come from other modules than those for training.
"""

from __future__ import annotations

import importlib.util
import keyword
import token
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

TRAIN = (
    "argparse", "ast", "bdb", "calendar", "cmd", "configparser", "contextlib", "copy", "csv", "difflib", "dis",
    "doctest", "enum", "fractions", "ftplib", "functools", "gzip", "heapq", "inspect", "ipaddress",
)  # fmt: skip
TEST = ("pdb", "random", "shutil", "statistics", "textwrap")
TAGS = ("space", "keyword", "name", "number", "string", "operator", "comment")
LONGEST = 64
CHARACTERS = "".join(map(chr, range(32, 127)))  # lines with other characters are left out


class Line(NamedTuple):
    """A line without its indentation."""

    ids: np.ndarray  # (T,) integers, places in CHARACTERS
    tags: np.ndarray  # (T,) integers, places in TAGS; all "string" for a line of text

    @property
    def text(self) -> str:
        """The line's characters."""
        return "".join(CHARACTERS[i] for i in self.ids)


def lines(modules: Iterable[str]) -> tuple[list[Line], list[Line]]:
    """The lines of code, and the lines of text inside longer strings such as docstrings.

    Every line appears once. Comment lines are left out, and lines where a longer string begins or ends.
    """
    code: dict[str, Line] = {}
    text: dict[str, Line] = {}
    for module in modules:
        for line, tags, inside in _tagged(module):
            bare = line.strip()
            if (
                inside is not None
                and 10 <= len(bare) <= LONGEST
                and set(bare) <= set(CHARACTERS)
                and bare[0] != "#"
            ):
                start = len(line) - len(line.lstrip())
                ids = np.array([CHARACTERS.index(letter) for letter in bare], np.int32)
                (text if inside else code)[bare] = Line(ids, tags[start : start + len(bare)])
    return list(code.values()), list(text.values())


def _tagged(module: str) -> Iterator[tuple[str, np.ndarray, bool | None]]:
    """Every line of a module, the tags of its characters, and whether it is inside a string (None: in part)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return
    with tokenize.open(spec.origin) as file:
        rows = Path(spec.origin).read_text(encoding=file.encoding).split("\n")
    tags = [np.zeros(len(row), np.int32) for row in rows]
    inside: list[bool | None] = [False] * len(rows)
    with open(spec.origin, "rb") as file:
        for kind, word, (first, start), (last, stop), _ in tokenize.tokenize(file.readline):
            if kind == token.ENCODING:
                continue
            for row in range(first, min(last, len(rows)) + 1):
                part = slice(start if row == first else 0, stop if row == last else None)
                tags[row - 1][part] = _tag(kind, word)
                if first < last:
                    inside[row - 1] = True if first < row < last else None
    yield from zip(rows, tags, inside, strict=True)


def _tag(kind: int, word: str) -> int:
    """A token's place in TAGS."""
    name = token.tok_name[kind]
    if name == "NAME":
        return TAGS.index("keyword" if keyword.iskeyword(word) else "name")
    if name.startswith("FSTRING"):
        return TAGS.index("string")
    kinds = {"NUMBER": "number", "STRING": "string", "OP": "operator", "COMMENT": "comment"}
    return TAGS.index(kinds.get(name, "space"))
