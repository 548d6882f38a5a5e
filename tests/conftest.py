"""What all tests share."""

import os

import jax
import pytest

collect_ignore_glob = ["references/*"]  # scripts that need the peers

# Two workers share the machine, and nearly all of their time is compilation: of tiny programs, which gain
# nothing from being optimised. The last flag halves it; XLA exits at a flag that it does not know, and later ones do not.
FLAGS = [
    "--xla_cpu_multi_thread_eigen=false",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    *(["--xla_cpu_use_fusion_emitters=false"] if jax.__version_info__ < (0, 11) else []),
]
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# Without the compiler's alarm at what takes it long, as anything may on a busy machine.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@pytest.fixture
def x64():
    """float64 within the test."""
    with jax.enable_x64(True):
        yield


def pytest_addoption(parser):
    """`--full`: whole products where the everyday run takes a selection."""
    parser.addoption("--full", action="store_true", help="all of every product of settings; takes long")


def pytest_collection_modifyitems(config, items):
    """What is marked `full` runs with `--full` alone."""
    if config.getoption("--full"):
        return
    left = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if not item.get_closest_marker("full")]
