"""How a cell is run over time: the keywords that every recurrent layer takes besides its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypedDict

from fnnets.core import checks

Memory = Literal["all", "sqrt"] | int


class RunOptions(TypedDict, total=False):
    """The keywords, as `fn.recurrent` describes them; what is left out has the default of `Options`."""

    memory: Memory
    unroll: int
    time_major: bool
    recurrent_dropout: float
    variational: bool


class Options(NamedTuple):
    """How a cell is run: every keyword of `RunOptions`, with its default."""

    memory: Memory = "all"
    unroll: int = 1
    time_major: bool = False
    recurrent_dropout: float = 0.0
    variational: bool = True


DEFAULTS = Options()._asdict()  # what `describe` holds the settings against


def options_of(factory: Callable[..., Any], run: RunOptions) -> Options:
    """The options from the keywords that a factory was called with; refuses those that nobody takes."""
    unknown = [name for name in run if name not in Options._fields]
    if unknown:
        given = inspect.signature(factory).parameters.values()
        own = [each.name for each in given if each.kind not in (each.VAR_KEYWORD, each.POSITIONAL_ONLY)]
        raise TypeError(
            f"{factory.__name__}: expected keywords among {', '.join((*own, *Options._fields))}, got "
            f"{unknown[0]!r}; correct its spelling, or leave it out."
        )
    return Options(**run)


def check_options(who: str, options: Options) -> None:
    """Refuses options out of range."""
    if options.memory not in ("all", "sqrt"):
        if isinstance(options.memory, str):
            checks.choice(who, "memory", options.memory, ("all", "sqrt", "a number of steps"))
        checks.positive(who, memory=options.memory)
    checks.positive(who, unroll=options.unroll)
    checks.fraction(who, "recurrent_dropout", options.recurrent_dropout)
