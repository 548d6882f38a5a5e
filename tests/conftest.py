"""What all tests share."""

import os

# Two workers share the machine: each test process leaves the other a core.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
