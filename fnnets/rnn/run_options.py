"""The keywords for running a cell over time, which every recurrent layer takes besides its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypedDict

from fnnets.core import checks

Memory = Literal["all", "sqrt"] | int


class RunOptions(TypedDict, total=False):
    """The keywords that `fn.recurrent` describes. Those left out have the defaults of `Options`."""

    memory: Memory
    unroll: int
    time_major: bool
    recurrent_dropout: float
    variational: bool


class Options(NamedTuple):
    """All keywords of `RunOptions`, with their defaults."""

    memory: Memory = "all"
    unroll: int = 1
    time_major: bool = False
    recurrent_dropout: float = 0.0
    variational: bool = True


DEFAULTS = Options()._asdict()  # `describe` leaves out settings that equal these


def options_of(factory: Callable[..., Any], run: RunOptions) -> Options:
    """Returns the options from the keywords of a call to `factory`; refuses unknown ones."""
    unknown = [name for name in run if name not in Options._fields]
    if unknown:
        parameters = inspect.signature(factory).parameters.values()
        own = [each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.POSITIONAL_ONLY)]
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
