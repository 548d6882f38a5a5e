"""The rows with normalisations."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import GAPS, Case, layer_case, normal

# Three pictures of 2 × 3: one with gaps, one whole, one fully masked.
PICTURES = [[[1, 0, 1], [1, 1, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]]


def normalisation_cases() -> list[Case]:
    """The rows with normalisations."""
    network = fn.serial(fn.dense(3, use_bias=False), fn.batch_norm(), fn.tanh(), fn.dense(2))
    return [
        layer_case("batch_norm", fn.batch_norm(), normal(5, 3), train=True),
        layer_case(
            "batch_norm, pictures, masked", fn.batch_norm(use_bias=False), normal(3, 2, 3, 2),
            train=True, mask=PICTURES,
        ),
        layer_case("batch_norm, no scale, batch of one", fn.batch_norm(use_scale=False), normal(1, 3), train=True),
        layer_case("batch_norm, inference, masked", fn.batch_norm(), normal(4, 3, 2), mask=GAPS),
        layer_case("layer_norm", fn.layer_norm(), normal(4, 5)),
        layer_case("layer_norm, no scale, masked", fn.layer_norm(use_scale=False), normal(4, 3, 4), mask=GAPS),
        layer_case("group_norm, masked", fn.group_norm(2), normal(3, 2, 3, 4), mask=PICTURES),
        layer_case("rms_norm, masked", fn.rms_norm(use_bias=True), normal(4, 3, 4), mask=GAPS),
        layer_case("batch_norm in a network", network, normal(5, 4), train=True),
    ]  # fmt: skip
