"""What all tests share."""

import os

import jax
import pytest

collect_ignore_glob = ["references/*"]  # scripts that need the peers

# Two workers share the machine, and nearly all of their time is compilation: of tiny programs, which
# gain nothing from being optimised.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)


@pytest.fixture
def x64():
    """float64 within the test."""
    with jax.enable_x64(True):
        yield


def pytest_addoption(parser):
    """`--full`: whole products where the everyday run takes a selection."""
    parser.addoption("--full", action="store_true", help="all of every product of settings; takes long")
