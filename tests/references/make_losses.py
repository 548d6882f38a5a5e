"""Writes losses.json: values and gradients of losses and activations by PyTorch, in float64.

Run it in this folder with PyTorch installed: `python make_losses.py`. Each case holds the arguments in fnnets'
conventions (classes last, kernels (inputs, outputs)); only this script translates them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn import functional

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

BATCH, STEPS, CLASSES, IGNORED = 4, 2, 4, -1
WEIGHTS = torch.tensor([0.5, 2.0, 1.25, 0.75])
MEAN_ONE = torch.tensor([0.5, 1.5, 1.25, 0.75])  # with these the weighted mean equals PyTorch's plain mean


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def loss_case(loss, y, target, reference, **options):
    """One loss: its value by `reference(y)`, and the gradient dy."""
    y = y.clone().requires_grad_()
    value = reference(y)
    (dy,) = torch.autograd.grad(value, y)
    case = {"y": y, "target": target, "value": value, "dy": dy}
    return {"loss": loss, "options": plain(options)} | plain(case)


def regression_cases():
    y, t = torch.randn(BATCH, STEPS, CLASSES), torch.randn(BATCH, STEPS, CLASSES)
    signs = torch.randint(0, 2, t.shape) * 2.0 - 1
    yield loss_case("half_squared_error", y, t, lambda y: 0.5 * functional.mse_loss(y, t, reduction="sum"))
    yield loss_case("squared_error", y, t, lambda y: functional.mse_loss(y, t, reduction="sum"))
    yield loss_case("mse", y, t, lambda y: functional.mse_loss(y, t))
    yield loss_case("mae", y, t, lambda y: functional.l1_loss(y, t))
    for delta in (1.0, 0.5):
        yield loss_case("huber", y, t, lambda y, d=delta: functional.huber_loss(y, t, delta=d), delta=delta)
    yield loss_case("hinge", y, signs, lambda y: (1 - signs * y).clamp(min=0).mean())
    counts, rates = (2 * t.abs()).round(), y.abs() + 0.1
    yield loss_case("poisson", y, counts, lambda y: functional.poisson_nll_loss(y, counts))
    yield loss_case(
        "poisson",
        rates,
        counts,
        lambda y: functional.poisson_nll_loss(y, counts, log_input=False, eps=0.0),
        log_input=False,
    )


def binary_cases():
    z, t = 2 * torch.randn(BATCH, CLASSES), torch.rand(BATCH, CLASSES)
    q, hard = torch.sigmoid(z), t.round()
    for target in (t, hard):
        yield loss_case(
            "binary_cross_entropy", q, target, lambda q, t=target: functional.binary_cross_entropy(q, t)
        )
        yield loss_case(
            "sigmoid_cross_entropy",
            z,
            target,
            lambda z, t=target: functional.binary_cross_entropy_with_logits(z, t),
        )
    yield loss_case(
        "binary_cross_entropy",
        q,
        t,
        lambda q: functional.binary_cross_entropy(q, t, weight=MEAN_ONE),
        weights=MEAN_ONE,
    )
    yield loss_case(
        "sigmoid_cross_entropy",
        z,
        t,
        lambda z: functional.binary_cross_entropy_with_logits(z, t, weight=MEAN_ONE),
        weights=MEAN_ONE,
    )


def class_cases():
    z = 2 * torch.randn(BATCH, STEPS, CLASSES)
    q, log_q = torch.softmax(z, -1), torch.log_softmax(z, -1)
    labels = torch.randint(0, CLASSES, (BATCH, STEPS))
    some = labels.clone()
    some[1, 0] = some[2, 1] = some[2, 0] = IGNORED
    soft = torch.softmax(torch.randn(BATCH, STEPS, CLASSES), -1)

    for t, weights, ignored in (
        (labels, None, None),
        (labels, WEIGHTS, None),
        (some, None, IGNORED),
        (some, WEIGHTS, IGNORED),
    ):
        index = -100 if ignored is None else ignored
        options = {"weights": weights, "ignore_label": ignored}

        def nll(log_q, t=t, weights=weights, index=index):
            return functional.nll_loss(log_q.movedim(-1, 1), t, weight=weights, ignore_index=index)

        yield loss_case("nll", log_q, t, nll, **options)
        yield loss_case("cross_entropy", q, t, lambda q, nll=nll: nll(q.log()), **options)
        for smoothing in (0.0, 0.2):
            yield loss_case(
                "softmax_cross_entropy",
                z,
                t,
                lambda z, t=t, w=weights, i=index, s=smoothing: functional.cross_entropy(
                    z.movedim(-1, 1), t, weight=w, ignore_index=i, label_smoothing=s
                ),
                label_smoothing=smoothing,
                **options,
            )

    def soft_cross_entropy(z, **options):
        return functional.cross_entropy(z.movedim(-1, 1), soft.movedim(-1, 1), **options)

    for smoothing in (0.0, 0.2):
        yield loss_case(
            "softmax_cross_entropy",
            z,
            soft,
            lambda z, s=smoothing: soft_cross_entropy(z, label_smoothing=s),
            label_smoothing=smoothing,
        )
        # PyTorch divides by the number of examples, fnnets by the sum of the weights of the targets.
        yield loss_case(
            "softmax_cross_entropy",
            z,
            soft,
            lambda z, s=smoothing: (
                soft_cross_entropy(z, weight=WEIGHTS, label_smoothing=s, reduction="sum")
                / (soft * WEIGHTS).sum()
            ),
            label_smoothing=smoothing,
            weights=WEIGHTS,
        )
    flat = soft.flatten(0, 1)
    yield loss_case(
        "kl_divergence",
        log_q,
        soft,
        lambda y: functional.kl_div(y.flatten(0, 1), flat, reduction="batchmean"),
    )


def layer_case(layer, x, reference, *, params=(), **options):
    """One layer: y, and the gradients of x (if it holds floats) and of params for a random dy."""
    inputs = [tensor.clone().requires_grad_(tensor.is_floating_point()) for tensor in (x, *params)]
    y = reference(*inputs)
    dy = torch.randn_like(y)
    y.backward(dy)
    dx, *dparams = (tensor.grad for tensor in inputs)
    case = {"x": x, "params": list(params), "y": y, "dy": dy, "dx": dx, "dparams": dparams}
    return {"layer": layer, "options": options} | plain(case)


def activation_cases():
    x = 2 * torch.randn(5, CLASSES)
    yield layer_case("sigmoid", x, torch.sigmoid)
    yield layer_case("tanh", x, torch.tanh)
    yield layer_case("relu", x, functional.relu)
    yield layer_case("leaky_relu", x, functional.leaky_relu)
    yield layer_case("leaky_relu", x, lambda x: functional.leaky_relu(x, 0.3), negative_slope=0.3)
    yield layer_case("prelu", x, functional.prelu, params=[torch.tensor([0.25])])
    yield layer_case("prelu", x, functional.prelu, params=[torch.rand(CLASSES)], per_feature=True)
    yield layer_case("elu", x, functional.elu)
    yield layer_case("elu", x, lambda x: functional.elu(x, 0.4), alpha=0.4)
    yield layer_case("selu", x, functional.selu)
    yield layer_case("softplus", x, functional.softplus)
    yield layer_case("gelu", x, functional.gelu)
    yield layer_case("gelu", x, lambda x: functional.gelu(x, approximate="tanh"), approximate=True)
    yield layer_case("silu", x, functional.silu)
    # The derivative of functional.hardsigmoid uses 1/6 in float32.
    yield layer_case("hard_sigmoid", 2 * x, lambda x: functional.relu6(x + 3) / 6)
    yield layer_case("softmax", x, lambda x: torch.softmax(x, -1))
    yield layer_case("log_softmax", x, lambda x: torch.log_softmax(x, -1))
    w, b = torch.randn(CLASSES, 3), torch.randn(3)
    yield layer_case("dense", x, lambda x, w, b: functional.linear(x, w.T, b), params=[w, b], features=3)
    ids = torch.randint(0, 5, (2, 4))
    yield layer_case(
        "embedding", ids, functional.embedding, params=[torch.randn(5, 3)], num_embeddings=5, features=3
    )
    yield layer_case("mish", x, functional.mish)


if __name__ == "__main__":
    cases = {
        "losses": [*regression_cases(), *binary_cases(), *class_cases()],
        "activations": list(activation_cases()),
    }
    lines = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in cases.items()]
    Path(__file__).with_name("losses.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
