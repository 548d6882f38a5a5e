"""The rows with recurrent layers."""

from __future__ import annotations

from typing import Any

import fnnets as fn
from fnnets.catalogue.case import MASKS, Case, layer_case, normal


def recurrent_cases() -> list[Case]:
    """The rows with recurrent layers; they cover variants, lengths, masks and carries."""
    masked: dict[str, Any] = {"mask": MASKS}
    short = normal(2, 3, 2)
    x, with_carry = normal(5, 4, 2), masked | {"carried": True}
    deep = fn.serial(fn.gru(2), fn.lstm(2), fn.elman(2))
    return [
        layer_case("lstm", fn.lstm(2), x, **with_carry),
        layer_case("lstm, peephole", fn.lstm(2, peephole=True), x, **masked),
        layer_case("lstm, coupled, one step", fn.lstm(2, coupled=True), normal(2, 1, 2), carried=True),
        layer_case("lstm, peephole, coupled", fn.lstm(2, peephole=True, coupled=True), x, **with_carry),
        layer_case("lstm, no bias, sqrt memory", fn.lstm(2, use_bias=False, memory="sqrt"), normal(2, 7, 2), carried=True),
        layer_case("lstm, dropout inside", fn.lstm(3, recurrent_dropout=0.4), short, train=True, carried=True),
        layer_case("gru", fn.gru(2), x, **with_carry),
        layer_case("gru, after, new", fn.gru(2, update="new"), x, **masked),
        layer_case("gru, before, old", fn.gru(2, reset="before"), x, **with_carry),
        layer_case("gru, before, new", fn.gru(2, reset="before", update="new"), x, **masked),
        layer_case(
            "gru, dropout inside each step",
            fn.gru(3, recurrent_dropout=0.4, variational=False, memory=2), short, train=True,
        ),
        layer_case("mgu", fn.mgu(2), x, **with_carry),
        layer_case("mgu, no bias, dropout inside", fn.mgu(3, use_bias=False, recurrent_dropout=0.4), short, train=True),
        layer_case("elman", fn.elman(3), x, **with_carry),
        layer_case("elman, sigmoid, no batch", fn.elman(2, fn.sigmoid(), use_bias=False), normal(4, 2)),
        layer_case("jordan", fn.jordan(3, 2), x, **with_carry),
        layer_case("jordan, softmax", fn.jordan(2, 3, fn.sigmoid(), fn.softmax()), short, carried=True),
        layer_case("recurrent, three layers", deep, x, **with_carry),
    ]  # fmt: skip
