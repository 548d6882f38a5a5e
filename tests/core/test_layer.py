"""A layer's Info: its fields, equality and checks."""

import dataclasses

import pytest

import fnnets as fn
from fnnets.core.time_order import has_steps, time_first

A, B = fn.dense(2), fn.tanh()


def test_a_name_is_enough():
    info = fn.Info("mine")
    assert (info.children, info.copies, info.reversed_children, info.recurrence) == ((), None, (), None)
    assert not any((info.unwrapped, info.sequence, info.time_major))


def test_infos_say_what_tools_need():
    assert fn.serial(A, B).info.sequence
    assert not fn.residual(A).info.sequence
    assert (fn.stack(A, 3).info.copies, fn.stack(A, 3).info.unwrapped) == (3, True)
    assert fn.bidirectional(A).info.reversed_children == (1,)
    assert B.info.saturates_at == (-1.0, 1.0)
    assert A.info.saturates_at is fn.relu().info.saturates_at is None
    cell, options = fn.lstm(3, unroll=2).info.recurrence
    assert (type(cell), options.unroll) == (fn.Cell, 2)


def test_infos_compare_and_hash_without_their_settings():
    info = fn.Info("mine", {"weights": [1, 2]}, (A,), copies=2)
    assert info == dataclasses.replace(info, settings={})
    assert hash(info) == hash(dataclasses.replace(info, settings={}))
    assert info != dataclasses.replace(info, copies=3)
    assert hash(fn.serial(fn.gru(2), fn.stack(A, 2))) is not None


def test_a_combinator_may_set_its_own_time_axis():
    inner = fn.serial(A, fn.elman(2, time_major=True))
    transposed = inner._replace(info=fn.Info("transposed", children=(inner,), time_major=False))
    assert time_first(fn.stack(inner, 2))
    assert not time_first(transposed)
    assert has_steps(transposed)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"children": (A, B), "unwrapped": True}, r"Info\('mine'\): unwrapped=True needs one child.*got 2"),
        ({"children": (A,), "copies": 0}, "copies must be a whole number of at least 1, got 0"),
        ({"children": (A,), "reversed_children": (1,)}, r"indices of its children.*from 0 to 0, got \(1,\)"),
        ({"reversed_children": (0,)}, r"must be empty without children, got \(0,\)"),
        ({"saturates_at": (1.0, 1.0)}, r"lower and the upper end of a range, got \(1.0, 1.0\)"),
    ],
)
def test_an_error_names_the_field_that_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        fn.Info("mine", **fields)
