"""The rows with pools."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import Case, layer_case, normal
from fnnets.catalogue.normalisation import PICTURES


def pooling_cases() -> list[Case]:
    """The rows with pools."""
    body = fn.serial(fn.conv(2, (2, 2), strides=2, use_bias=False), fn.batch_norm(), fn.tanh())
    network = fn.serial(fn.residual(body, fn.conv(2, (1, 1), strides=2)), fn.max_pool((2, 1)), fn.flatten(3))
    return [
        layer_case(
            "max_pool, overlapping, padded, rounded up",
            fn.max_pool((3, 2), strides=(2, 1), padding=(1, (0, 1)), rounding="torch"), normal(2, 4, 3, 2),
        ),
        layer_case("max_pool, one axis, no batch", fn.max_pool(2), normal(5, 2)),
        layer_case("max_pool, masked", fn.max_pool((2, 2), strides=1), normal(3, 2, 3, 2), mask=PICTURES),
        layer_case(
            "avg_pool, overlapping, padded, rounded up",
            fn.avg_pool((3, 2), strides=(2, 1), padding=(1, (0, 1)), rounding="ceil"), normal(2, 4, 3, 2),
        ),
        layer_case(
            "avg_pool, of what is there, masked",
            fn.avg_pool((2, 2), strides=1, padding="same", count_include_pad=False), normal(3, 2, 3, 2), mask=PICTURES,
        ),
        layer_case("global_avg_pool, masked", fn.global_avg_pool(), normal(3, 2, 3, 2), mask=PICTURES),
        layer_case("global_max_pool, masked", fn.global_max_pool(), normal(3, 2, 3, 2), mask=PICTURES),
        layer_case("residual block with a projection, pool", network, normal(2, 4, 4, 1), train=True),
    ]  # fmt: skip
