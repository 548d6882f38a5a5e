"""by_hand under every transformation of jax: equal to the plain equations, and no dearer than `jax.custom_vjp`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformations import TRANSFORMATIONS, at, hand_and_plain

from fnnets import catalogue

ROWS = {case.name: case for case in catalogue.cases() if case.layer is not None}
TABLE = [(row, name) for row in ROWS for name in TRANSFORMATIONS]


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        cells = TABLE if metafunc.config.getoption("--full") else TABLE[::37]
        metafunc.parametrize("cell", cells, ids=[": ".join(cell) for cell in cells])


@pytest.mark.usefixtures("x64")
def test_hand_equals_plain(cell):
    row, name = cell
    case = ROWS[row]
    hand, plain = hand_and_plain(case, name)(at(case))
    assert jax.tree.structure(hand) == jax.tree.structure(plain)
    for ours, theirs in zip(jax.tree.leaves(hand), jax.tree.leaves(plain), strict=True):
        assert ours.dtype == theirs.dtype
        scale = max(1.0, float(jnp.abs(theirs).max(initial=0.0)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * scale)
