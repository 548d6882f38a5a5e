"""The rows with convolutions and upsampling."""

from __future__ import annotations

import fnnets as fn
from fnnets.catalogue.case import GAPS, Case, layer_case, normal


def convolution_cases() -> list[Case]:
    """The rows with convolutions; they cover axes, strides, padding, dilation and groups."""
    network = fn.serial(
        fn.conv(2, (2, 2)), fn.tanh(), fn.conv(2, (3, 3), strides=2), fn.flatten(3), fn.dense(2)
    )
    return [
        layer_case("conv", fn.conv(3, (3, 2), strides=(2, 1)), normal(2, 4, 3, 2)),
        layer_case("conv, one axis, dilated, masked", fn.conv(3, 2, dilation=2), normal(4, 3, 2), mask=GAPS),
        layer_case(
            "conv, groups, unequal padding, rounded up",
            fn.conv(4, (3, 2), strides=2, padding=((1, 0), 2), groups=2, rounding="ceil", use_bias=False),
            normal(2, 3, 3, 4),
        ),
        layer_case("conv, depthwise, no batch", fn.conv(4, (2, 2), padding="valid", groups=2), normal(3, 4, 2)),
        layer_case("conv, three axes, 1×1×1", fn.conv(2, (1, 1, 1), strides=(1, 2, 3)), normal(2, 2, 3, 2, 2)),
        layer_case("conv_transpose", fn.conv_transpose(3, (3, 2), strides=(2, 1)), normal(2, 3, 2, 2)),
        layer_case(
            "conv_transpose, groups, unequal padding",
            fn.conv_transpose(4, (3,), strides=2, padding=((1, 0),), dilation=2, groups=2, use_bias=False),
            normal(2, 3, 2),
        ),
        layer_case("upsample", fn.upsample((2, 3)), normal(2, 2, 3, 2)),
        layer_case("upsample, bilinear", fn.upsample((2, 3), "bilinear"), normal(2, 3, 2, 2)),
        layer_case("conv, tanh, conv, dense", network, normal(2, 3, 4, 1)),
    ]  # fmt: skip
