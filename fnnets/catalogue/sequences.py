"""The rows with layers over time."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import MASKS, Case, ids, layer_case, normal, several


def sequence_cases() -> list[Case]:
    """The rows with layers over time."""
    steps = normal(5, 4, 2)
    rows = []
    for factory in (fn.last, fn.mean_over_time, fn.max_over_time):
        rows += [
            layer_case(factory.__name__, factory(), steps),
            layer_case(f"{factory.__name__}, masked", factory(), steps, mask=MASKS),
        ]
    block = fn.serial(fn.dense(3), fn.tanh())
    for net in (
        fn.bidirectional(fn.elman(3)),
        fn.bidirectional(block, "sum"),
        fn.bidirectional(fn.elman(3), "mul"),
    ):
        rows.append(layer_case(f"bidirectional, {net.info.settings['merge']}", net, steps, mask=MASKS))
    reader = fn.serial(fn.bidirectional(fn.serial(fn.embedding(6, 2), fn.elman(3))), fn.last())
    return [
        *rows,
        layer_case("bidirectional, ids", reader, ids(6, 5, 4), mask=MASKS),
        layer_case("dropout, shared by all steps", fn.dropout(0.4, shared_axes=(-2,)), steps, train=True),
        layer_case(
            "encoder_decoder",
            fn.encoder_decoder(fn.lstm(3), fn.lstm(3)),
            several(normal(5, 4, 2), normal(5, 3, 2)),
            mask=(MASKS, [row[:3] for row in MASKS[1:] + MASKS[:1]]),
        ),
    ]
