"""The rows of the catalogue for the tests: with marks, params and inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnnets import catalogue
from fnnets.comparison import float_trees

CASES = catalogue.cases()
LAYERS = [case for case in CASES if case.layer is not None]
# The newest jax runs every row without a scan, and only a few with one: scans take long to compile.
WITHOUT_SCANS = [
    *catalogue.layer_cases(), *catalogue.activation_cases(), *catalogue.convolution_cases(),
    *catalogue.normalisation_cases(), *catalogue.pooling_cases(), *catalogue.network_cases(), *catalogue.loss_cases(),
]  # fmt: skip
SCANS = {"lstm", "gru, before, old", "lstm, no bias, sqrt memory", "bidirectional, concat", "recursive"}
QUICK = {case.name for case in WITHOUT_SCANS} | SCANS
FEWER = [case for case in LAYERS if case.name in QUICK]  # for properties of code that all rows share
SOME = {case.name for case in FEWER[::4]}  # the rows of FEWER for every day


def rows(cases, quick=(), everyday=None):
    """Parametrizes a test over the rows. All tests of a row run in one process, to share compiled functions."""

    def marks(case):
        kinds = [pytest.mark.quick] if case.name in quick else []
        kinds += [pytest.mark.full] if everyday and case.name not in everyday else []
        return [pytest.mark.xdist_group(case.name), *kinds]

    marked = [pytest.param(case, id=case.name, marks=marks(case)) for case in cases]
    return pytest.mark.parametrize("case", marked)


def at(case, seed=0, dtype=np.float32):
    """Returns params, input and keyword arguments of a row."""
    rng = np.random.default_rng(seed)
    x = case.x(rng)
    params = catalogue.random_params(case.layer, rng, x)
    cast = functools.partial(
        jax.tree.map, lambda leaf: jnp.asarray(leaf, dtype if float_trees.is_float(leaf) else None)
    )
    return cast(params), cast(x), case.mode | {"key": jax.random.key(seed) if case.mode["train"] else None}
