"""The rows with combinators."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import GAPS, Case, ids, layer_case, normal


def network_cases() -> list[Case]:
    """The rows with combinators."""
    block = fn.serial(fn.dense(5), fn.tanh())
    deep = fn.serial(
        fn.dense(4), fn.gelu(), fn.residual(fn.serial(fn.dense(4), fn.silu())),
        fn.branch(fn.dense(2), fn.identity()), fn.dense(3), fn.log_softmax(),
    )  # fmt: skip
    return [
        layer_case("serial", fn.serial(fn.dense(4), fn.tanh(), fn.dense(2)), normal(3, 5)),
        layer_case("serial, empty", fn.serial(), normal(4, 5)),
        layer_case(
            "serial, masked", fn.serial(fn.dense(4), fn.sigmoid(), fn.dense(2)), normal(4, 3, 5), mask=GAPS
        ),
        layer_case(
            "serial, dropout", fn.serial(fn.dense(4), fn.tanh(), fn.dropout(0.5)), normal(3, 5), train=True
        ),
        layer_case("serial, ids", fn.serial(fn.embedding(6, 3), fn.dense(2)), ids(6, 4, 3), mask=GAPS),
        layer_case("residual", fn.residual(block), normal(4, 5)),
        layer_case("residual, masked", fn.residual(block), normal(4, 3, 5), mask=GAPS),
        layer_case("branch, concat", fn.branch(fn.dense(2), fn.tanh(), fn.dense(3)), normal(4, 5)),
        layer_case("branch, sum", fn.branch(fn.dense(5), fn.tanh(), merge="sum"), normal(4, 5)),
        layer_case("stack", fn.stack(block, 3), normal(4, 5)),
        layer_case(
            "stack, dropout", fn.stack(fn.serial(block, fn.dropout(0.4)), 3), normal(4, 5), train=True
        ),
        layer_case("stack, masked", fn.stack(block, 2), normal(4, 3, 5), mask=GAPS),
        layer_case("deep", deep, normal(3, 5)),
    ]
