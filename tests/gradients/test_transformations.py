"""by_hand under every JAX transformation: for each row of the catalogue it equals the plain equations.

The default run takes every `SHARE`-th cell of the table; `pytest tests/gradients/test_transformations.py --full`
takes all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformations import TRANSFORMATIONS, at, function, hand_and_plain

from fnnets import catalogue

ROWS = {case.name: case for case in catalogue.cases() if case.layer is not None}
TABLE = [(row, name) for row in ROWS for name in TRANSFORMATIONS]
SHARE = 103  # not a multiple of the number of transformations, so the default run covers all of them

# With its check of varying axes, JAX refuses the derivative of erfc, in the plain equations too.
REFUSED = {("gelu", "shard_map"), ("deep", "shard_map")} if jax.__version_info__ >= (0, 11) else set()


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        cells = TABLE if metafunc.config.getoption("--full") else TABLE[::SHARE]
        marks = lambda i: [pytest.mark.quick] if i % 3 == 0 else []
        rows = [pytest.param(cell, id=": ".join(cell), marks=marks(i)) for i, cell in enumerate(cells)]
        metafunc.parametrize("cell", rows)


def test_the_default_run_covers_every_transformation():
    assert {name for _, name in TABLE[::SHARE]} == set(TRANSFORMATIONS)


@pytest.mark.usefixtures("x64")
def test_hand_equals_plain(cell):
    row, name = cell
    case = ROWS[row]
    if cell in REFUSED:
        with pytest.raises(ValueError, match="varying manual axes"):
            jax.jit(lambda at: TRANSFORMATIONS[name](function(case, case.layer, at.fixed), at))(at(case))
        return
    hand, plain = hand_and_plain(case, name)(at(case))
    assert jax.tree.structure(hand) == jax.tree.structure(plain)
    for ours, theirs in zip(jax.tree.leaves(hand), jax.tree.leaves(plain), strict=True):
        assert ours.dtype == theirs.dtype
        scale = max(1.0, float(jnp.abs(theirs).max(initial=0.0)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * scale)
