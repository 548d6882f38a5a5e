"""All cells × depths and directions × lengths × masks × carries: by hand against autodiff and differences.

By default, one in `SHARE` of the combinations runs; `pytest tests/rnn/test_recurrent_product.py --full` runs all.
"""

import itertools

import jax
import numpy as np

import fnnets as fn
from fnnets.catalogue.case import layer_case, normal
from fnnets.comparison.measurement import measure
from fnnets.comparison.verdict import judge

SHARE = 67

CELLS = {
    "elman": fn.elman,
    "elman relu": lambda n, **o: fn.elman(n, fn.relu(), **o),
    "elman sigmoid": lambda n, **o: fn.elman(n, fn.sigmoid(), **o),
    "jordan": lambda n, **o: fn.jordan(3, n, **o),
    **{
        "lstm" + " peephole" * peephole + " coupled" * coupled: (
            lambda n, peephole=peephole, coupled=coupled, **o: fn.lstm(n, peephole=peephole, coupled=coupled, **o)
        )
        for peephole in (False, True)
        for coupled in (False, True)
    },
    **{
        f"gru {reset} {update}": (
            lambda n, reset=reset, update=update, **o: fn.gru(n, reset=reset, update=update, **o)
        )
        for reset in ("before", "after")
        for update in ("new", "old")
    },
}  # fmt: skip

SHAPES = {
    "one": lambda cell: cell(2),
    "three": lambda cell: fn.serial(cell(2), cell(3), cell(2)),
    "each direction deep": lambda cell: fn.bidirectional(fn.serial(cell(2), cell(2))),
    "every layer both ways": lambda cell: fn.serial(fn.bidirectional(cell(2)), fn.bidirectional(cell(2))),
}
CARRIES = ("zero", "given")  # given: random, and its gradient is compared


def masks(steps):
    """A batch with one row of each kind: all valid, padded right, padded left, a gap, all masked."""
    mask = np.ones((5, steps), bool)
    mask[1, (steps + 1) // 2 :], mask[2, : steps // 2], mask[4] = False, False, False
    mask[3, 1 : 1 + steps // 3] = False
    return mask.tolist()


PRODUCT = [
    (cell, shape, steps, masked, carry)
    for cell, shape, steps, masked, carry in itertools.product(
        CELLS, SHAPES, (1, 2, 17), (False, True), CARRIES
    )
    if carry == "zero" or shape in ("one", "three")
]


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    chosen = PRODUCT if metafunc.config.getoption("--full") else PRODUCT[::SHARE]
    metafunc.parametrize("case", chosen, ids=lambda case: ", ".join(map(str, case)))


def test_by_hand_equals_autodiff_and_differences(case):
    cell, shape, steps, masked, carry = case
    row = layer_case(
        str(case), SHAPES[shape](CELLS[cell]), normal(5, steps, 2),
        mask=masks(steps) if masked else None, carried=carry == "given",
    )  # fmt: skip
    with jax.enable_x64(True):
        for seed in range(2):
            problem = row.problem(seed)
            report = judge(problem, measure(problem))
            assert report.ok, str(report)
            assert report.worst_autodiff <= 1e-11
            assert report.worst_difference <= 1e-7


def test_the_product_has_all_combinations():
    assert len(PRODUCT) == len(CELLS) * (2 * 3 * 2 * 2 + 2 * 3 * 2)
