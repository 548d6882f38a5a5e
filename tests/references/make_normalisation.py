"""Writes normalisation.json: normalisations and pools by PyTorch, flax and haiku, in float64.

Run it in this folder with PyTorch, flax and haiku installed:
`JAX_ENABLE_X64=1 python make_normalisation.py`. The file uses fnnets' conventions (channels last,
decay instead of momentum); only this script translates them.
"""

from __future__ import annotations

import json
from pathlib import Path

import haiku
import jax
import numpy as np
import torch
from flax import linen
from torch.nn import functional

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
DECAY, EPSILON = 0.7, 1e-3


def rounded(*shape):
    """Integers times 2⁻⁴: short to write, and exact."""
    return torch.randint(-32, 32, shape) / 16


def second(x):
    return x.movedim(-1, 1)


def last(x):
    return x.movedim(1, -1)


def case(kind, settings, run, **leaves):
    """The output of `run(**leaves)`, and the gradient of each leaf for a random dy."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    y = run(**leaves)
    dy = rounded(*y.shape)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    values = leaves | {"y": y, "dy": dy}
    values |= {f"d{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {"kind": kind, "settings": settings} | {name: leaf.tolist() for name, leaf in values.items()}


def norm_cases():
    scale, b = rounded(4), rounded(4)
    x, picture = rounded(3, 4), rounded(2, 2, 3, 4)
    eps = {"epsilon": EPSILON}
    yield case(
        "layer_norm",
        eps,
        lambda x, scale, b: functional.layer_norm(x, (4,), scale, b, EPSILON),
        x=x,
        scale=scale,
        b=b,
    )
    yield case(
        "rms_norm", eps, lambda x, scale: functional.rms_norm(x, (4,), scale, EPSILON), x=x, scale=scale
    )
    for groups in (1, 2, 4):
        yield case(
            "group_norm", eps | {"groups": groups},
            lambda x, scale, b, n=groups: last(functional.group_norm(second(x), n, scale, b, EPSILON)),
            x=picture, scale=scale, b=b,
        )  # fmt: skip


def torch_batch_norm(shape):
    """Three steps of training, the last with its gradients, then inference."""
    net = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(4, EPSILON, 1 - DECAY)
    xs, scale, b = [rounded(*shape) for _ in range(3)], rounded(4), rounded(4)

    def run(x, scale, b):
        with torch.no_grad():
            net.weight.copy_(scale), net.bias.copy_(b)
        return last(torch.func.functional_call(net, {"weight": scale, "bias": b}, second(x)))

    for x in xs[:2]:
        run(x, scale, b)
    made = case("batch_norm", {"decay": DECAY, "epsilon": EPSILON}, run, x=xs[2], scale=scale, b=b)
    made |= {"before": [x.tolist() for x in xs[:2]], "source": "torch"}
    made |= {"mean": net.running_mean.tolist(), "var": net.running_var.tolist()}
    net.eval()
    inference = case("batch_norm", made["settings"], run, x=xs[0], scale=scale, b=b)
    return [made, inference | {"source": "inference", "mean": made["mean"], "var": made["var"]}]


def moving(source, shape):
    """The moving statistics after three steps, with the biased variance of flax and haiku."""
    xs = [rounded(*shape).numpy() for _ in range(3)]
    if source == "flax":
        net = linen.BatchNorm(False, momentum=DECAY, epsilon=EPSILON, param_dtype=float)
        stats = jax.tree.map(np.float64, net.init(jax.random.key(0), xs[0]))  # they start in float32
        for x in xs:
            stats |= net.apply(stats, x, mutable=["batch_stats"])[1]
        mean, var = (np.asarray(stats["batch_stats"][name]) for name in ("mean", "var"))
    else:
        net = haiku.transform_with_state(
            lambda x: haiku.BatchNorm(True, True, DECAY, EPSILON)(x, is_training=True)
        )
        params, state = net.init(None, xs[0])
        state = jax.tree.map(np.zeros_like, state)
        for x in xs:
            _, state = net.apply(params, state, None, x)
        mean, var = (state[f"batch_norm/~/{name}_ema"]["average"].ravel() for name in ("mean", "var"))
    settings = {"decay": DECAY, "epsilon": EPSILON, "unbiased": False}
    values = {"before": [x.tolist() for x in xs[:2]], "x": xs[2].tolist()}
    return {
        "kind": "batch_norm",
        "source": source,
        "settings": settings,
        "mean": mean.tolist(),
        "var": var.tolist(),
    } | values


def pool_case(kind, dims, size, window, stride, padding, ceil, **options):
    run = getattr(functional, f"{kind}_pool{dims}d")
    settings = {
        "window": [window] * dims,
        "strides": stride,
        "padding": padding,
        "rounding": "torch" if ceil else "floor",
    }
    return case(
        f"{kind}_pool", settings | options,
        lambda x: last(run(second(x), window, stride, padding, ceil_mode=ceil, **options)),
        x=rounded(1, *[size] * dims, 1) if kind == "avg" else distinct(1, *[size] * dims, 1),
    )  # fmt: skip


def distinct(*shape):
    return torch.randperm(int(np.prod(shape))).reshape(shape) / 16


def pool_cases():
    for dims, size in ((1, 7), (2, 5), (3, 3)):
        for ceil in (False, True):
            yield pool_case("max", dims, size, 2, 2, 1, ceil)
            yield pool_case("avg", dims, size, 2, 2, 1, ceil, count_include_pad=dims != 2)
    yield pool_case("max", 2, 6, 3, 2, 0, True)
    yield pool_case("max", 1, 2, 1, 2, 0, True)
    yield pool_case("avg", 2, 6, 3, 2, 1, True, count_include_pad=True)
    yield pool_case("avg", 2, 6, 3, 2, 1, True, count_include_pad=False)


if __name__ == "__main__":
    moved = [moving(source, shape) for source in ("flax", "haiku") for shape in ((5, 4), (2, 2, 3, 4))]
    cases = [*norm_cases(), *torch_batch_norm((5, 4)), *torch_batch_norm((2, 2, 3, 4)), *moved, *pool_cases()]
    Path(__file__).with_name("normalisation.json").write_text(
        "[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n"
    )
