"""One training on many devices: `python examples/studies/many_devices.py`.

A network with batch normalisation and dropout learns scikit-learn's handwritten digits for 50 steps, in float64: on one
device without a mesh, then with every batch split across 1, 2 and 8 devices, then across two processes that hold half of
the pictures each. For each, the study prints the largest difference of a param from one device; the exit status is 1 if
one is above `TOLERANCE`. The devices are host devices: parts of this machine's CPU that jax treats as devices.

Then it measures a step of a larger network on 1, 2, 4 and 8 devices: on accelerators if there are several, else on host
devices. Host devices share all threads of their process. So each process gets as many cores as it has devices, up to all
cores of the machine. One device with all cores is shown for comparison.

Each process can also be started by hand, on one machine or on several, with the address of the first:

    python examples/studies/many_devices.py --process 0 --of 2 --coordinator localhost:1234
    python examples/studies/many_devices.py --process 1 --of 2 --coordinator localhost:1234

`--quick` only compares two devices with one; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from support.common import BLUE, GREY, ORANGE, RED, options, picture, run, say, table

import fnnets as fn

INIT = jax.nn.initializers.he_uniform()
NET = fn.serial(
    fn.dense(32, use_bias=False, kernel_init=INIT), fn.batch_norm(), fn.dropout(0.2), fn.relu(),
    fn.dense(10, kernel_init=INIT),
)  # fmt: skip
LOSS = fn.losses.softmax_cross_entropy()
UPDATER, PENALTY = fn.updaters.adam(5e-3), fn.l2(1e-4)
BATCH, EPOCHS, SEED = 256, 10, 0  # five steps per epoch, the last with fewer pictures
TOLERANCE = 1e-10
COUNTS = 1, 2, 4, 8

LARGE = fn.serial(fn.dense(512), fn.relu(), fn.dense(512), fn.relu(), fn.dense(10))
LARGE_BATCH, LARGE_STEPS = 1024, 4


def load() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The digits, 7:3, standardised by the training part."""
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(x))
    train, test = np.split(order, [len(x) * 7 // 10])
    deviation = x[train].std(0, ddof=1)
    x = (x - x[train].mean(0)) / np.where(deviation == 0, 1, deviation)
    return (x[train], target[train]), (x[test], target[test])


def trained(examples: Any, mesh: Any = None) -> fn.train.Fitted:
    """The network after 50 steps: the same call on one device, on many, and in every process."""
    return fn.train.fit(
        NET, LOSS, UPDATER, examples,
        epochs=EPOCHS, key=jax.random.key(SEED), batch_size=BATCH, penalty=PENALTY, mesh=mesh,
    )  # fmt: skip


def take_part(process: int, of: int, coordinator: str | None, save: Path | None) -> None:
    """The work of one process: trains with its part of the pictures, on all devices of all processes."""
    if coordinator is not None:
        jax.distributed.initialize(coordinator, num_processes=of, process_id=process)
    train, test = load()
    own = tuple(np.array_split(part, of)[process] for part in train)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",))
    with jax.enable_x64(True):
        found = trained(own, mesh)
        y = np.asarray(jax.jit(NET.apply)(found.params, test[0]))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found.params)]
    print(
        f"process {process} of {of}: {len(own[1])} of {len(train[1])} pictures, {jax.local_device_count()} of {mesh.size} devices; "
        f"{int(found.state.step)} steps, loss {found.history.loss[-1]:.6f}, accuracy on {len(test[1])} test pictures "
        f"{(y.argmax(-1) == test[1]).mean():.2%}, sum of the params {sum(leaf.sum() for leaf in leaves):.10f}",
        flush=True,
    )
    if save is not None:
        np.savez(save, *leaves)


# ---------------------------------------------------------------- the differences of the params


def child(flags: str, *args: Any, platform: str = "cpu") -> subprocess.Popen[str]:
    """Starts this program in a new process, with XLA flags that set its devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, args)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": platform},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def host_devices(count: int) -> str:
    """The XLA flag that creates host devices."""
    return f"--xla_force_host_platform_device_count={count}"


def said(*children: subprocess.Popen[str]) -> str:
    """The output of all processes, once they have ended; exits if one fails."""
    try:
        outputs = [one.communicate() for one in children]
    finally:
        for one in children:
            one.kill()
    for one, (_, errors) in zip(children, outputs, strict=True):
        if one.returncode:
            sys.exit(f"a process failed:\n{errors}")
    return "".join(text for text, _ in outputs)


def differences(quick: bool) -> dict[str, float]:
    """The largest difference of a param from one device, for each way to split the batch."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        alone = [np.asarray(leaf) for leaf in jax.tree.leaves(trained(load()[0]).params)]

    def to_alone(path: Path) -> float:
        with np.load(path) as leaves:
            return max(float(abs(a - leaves[f"arr_{i}"]).max()) for i, a in enumerate(alone))

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for devices in (2,) if quick else (1, 2, 8):
            path = Path(folder) / f"{devices}.npz"
            said(child(host_devices(devices), "--save", path))
            found[f"{devices} device{'s' * (devices > 1)}"] = to_alone(path)
        if not quick:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                place = f"localhost:{free.getsockname()[1]}"
            paths = [Path(folder) / f"process{i}.npz" for i in range(2)]
            both = ["--of", 2, "--coordinator", place]
            said(
                *(
                    child(host_devices(1), *both, "--process", i, "--save", path)
                    for i, path in enumerate(paths)
                )
            )
            found["2 processes"] = max(map(to_alone, paths))
    return found


# ---------------------------------------------------------------- the time of a step


def timed(counts: Sequence[int], cores: int | None) -> None:
    """Prints the seconds per step for each number of devices.

    Each is the median of three differences between a long and a short training.
    """
    rng = np.random.default_rng(SEED)
    n = LARGE_BATCH * LARGE_STEPS
    examples = rng.standard_normal((n, 256), np.float32), rng.integers(0, 10, n)
    if cores is not None and hasattr(os, "sched_setaffinity"):  # before XLA starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    for count in counts:
        mesh = jax.make_mesh((count,), ("batch",), devices=jax.devices()[:count])

        def seconds(epochs: int, state: Any, mesh: Any = mesh) -> float:
            start = time.perf_counter()
            fn.train.fit(
                LARGE, LOSS, UPDATER, examples, epochs=epochs, state=state, batch_size=LARGE_BATCH, mesh=mesh
            )
            return time.perf_counter() - start

        state = fn.train.start(LARGE, UPDATER, examples[0], jax.random.key(SEED))
        seconds(1, state)
        steps = [(seconds(5, state) - seconds(1, state)) / (4 * LARGE_STEPS) for _ in range(3)]
        print(count, statistics.median(steps), flush=True)


def scaling() -> tuple[str, dict[tuple[int, int | None], float]]:
    """The hardware's name, and the seconds per step by the numbers of devices and of their cores."""
    devices, platform = jax.devices(), jax.default_backend()
    if platform != "cpu" and len(devices) > 1:
        name = f"{len(devices)} × {devices[0].device_kind}"
        text = said(child("", "--time", *(n for n in COUNTS if n <= len(devices)), platform=platform))
        pairs = (line.split() for line in text.splitlines())
        return name, {(int(count), None): float(value) for count, value in pairs}
    cores = os.cpu_count() or 1
    found: dict[tuple[int, int | None], float] = {}
    for count, own in [(1, cores), *((count, min(count, cores)) for count in COUNTS)]:
        text = said(child(host_devices(count), "--time", count, "--cores", own))
        found[count, own] = float(text.split()[1])
    return f"parts of one CPU with {cores} cores", found


# ---------------------------------------------------------------- the report


def draw(
    figure: Any, found: dict[str, float], name: str, seconds: dict[tuple[int, int | None], float]
) -> None:
    """The differences, and the time of a step."""
    left, right = figure.subplots(1, 2)
    left.barh(list(found), list(found.values()), color=BLUE)
    for i, value in enumerate(found.values()):
        left.text(value * 1.3 or 1.3e-17, i, f"{value:.1e}" if value else "none", va="center")
    left.axvline(TOLERANCE, color=RED)
    left.text(TOLERANCE, len(found) - 0.45, " tolerance", color=RED, va="bottom")
    left.set(xscale="log", xlim=(1e-17, 1e-8), xlabel="largest difference of a param from one device")
    left.set_title("50 steps in float64")
    left.invert_yaxis()
    own = {count: (cores, value) for (count, cores), value in seconds.items()}  # the last entry of each count
    counts = list(own)
    right.plot(counts, [1e3 * value for _, value in own.values()], "o-", color=BLUE, label="measured")
    ideal = [1e3 * own[1][1] / (cores or count) for count, (cores, _) in own.items()]
    right.plot(counts, ideal, "--", color=GREY, label="ideal")
    (first, cores), value = next(iter(seconds.items()))
    if cores is not None:
        right.plot([first], [1e3 * value], "o", color=ORANGE, label=f"one device with all {cores} cores")
    right.set(xlabel="devices", ylabel="milliseconds per step", ylim=(0, None), title=f"A step on {name}")
    right.set_xscale("log", base=2)
    right.set_xticks(counts, map(str, counts))
    right.legend()


def process_options(parser: argparse.ArgumentParser) -> None:
    """The options of a single process."""
    parser.add_argument("--process", type=int, metavar="I", help="the number of this process, from 0")
    parser.add_argument("--of", type=int, default=1, metavar="N", help="the number of processes")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="the address of process 0")
    parser.add_argument("--save", type=Path, metavar="FILE", help="the file for the trained params (.npz)")
    parser.add_argument("--time", type=int, nargs="+", metavar="N", help="only time a step on N devices")
    parser.add_argument("--cores", type=int, metavar="N", help="use N of the CPU's cores")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs as one process, or starts the processes and compares them."""
    chosen = options(__doc__, argv, process_options)
    if chosen.time:
        timed(chosen.time, chosen.cores)
        return 0
    if chosen.save is not None or chosen.process is not None:
        take_part(chosen.process or 0, chosen.of, chosen.coordinator, chosen.save)
        return 0
    found = differences(chosen.quick)
    rows = [(name, f"{value:.2g}") for name, value in found.items()]
    say(table(("batch split across", "largest difference from one device"), rows))
    if not chosen.quick:
        name, seconds = scaling()
        one = seconds.get((1, 1)) or seconds[1, None]
        rows = [
            (f"{count}", "–" if cores is None else f"{cores}", f"{1e3 * value:.1f}", f"{one / value:.2f}")
            for (count, cores), value in seconds.items()
        ]
        say(f"\na step on {name}\n\n{table(('devices', 'cores', 'ms per step', 'speedup'), rows)}")
        with picture(chosen.out / "many_devices.png", 11, 4) as figure:
            draw(figure, found, name, seconds)
    return int(max(found.values()) > TOLERANCE)


if __name__ == "__main__":
    run(main)
