"""Writes convolution.json: convolutions, transposed convolutions and upsampling by PyTorch, in float64.

Run it in this folder with PyTorch installed: `python make_convolution.py`. The file uses fnnets' conventions (channels
last, kernels (*kernel_size, C/groups, features)); only this script translates them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn import functional

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def rounded(shape):
    """Integers times 2⁻⁶: short to write, and exact."""
    return torch.randint(-128, 128, shape) / 64


def case(kind, settings, run, **leaves):
    """The output of `run(**leaves)`, and the gradient of each leaf for a random dy."""
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items() if leaf is not None}
    y = run(**leaves)
    dy = rounded(y.shape)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    values = leaves | {"y": y, "dy": dy}
    values |= {f"d{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {"kind": kind, "settings": settings} | {name: leaf.tolist() for name, leaf in values.items()}


def second(x):
    """Moves the channels from the last axis to the second."""
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def conv_case(spatial, channels, features, kernel, *, bias=True, padding=0, **options):
    """A convolution. PyTorch pads both sides alike, or "same" without strides."""
    groups, axes = options.get("groups", 1), len(spatial)
    settings = {"features": features, "kernel_size": kernel, "padding": padding, "use_bias": bias}
    settings |= {{"stride": "strides"}.get(name, name): value for name, value in options.items()}

    def run(x, w, b=None):
        w = w.movedim((-1, -2), (0, 1))  # (features, C/groups, *kernel)
        return last(CONV[axes](second(x), w, b, padding=padding, **options))

    w = rounded((*kernel, channels // groups, features))
    b = rounded((features,)) if bias else None
    return case("conv", settings, run, x=rounded((2, *spatial, channels)), w=w, b=b)


def transposed_case(spatial, channels, features, kernel, *, padding=0, output_padding=0, **options):
    groups, axes = options.get("groups", 1), len(spatial)
    pair = [[padding, padding - output_padding]] * axes
    settings = {"features": features, "kernel_size": kernel, "padding": pair}
    settings |= {{"stride": "strides"}.get(name, name): value for name, value in options.items()}

    def run(x, w, b):
        # (*kernel, C/groups, features) to (C, features/groups, *kernel), group by group
        parts = [part.movedim((-2, -1), (0, 1)) for part in w.split(features // groups, -1)]
        shape = {"padding": padding, "output_padding": output_padding}
        return last(TRANSPOSED[axes](second(x), torch.cat(parts), b, **shape, **options))

    w = rounded((*kernel, channels // groups, features))
    return case(
        "conv_transpose", settings, run, x=rounded((2, *spatial, channels)), w=w, b=rounded((features,))
    )


def upsample_case(spatial, factor, method):
    mode = {"mode": LINEAR[len(factor)], "align_corners": False} if method == "bilinear" else {"mode": method}

    def run(x):
        return last(functional.interpolate(second(x), scale_factor=[float(f) for f in factor], **mode))

    return case("upsample", {"factor": factor, "method": method}, run, x=rounded((2, *spatial, 2)))


def cases():
    yield conv_case((7,), 2, 3, [3])
    yield conv_case((8,), 2, 2, [4], padding="same", bias=False)
    yield conv_case((9,), 4, 4, [3], padding=[2], stride=2, dilation=2, groups=4)
    yield conv_case((5, 4), 2, 3, [3, 2], padding=1)
    yield conv_case((4, 5), 2, 3, [4, 3], padding="same", dilation=[1, 2])
    yield conv_case((5, 6), 4, 4, [3, 3], padding=[1, 2], stride=[2, 3], groups=2)
    yield conv_case((4, 4), 3, 3, [2, 2], groups=3)
    yield conv_case((2, 3), 4, 2, [1, 1])
    yield conv_case((3, 4, 3), 2, 2, [2, 3, 1], padding=[1, 1, 0], stride=[1, 2, 1])
    yield conv_case((3, 3, 4), 2, 4, [2, 2, 2], dilation=[1, 2, 1], groups=2)
    yield transposed_case((4,), 2, 3, [3], stride=2)
    yield transposed_case((3,), 2, 2, [2], stride=3, dilation=2)
    yield transposed_case((3, 4), 2, 3, [3, 3], padding=1, stride=2, output_padding=1)
    yield transposed_case((3, 2), 4, 4, [2, 3], stride=[1, 2], groups=2)
    yield transposed_case((2, 3), 3, 3, [2, 2], stride=[2, 1], groups=3, padding=1)
    yield transposed_case((2, 3, 2), 2, 2, [2, 1, 3], stride=[2, 1, 2])
    for method in ("nearest", "bilinear"):
        yield upsample_case((4,), [3], method)
        yield upsample_case((3, 2), [2, 3], method)
        yield upsample_case((2, 3, 1), [2, 1, 4], method)


if __name__ == "__main__":
    Path("convolution.json").write_text(json.dumps(list(cases()), separators=(",", ":")) + "\n")
