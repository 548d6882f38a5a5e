"""What all tests share."""

import os

import jax
import pytest

collect_ignore_glob = ["references/*"]  # scripts that need the peers

# Two workers share the machine: each test process leaves the other a core.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")


@pytest.fixture
def x64():
    """float64 within the test."""
    with jax.enable_x64(True):
        yield
