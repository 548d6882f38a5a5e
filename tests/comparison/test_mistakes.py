"""Planted mistakes: all are flagged, and nearly all are named.

The everyday run takes some of the rows; `--full` takes all.
"""

import jax
import mistakes

from fnnets import catalogue

CASES = catalogue.cases()
KINDS = 12

# Rows with a scan are slow: an everyday run takes one of each kind, and every fourth of the other rows.
SCANS = [*catalogue.recurrent_cases(), *catalogue.sequence_cases(), *catalogue.tree_cases()]
EVERYDAY = {
    "lstm",
    "gru, before, old",
    "jordan",
    "last",
    "bidirectional, concat",
    "recursive",
    "tree_lstm, binary, masked",
}
OTHERS = [case for case in CASES if case.name not in {scan.name for scan in SCANS}]
CHOSEN = {case.name for case in OTHERS[::4]} | EVERYDAY


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        chosen = [case for case in CASES if full or case.name in CHOSEN]
        metafunc.parametrize("case", chosen, ids=lambda case: case.name)


def test_every_mistake_is_flagged_and_named(case):
    found = list(mistakes.verdicts(case))
    missed = [f"{planted.mistake} in {planted.place}" for planted, verdict in found if not verdict.flagged]
    assert not missed
    unnamed = [
        f"{planted.mistake} in {planted.place}: {verdict.says}"
        for planted, verdict in found
        if not verdict.named
    ]
    assert len(unnamed) <= 0.1 * len(found), "\n".join(unnamed)


def test_at_least_twelve_kinds_are_planted():
    with jax.enable_x64(True):
        cases = [case for case in CASES if case.name in ("dense, over time", "gelu", "dense, square")]
        kinds = {planted.mistake for case in cases for planted in mistakes.planted(case, case.problem(0))}
    assert len(kinds) >= KINDS


def test_a_change_that_does_not_alter_the_gradient_is_not_planted():
    with jax.enable_x64(True):
        (case,) = [case for case in CASES if case.name == "dropout, everything"]
        found = {planted.mistake for planted in mistakes.planted(case, case.problem(0))}
    assert found == {"transpose"}, "only the shape of a gradient of 0 can be wrong"


def test_the_mistakes_of_bptt_are_all_named():
    (case,) = [case for case in CASES if case.name == "lstm"]
    found = list(mistakes.verdicts(case))
    assert all(verdict.flagged and verdict.named for _, verdict in found)
    said = {planted.mistake: verdict for planted, verdict in found}
    for mistake, says in (
        ("forget-gate block zero", "params.u: the block of f is zero"),
        ("recurrent weight zero", "params.u: is zero"),
        ("recurrent weight × 0.9", "params.u: has a constant factor of 0.9"),
        ("last step collected", "only the last step of scan counts: the sum over its steps is missing"),
        (
            "state one step late",
            "params.u: one step late: scan pairs each step's gradient with the state after it",
        ),
        ("last time step only", "only the last one of time counts"),
    ):
        assert says in said[mistake].says
