"""The rows with single layers."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import Case, ids, layer_case, normal


def layer_cases() -> list[Case]:
    """The rows with single layers."""
    return [
        layer_case("dense", fn.dense(3), normal(4, 5)),
        layer_case("dense, no bias", fn.dense(3, use_bias=False), normal(4, 5)),
        layer_case("dense, square", fn.dense(4), normal(3, 4)),
        layer_case("dense, over time", fn.dense(2), normal(4, 3, 5)),
        layer_case("dense, no batch", fn.dense(3), normal(5)),
        layer_case("dense, batch of one", fn.dense(3), normal(1, 5)),
        layer_case("embedding", fn.embedding(7, 3), ids(7, 4, 5)),
        layer_case("embedding, outside", fn.embedding(7, 3), ids(5, 6)),
        layer_case("dropout, training", fn.dropout(0.3), normal(6, 5), train=True),
        layer_case("dropout, inference", fn.dropout(0.3), normal(4, 5)),
        layer_case("dropout, everything", fn.dropout(1.0), normal(4, 5), train=True),
        layer_case("flatten", fn.flatten(2), normal(4, 3, 2)),
        layer_case("reshape", fn.reshape((3, 2)), normal(4, 6)),
        layer_case("reshape, two axes", fn.reshape((6,), axes=2), normal(4, 2, 3)),
        layer_case("identity", fn.identity(), normal(4, 5)),
    ]
