"""Writes updaters.json: 200 steps of PyTorch's and Keras's optimizers, in float64.

Run it with torch and keras installed: `KERAS_BACKEND=jax JAX_ENABLE_X64=1 python make_updaters.py`.
"""

import json
import pathlib

import jax
import keras
import torch

STEPS = (1, 2, 3, 10, 50, 100, 101, 102, 150, 200)
DROP = 100  # from this step on, a scheduled rate is divided by ten
INPUTS = ((0.5, -1.0), (1.5, 0.3), (-0.7, 0.8), (0.1, 1.2))
TARGETS = (0.3, -0.4, 0.9, 0.1)
STARTS = {
    "quadratic": (1.0, -2.0, 0.5),
    "rosenbrock": (-1.2, 1.0),
    "network": (0.4, -0.6, 0.2, 0.9, 0.1, -0.3, 0.05, -0.1, 0.2, 0.7, -0.5, 0.3, 0.1),
}

# updater: (its settings in fnnets, the optimizer's class, the optimizer's settings, scheduled)
TORCH = {
    "sgd": ("sgd", {}, "SGD", {}, False),
    "momentum": ("momentum", {"rho": 0.9}, "SGD", {"momentum": 0.9}, False),
    "nesterov": ("nesterov", {"rho": 0.9}, "SGD", {"momentum": 0.9, "nesterov": True}, False),
    "momentum scheduled": ("momentum", {"rho": 0.9, "rate_place": "outside"}, "SGD", {"momentum": 0.9}, True),
    "nesterov scheduled": (
        "nesterov",
        {"rho": 0.9, "rate_place": "outside"},
        "SGD",
        {"momentum": 0.9, "nesterov": True},
        True,
    ),
    "adagrad": (
        "adagrad",
        {"eps": 0.01, "eps_place": "outside", "initial_accumulator": 0.0},
        "Adagrad",
        {"eps": 0.01},
        False,
    ),
    "adadelta": ("adadelta", {"rho": 0.9, "eps": 1e-4}, "Adadelta", {"rho": 0.9, "eps": 1e-4}, False),
    "rmsprop": (
        "rmsprop",
        {"rho": 0.99, "eps": 1.0, "eps_place": "outside"},
        "RMSprop",
        {"alpha": 0.99, "eps": 1.0},
        False,
    ),
    "rmsprop centered": (
        "rmsprop",
        {"rho": 0.99, "eps": 1.0, "eps_place": "outside", "centered": True},
        "RMSprop",
        {"alpha": 0.99, "eps": 1.0, "centered": True},
        False,
    ),
    "adam": ("adam", {"eps": 0.01}, "Adam", {"eps": 0.01}, False),
    "adam scheduled": ("adam", {}, "Adam", {}, True),
    "adamw": (
        "adamw",
        {"eps": 0.01, "weight_decay": 0.1},
        "AdamW",
        {"eps": 0.01, "weight_decay": 0.1},
        False,
    ),
    "adamax": ("adamax", {"eps": 0.01}, "Adamax", {"eps": 0.01}, False),
}
KERAS = {
    "momentum scheduled": ("momentum", {"rho": 0.9}, "SGD", {"momentum": 0.9}, True),
    "nesterov scheduled": ("nesterov", {"rho": 0.9}, "SGD", {"momentum": 0.9, "nesterov": True}, True),
    "adagrad": ("adagrad", {"eps": 0.01}, "Adagrad", {"epsilon": 0.01}, False),
    "adadelta": ("adadelta", {"rho": 0.95, "eps": 1e-4}, "Adadelta", {"rho": 0.95, "epsilon": 1e-4}, False),
    "rmsprop": ("rmsprop", {"eps": 1.0}, "RMSprop", {"rho": 0.9, "epsilon": 1.0}, False),
    "rmsprop centered": (
        "rmsprop",
        {"eps": 1.0, "centered": True},
        "RMSprop",
        {"rho": 0.9, "epsilon": 1.0, "centered": True},
        False,
    ),
    "adam": ("adam", {"eps": 0.01, "eps_place": "uncorrected"}, "Adam", {"epsilon": 0.01}, False),
    "adamw": (
        "adamw",
        {"eps": 0.01, "eps_place": "uncorrected", "weight_decay": 0.1},
        "AdamW",
        {"epsilon": 0.01, "weight_decay": 0.1},
        False,
    ),
    "adamax": ("adamax", {"eps": 0.01, "eps_place": "outside"}, "Adamax", {"epsilon": 0.01}, False),
}
RATES = {
    "sgd": (1e-3, 5e-4, 0.1),
    "momentum": (2e-4, 1e-4, 0.05),
    "nesterov": (2e-4, 1e-4, 0.05),
    "adagrad": (0.1, 0.1, 0.1),
    "adadelta": (0.1, 0.1, 0.1),
    "rmsprop": (0.002, 0.002, 0.01),
    "adam": (0.02, 0.02, 0.02),
    "adamw": (0.02, 0.02, 0.02),
    "adamax": (0.02, 0.02, 0.02),
}


def loss(lib, problem, p):
    """The loss of a problem, in operations that both libraries share."""
    if problem == "quadratic":  # condition number 1000, not along the axes
        a, b, c = p[0] + p[1] + p[2], p[0] - p[1], p[0] + p[1] - 2 * p[2]
        return 0.5 * (a * a + 30 * b * b + 1000 * c * c) / 6
    if problem == "rosenbrock":
        return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
    total = 0.0
    for (x1, x2), target in zip(INPUTS, TARGETS, strict=True):
        hidden = lib.tanh(p[0:3] * x1 + p[3:6] * x2 + p[6:9])
        total = total + ((hidden * p[9:12]).sum() + p[12] - target) ** 2
    return total / 4


def rate_at(rate, scheduled, step):
    """The rate of the step after `step` earlier ones."""
    return rate / 10 if scheduled and step >= DROP else rate


def run_torch(name, settings, rate, scheduled, problem):
    """PyTorch's parameters after each of STEPS."""
    p = torch.tensor(STARTS[problem], dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, name)([p], lr=rate, **settings)
    path = []
    for step in range(max(STEPS)):
        optimizer.param_groups[0]["lr"] = rate_at(rate, scheduled, step)
        optimizer.zero_grad()
        loss(torch, problem, p).backward()
        optimizer.step()
        if step + 1 in STEPS:
            path.append(p.tolist())
    return path


def run_keras(name, settings, rate, scheduled, problem):
    """Keras's parameters after each of STEPS."""
    variable = keras.Variable(list(STARTS[problem]), dtype="float64")
    optimizer = getattr(keras.optimizers, name)(learning_rate=rate, **settings)
    optimizer.build([variable])
    grad = jax.jit(jax.grad(lambda p: loss(jax.numpy, problem, p)))
    path = []
    for step in range(max(STEPS)):
        optimizer.learning_rate = rate_at(rate, scheduled, step)
        optimizer.apply([grad(variable.value)])
        if step + 1 in STEPS:
            path.append(variable.value.tolist())
    return path


def runs(cases, run):
    """Each case on each problem, with the settings that fnnets needs to repeat it."""
    for case, (updater, ours, name, theirs, scheduled) in cases.items():
        for problem, rate in zip(STARTS, RATES[updater], strict=True):
            yield {
                "case": case,
                "updater": updater,
                "settings": ours,
                "rate": rate,
                "scheduled": scheduled,
                "problem": problem,
                "path": run(name, theirs, rate, scheduled, problem),
            }


def main():
    """Writes the file beside this one."""
    keras.config.set_floatx("float64")
    reference = {
        "made with": {"torch": torch.__version__, "keras": keras.__version__},
        "steps": STEPS,
        "drop": DROP,
        "inputs": INPUTS,
        "targets": TARGETS,
        "starts": STARTS,
        "torch": list(runs(TORCH, run_torch)),
        "keras": list(runs(KERAS, run_keras)),
    }
    path = pathlib.Path(__file__).with_name("updaters.json")
    path.write_text(json.dumps(reference).replace('{"case"', '\n{"case"') + "\n")


if __name__ == "__main__":
    main()
