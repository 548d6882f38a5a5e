"""The rows with activations."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import Case, layer_case, normal


def activation_cases() -> list[Case]:
    """The rows with activations: each with its defaults, some with other settings."""
    plain = (
        fn.sigmoid, fn.tanh, fn.relu, fn.leaky_relu, fn.elu, fn.selu, fn.softplus, fn.gelu, fn.silu,
        fn.hard_sigmoid, fn.softmax, fn.log_softmax, fn.mish,
    )  # fmt: skip
    return [
        layer_case("prelu", fn.prelu(), normal(4, 5)),
        layer_case("prelu, per feature", fn.prelu(per_feature=True), normal(4, 5)),
        layer_case("leaky_relu, 0.2", fn.leaky_relu(0.2), normal(4, 5)),
        layer_case("elu, 0.5", fn.elu(0.5), normal(4, 5)),
        layer_case("gelu, tanh form", fn.gelu(approximate=True), normal(4, 5)),
        *[layer_case(factory.__name__, factory(), normal(4, 5)) for factory in plain],
    ]
