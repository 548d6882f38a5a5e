"""Many devices give the params of one device: host devices of one process, and two processes."""

import os
import pathlib
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest

TOP = pathlib.Path(__file__).parents[2]
EVERY_DAY = ["full 8", "ensemble 2", "broken 8"]
FULLY = [
    "full 1", "full 2", "autodiff 8", "early 2", "early 8", "keep 8", "conv 1", "conv 2", "conv 8", "lstm 1", "lstm 2",
    "lstm 8", "ensemble 8", "sweep 2", "sweep 8", "cross-validation 2", "cross-validation 8",
    "partition:full 4", "partition:conv 4", "partition:lstm 4",
]  # fmt: skip
full = pytest.mark.full
pytestmark = pytest.mark.xdist_group("many devices")  # one worker starts the children


def child(devices, *args):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": f"{TOP}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [
        sys.executable,
        "-W",
        "error",
        str(TOP / "tests" / "support" / "device_cases.py"),
        *map(str, args),
    ]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(*children):
    """Waits for the children, and kills those that do not end."""
    try:
        outputs = [one.communicate(timeout=300)[0] for one in children]
    finally:
        for one in children:
            one.kill()
    for one, text in zip(children, outputs, strict=True):
        assert one.returncode == 0, text[-3000:]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, request):
    out = tmp_path_factory.mktemp("devices") / "results"
    wait_for(child(8, out, *EVERY_DAY, *(FULLY if request.config.getoption("--full") else [])))
    return pickle.loads(out.read_bytes())


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return both(tmp_path_factory.mktemp("processes"), 1)


def both(folder, devices, *more):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    outs = [folder / str(process) for process in range(2)]
    wait_for(*(child(devices, out, "--process", i, port, *more) for i, out in enumerate(outs)))
    return [pickle.loads(out.read_bytes()) for out in outs]


# ---------------------------------------------------------------- one process


@pytest.mark.parametrize(
    "case", [*EVERY_DAY[:2], *(pytest.param(c, marks=full) for c in FULLY if ":" not in c)]
)
def test_devices_give_the_results_of_one(case, one_process):
    assert one_process[0][case] < 1e-10


def test_a_broken_run_continues_bit_for_bit_and_on_fewer_devices_too(one_process):
    on_the_mesh, on_one_device = one_process[0]["broken 8"]
    assert on_the_mesh == 0
    assert on_one_device < 1e-10


def test_examples_may_come_from_other_devices(one_process):
    assert one_process[0]["spread"] == 0


@full
@pytest.mark.parametrize(("case", "share"), [("full", 0.5), ("conv", 0.35), ("lstm", 0.45)])
def test_every_device_computes_its_share(case, share, one_process):
    """Of 4 devices, each computes little more than a quarter of an epoch, and no batch is gathered."""
    epoch = one_process[0][f"partition:{case} 4"]
    assert epoch["flops"] < share
    assert epoch["bytes"] <= 16 * 2 * 4, "only indices of labels"


def test_wrong_meshes_and_batch_sizes_are_named(one_process):
    errors = one_process[0]["mistakes"]
    assert (
        "batch_size must be a multiple of the 8 devices of the mesh, got 12; use 8 or 16" in errors["batch"]
    )
    assert "got 4; use 8, or a mesh of fewer" in errors["small batch"]
    assert "mesh must have one axis, got (a, b)" in errors["axes"]
    assert "mesh must be a jax.sharding.Mesh, got list; make one of all devices" in errors["not a mesh"]


# ---------------------------------------------------------------- two processes


def close(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_two_processes_give_the_results_of_one_device(one_process, two_processes):
    """With 30 rows in one and 13 in the other. Each returns arrays of its own."""
    for found, results in two_processes:
        close(results["full"], one_process[1]["full"])
        assert found["local"]
        assert found["steps"] == [51, 54]
        assert found["compilations"] == 1, "for a fit and its continuation together"


def test_two_processes_end_together(two_processes):
    """After Ctrl-C in one of them."""
    (one, _), (other, _) = two_processes
    assert one["interrupted"] == other["interrupted"]
    assert one["interrupted"][0] == "interrupted"
    assert one["interrupted"][1] == one["interrupted"][2] < 100_000


def test_processes_that_differ_are_refused(two_processes):
    for process, (found, _) in enumerate(two_processes):
        other = (
            f"in process {process}, and something else in process {1 - process}; run the same program in each"
        )
        assert f"epochs must be the same in all processes, got {3 + process} {other}" in found["epochs"]
        assert (
            f"the examples' shapes must be the same in all processes, got .x float64[{3 + process}]"
            in found["width"]
        )
        assert "the validation's shapes must be the same" in found["validation"]


@full
def test_two_processes_of_two_devices(one_process, tmp_path):
    """With NaN in the rows of one process, and with an ensemble."""
    for found, results in both(tmp_path, 2, "--more"):
        assert found["not finite"] == [0, "x[5, 0] is nan before anything was computed"]
        close(results["full"], one_process[1]["full"])
        close(results["ensemble"], one_process[1]["ensemble"])
        assert "ensemble: keys and data must be the same in all processes" in found["data"]
