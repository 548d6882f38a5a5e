"""Trainings on several devices, in float64; test_many_devices.py runs this file in separate processes.

`python device_cases.py OUT "full 8" "lstm 2" …` compares host devices of one process with one device.
`python device_cases.py OUT --process I PORT` is one of two processes.
"""

import logging
import os
import pathlib
import pickle
import re
import signal
import sys
import tempfile
import threading
from contextlib import nullcontext
from functools import partial

import jax
import numpy as np

import fnnets as fn
from fnnets.train.epoch import begin
from fnnets.train.job import Job
from fnnets.train.placement import OneDevice, compiled_epoch, placement_on
from fnnets.train.settings import Settings
from fnnets.train.sharding import shard_rows, sharded

RNG = np.random.default_rng(0)
N, STEPS = 43, 51  # 3 steps per epoch, the last one padded
SEED, ADAM, MSE = 5, fn.updaters.adam(0.02), fn.losses.mse()
ENTROPY = fn.losses.softmax_cross_entropy()
X = RNG.standard_normal((N, 3))
T = np.sin(X[:, :2]) + 0.1 * RNG.standard_normal((N, 2))
IMAGES, LABELS = RNG.standard_normal((48, 4, 4, 2)), RNG.integers(0, 3, 48)
SERIES, MASK = RNG.standard_normal((N, 4, 2)), RNG.random((N, 4)) < 0.7
ERROR = {"error": lambda y, t: abs(y - t).sum(-1)}
DENSE = partial(fn.dense, kernel_init=jax.nn.initializers.he_uniform())  # compiles fast
FULL = fn.serial(DENSE(5, use_bias=False), fn.batch_norm(), fn.dropout(0.3), DENSE(2))
PLAIN = fn.serial(fn.dense(4), fn.tanh(), fn.dense(2))
CONV = fn.serial(
    fn.conv(4, (3, 3), use_bias=False), fn.batch_norm(), fn.relu(), fn.max_pool((2, 2)),
    fn.conv(3, (2, 2)), fn.flatten(3), fn.dense(3),
)  # fmt: skip
ALL = {"penalty": fn.l2(1e-3), "clip": 0.5, "validation": (X[:13] + 0.1, T[:13]), "metrics": ERROR}
SMALL, SGD = fn.serial(DENSE(2), fn.batch_norm()), fn.updaters.sgd(0.1)
FITS = {
    "full": (FULL, MSE, (X, T), ALL),
    "autodiff": (FULL, MSE, (X, T), {"gradient": "autodiff"}),
    "early": (PLAIN, MSE, (X, T), {"validation": (-X, T), "early_stopping": fn.train.early_stopping(4)}),
    "keep": (FULL, MSE, (X, T), {"remainder": "keep", "replace": True}),
    "conv": (CONV, ENTROPY, (IMAGES, LABELS), {}),
    "lstm": (fn.serial(fn.lstm(3), fn.dense(2)), MSE, fn.data.Examples(SERIES, SERIES, MASK, MASK), {}),
}


def make(rate, units):
    return fn.train.Recipe(fn.serial(fn.dense(units), fn.tanh(), fn.dense(2)), MSE, fn.updaters.sgd(rate))


def fit(name, mesh=None, **options):
    net, loss, examples, settings = FITS[name]
    options = {
        "epochs": STEPS // 3,
        "batch_size": 16,
        "key": jax.random.key(SEED),
        "examples": examples,
        **settings,
        **options,
    }
    return fn.train.fit(net, loss, ADAM, options.pop("examples"), mesh=mesh, **options)


def models(name, mesh=None):
    """Many models; the devices do not divide their number."""
    settings = {"epochs": 3, "batch_size": 16, "key": jax.random.key(SEED), "mesh": mesh, "metrics": ERROR}
    if name == "ensemble":
        return fn.train.ensemble(SMALL, MSE, SGD, (X, T), models=3, bootstrap=True, **settings)
    if name == "sweep":
        settings |= {"numbers": {"rate": (0.01, 0.1, 0.5)}, "structures": {"units": (2, 3)}, "seeds": 3}
        return fn.train.sweep(make, (X, T), (X + 0.1, T), **settings)[1:]
    splits, scaler = fn.data.kfold(jax.random.key(1), N, 5), fn.data.standardise()
    return fn.train.cross_validate(SMALL, MSE, SGD, (X, T), splits, scaler=scaler, **settings)


def broken(mesh, folder):
    """The differences between an unbroken run and one continued from checkpoints, on the mesh and then on one device."""
    checkpoints = fn.train.checkpoints(folder, every=4)
    fit("full", mesh, epochs=5, checkpoints=checkpoints)
    again = fit("full", mesh, checkpoints=checkpoints)
    alone = fit("full", epochs=STEPS // 3 + 1, checkpoints=checkpoints)
    longer = fit("full", epochs=STEPS // 3 + 1)
    return difference(again[::2], fit("full", mesh)[::2]), difference(alone[::2], longer[::2])


def run(name, mesh=None):
    return tuple(fit(name, mesh)[::2]) if name in FITS else models(name, mesh)


def mesh_of(devices):
    return jax.make_mesh((devices,), ("batch",), devices=jax.devices()[:devices])


def difference(one, other):
    """The largest difference between the arrays of two trees; ∞ if the trees have different structures."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return np.inf
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]
    if any(a.shape != b.shape or a.dtype != b.dtype or (np.isnan(a) != np.isnan(b)).any() for a, b in pairs):
        return np.inf
    return max(float(np.nanmax(abs(a - b), initial=0)) for a, b in pairs)


# ---------------------------------------------------------------- host devices of one process


def mistakes():
    """The errors for a batch size and for meshes that are refused."""
    cases = {
        "batch": (mesh_of(8), {"batch_size": 12}),
        "small batch": (mesh_of(8), {"batch_size": 4}),
        "axes": (jax.make_mesh((2, 4), ("a", "b")), {}),
        "not a mesh": (jax.devices(), {}),
    }
    return {name: refused(lambda case=case: fit("full", case[0], **case[1])) for name, case in cases.items()}


def spread():
    """The difference in an array that moves from two devices, on an axis of type Explicit, to a mesh of eight."""
    on_two = jax.device_put(X[:42], sharded(mesh_of(2)))
    placement = placement_on("test", mesh_of(8))
    moved = shard_rows(placement.mesh, placement.as_array(on_two), 6)
    return float(abs(np.asarray(moved)[:42] - X[:42]).max())


def refused(call):
    try:
        call()
    except (ValueError, TypeError) as error:
        return str(error)
    return "nothing"


def compiled_on(placement, settings, state, examples):
    """The compiled program of an epoch."""
    data = placement.place(settings, 1, state, examples, None)
    job = Job(settings, placement, data, compiled_epoch(settings, placement, data.layout))
    return job.trace(placement.replicate(begin(settings, state))).lower().compile()


def partitioned(name, devices):
    """A compiled epoch's flops relative to one device, and the bytes of the largest array that it gathers."""
    net, loss, examples, _ = FITS[name]
    settings = Settings(net, loss, ADAM, 16)
    examples = fn.data.Examples(*jax.tree.map(np.asarray, tuple(examples)))
    state = fn.train.start(net, ADAM, examples.x, jax.random.key(SEED))
    alone, program = (
        compiled_on(placement, settings, state, examples)
        for placement in (OneDevice(), placement_on("test", mesh_of(devices)))
    )
    gathered = re.findall(r"= \w?(\d+)\[([\d,]*)\]\S* all-gather\(", program.as_text())
    return {
        "flops": program.cost_analysis()["flops"] / alone.cost_analysis()["flops"],
        "bytes": max((int(bits) // 8 * np.prod([int(n) for n in shape.split(",")]) for bits, shape in gathered), default=0),
    }  # fmt: skip


def several_devices(cases):
    """The largest difference between each case and one device, and the results on one device."""
    alone, found = {}, {"mistakes": mistakes(), "spread": spread()}
    for case in cases:
        name, devices = case.split()
        if name.startswith("partition:"):
            found[case] = jax.tree.map(float, partitioned(name.partition(":")[2], int(devices)))
            continue
        mesh = mesh_of(int(devices))
        if name == "broken":
            with tempfile.TemporaryDirectory() as folder:
                found[case] = broken(mesh, folder)
            continue
        alone[name] = alone[name] if name in alone else run(name)
        with jax.set_mesh(mesh) if devices == "2" else nullcontext():  # as a user may do
            result = run(name, mesh)
        found[case] = difference(result, alone[name])
    return found, alone


# ---------------------------------------------------------------- two processes


class Log(logging.Handler):
    """Keeps the messages of jax."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def one_of_two(process, more):
    """The results of this process, and the errors where the two processes differ."""
    mesh = mesh_of(jax.device_count())
    rows, held = ((slice(30), slice(5)), (slice(30, None), slice(5, None)))[process]
    validation = tuple(a[held] for a in ALL["validation"])
    options = {"examples": (X[rows], T[rows]), "validation": validation}
    with jax.log_compiles():
        logging.getLogger("jax").addHandler(log := Log())
        fitted = fit("full", mesh, **options)
        again = fit("full", mesh, **options, key=None, state=fitted.state, epochs=1)
    found = {"local": all(leaf.is_fully_addressable for leaf in jax.tree.leaves(fitted[:2]))}
    found["compilations"] = sum(
        "Finished XLA compilation of jit(on_examples)" in text for text in log.messages
    )
    found["steps"] = [int(fitted.state.step), int(again.state.step)]

    if process == 1:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    stopped = fit("full", mesh, **options, epochs=100_000)
    found["interrupted"] = [stopped.stopped, len(stopped.history.loss), int(stopped.state.epoch)]

    found["epochs"] = refused(lambda: fit("full", mesh, **options, epochs=3 + process))
    wide = {**options, "examples": (np.ones((30, 3 + process)), np.ones((30, 2)))}
    found["width"] = refused(lambda: fit("full", mesh, **wide))
    found["validation"] = refused(
        lambda: fit("full", mesh, **{**options, "validation": validation if process else None})
    )
    results = {"full": tuple(fitted[::2])}
    if more:
        x = np.where(np.arange(N)[:, None] == 40, np.nan, X)
        try:
            fit("full", mesh, **{**options, "examples": (x[rows], T[rows])})
        except fn.train.NonFiniteError as error:
            found["not finite"] = [error.step, str(error.found)]
        results["ensemble"] = models("ensemble", mesh)
        found["data"] = refused(
            lambda: fn.train.ensemble(
                SMALL, MSE, SGD, (X + process, T), models=2, epochs=1, key=jax.random.key(SEED), mesh=mesh
            )
        )
    return found, results


def main(out, *cases):
    """Writes the results by pickle, for the test that started this process."""
    if cases[0] == "--process":
        process, port = map(int, cases[1:3])
        jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
        found, results = one_of_two(process, "--more" in cases)
    else:
        found, results = several_devices(cases)
    leaves = {
        name: [np.asarray(leaf) for leaf in jax.tree.leaves(result)] for name, result in results.items()
    }
    pathlib.Path(out).write_bytes(pickle.dumps((found, leaves)))


if __name__ == "__main__":
    main(*sys.argv[1:])
