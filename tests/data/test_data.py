"""Splits partition the rows, scalers ignore test rows, and an epoch reads each row once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fnnets as fn

KEY = jax.random.key(0)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=5, deadline=None, derandomize=True)
SIZES = st.sampled_from([5, 8, 13])  # a size compiles once


def labels_of(seed, *counts):
    """Labels with these numbers of each class, in random order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@functools.cache
def jitted(function, *static, **settings):
    """The function of a key, and of labels by name, compiled once for all seeds."""
    return jax.jit(lambda key, **arrays: function(key, *static, **settings, **arrays))


# ---------------------------------------------------------------- splits


@few
@given(SEEDS, SIZES, st.sampled_from([2, 3, 5]))
def test_folds_partition_the_rows(seed, n, k):
    folds = list(jitted(fn.data.kfold, n, k)(jax.random.key(seed)).each())
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(n))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(n)), "no row is in both parts"
        assert len(test) in (n // k, -(-n // k))


@few
@given(SEEDS)
def test_stratified_folds_share_each_class_equally(seed):
    labels = labels_of(seed, 7, 3, 4)
    folds = list(jitted(fn.data.kfold, 14, 3)(jax.random.key(seed), labels=labels).each())
    counts = np.array([np.bincount(labels[test], minlength=3) for _, test in folds])
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(14))
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(1)) <= 1


@few
@given(SEEDS, SIZES, st.sampled_from([0.01, 0.3, 0.99]))
def test_holdout_partitions_the_rows(seed, n, share):
    train, test, *masks = jitted(fn.data.holdout, n, share)(jax.random.key(seed))
    assert masks == [None, None]
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    assert len(test) == min(max(round(share * n), 1), n - 1)


@few
@given(SEEDS, st.sampled_from([0.2, 0.3, 0.5]))
def test_stratified_holdout_takes_the_same_share_of_each_class(seed, share):
    labels = labels_of(seed, 23, 2, 15)
    train, test, *_ = jitted(fn.data.holdout, 40, share)(jax.random.key(seed), labels=labels)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(40))
    assert len(test) == round(share * 40)
    counts, held = np.bincount(labels), np.bincount(labels[test], minlength=3)
    assert (np.abs(held - counts * len(test) / 40) < 1).all()


@few
@given(SEEDS)
def test_rows_out_of_the_bag_were_not_drawn(seed):
    labels = labels_of(seed, 7, 1, 5)
    for stratified in ({}, {"labels": labels}):
        ((train, test),) = jitted(fn.data.bootstrap, 13)(jax.random.key(seed), **stratified).each()
        assert len(train) == 13
        assert sorted({*train.tolist()} | {*test.tolist()}) == list(range(13))
        assert not {*train.tolist()} & {*test.tolist()}
    assert np.array_equal(np.bincount(labels[train]), np.bincount(labels)), "stratified"


def test_the_share_out_of_the_bag_is_one_over_e():
    keys = jax.random.split(KEY, 200)
    share = jax.vmap(lambda key: fn.data.bootstrap(key, 500).test_mask.mean())(keys)
    # The share of one sample has variance (1/e)(1 − 2/e)/n, about; the mean over 200 samples has σ = 0.0010.
    np.testing.assert_allclose(share.mean(), (1 - 1 / 500) ** 500, atol=0.003)
    np.testing.assert_allclose((1 - 1 / 500) ** 500, np.exp(-1), atol=0.001)


@pytest.mark.parametrize("split", [fn.data.holdout, fn.data.kfold, fn.data.bootstrap])
def test_splits_depend_on_the_key(split):
    first, again, other = (jitted(split, 13)(jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


# ---------------------------------------------------------------- scaling

SCALERS = pytest.mark.parametrize(
    "scaler", [fn.data.standardise(), fn.data.min_max(-1, 2)], ids=["z", "min-max"]
)


@SCALERS
@few
@given(seed=SEEDS)
def test_a_scaler_ignores_masked_rows(scaler, seed):
    rng = np.random.default_rng(seed)
    x, mask = rng.standard_normal((9, 2)).astype(np.float32), rng.permutation(9) < 5
    fitted = jitted(scaler.fit)(x, mask=mask)
    changed = jitted(scaler.fit)(np.where(mask[:, None], x, rng.choice([np.nan, np.inf, 1e9])), mask=mask)
    np.testing.assert_array_equal(fitted, changed)
    np.testing.assert_allclose(fitted, jitted(scaler.fit)(x[mask]), rtol=1e-5, atol=1e-6)


@SCALERS
def test_invert_undoes_apply(scaler, x64):
    x = 3 + np.random.default_rng(0).standard_normal((4, 5, 3)) * [1, 10, 1e-3]
    scale = scaler.fit(x)
    z = np.asarray(scaler.apply(scale, x)).reshape(-1, 3)
    np.testing.assert_allclose(scaler.invert(scale, z), x.reshape(-1, 3), rtol=1e-12)
    if scale.shift[0] == x.min((0, 1))[0]:
        np.testing.assert_allclose([z.min(0), z.max(0)], [[-1] * 3, [2] * 3], rtol=1e-12)
    else:
        np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(z.std(0, ddof=1), 1, rtol=1e-12)


@SCALERS
def test_constant_features_and_single_rows_stay_finite(scaler):
    constant = 0.0 if "standardise" in scaler.fit.__qualname__ else -1.0
    x = np.full((7, 2), 0.1, np.float32)  # its mean in float32 is not 0.1
    x[:, 1] = np.arange(7)
    for rows in (x, x[:1]):
        scale = scaler.fit(rows)
        z = scaler.apply(scale, rows)
        assert (z[:, 0] == constant).all()
        np.testing.assert_allclose(scaler.invert(scale, z), rows, rtol=1e-6, atol=1e-6)
    assert np.isfinite(scaler.apply(scaler.fit(x, np.zeros(7, bool)), x)).all()
    pixels = np.array([[0, 255], [255, 0]], np.uint8)
    assert scaler.apply(scaler.fit(pixels), pixels).dtype == jnp.float32


# ---------------------------------------------------------------- balance


@few
@given(SEEDS)
def test_balanced_classes(seed):
    key, labels, counts = jax.random.key(seed), labels_of(seed, 6, 2, 4), np.array([6, 2, 4])
    more, fewer = fn.data.oversample(key, labels), fn.data.undersample(key, labels)
    assert np.bincount(labels[more]).tolist() == [counts.max()] * 3
    assert set(more.tolist()) == set(range(12)), "every row is kept"
    assert np.bincount(labels[fewer]).tolist() == [counts.min()] * 3
    assert len(set(fewer.tolist())) == len(fewer), "no row comes twice"


def test_balanced_under_jit():
    labels = jnp.array([0, 1, 1, 1, 0, 2, 2])
    for balance in (fn.data.oversample, fn.data.undersample):
        size = 3 if balance is fn.data.oversample else 2
        found = jitted(balance, classes=3, size=size)(KEY, labels=labels)
        assert np.array_equal(found, balance(KEY, labels))
        with pytest.raises(ValueError, match="under jit, classes and size"):
            jitted(balance)(KEY, labels=labels)


# ---------------------------------------------------------------- batches


@few
@given(SEEDS, SIZES, st.sampled_from([1, 4, 5]), st.sampled_from(["pad", "keep", "drop"]))
def test_an_epoch_reads_each_row_once(seed, n, size, remainder):
    plan = jitted(fn.data.batches, n, size, remainder=remainder)(jax.random.key(seed))
    mask = np.ones(plan.rows.shape, bool) if plan.mask is None else np.asarray(plan.mask)
    rows = [*np.asarray(plan.rows)[mask], *([] if plan.rest is None else np.asarray(plan.rest))]
    assert len(rows) == len(set(rows)), "no row twice"
    assert len(rows) == (n // size * size if remainder == "drop" else n)
    assert set(rows) <= set(range(n))
    assert (plan.mask is None) == (n % size == 0 or remainder != "pad")
    assert (plan.rest is None) == (n % size == 0 or remainder != "keep")


@few
@given(SEEDS, SIZES, st.booleans(), st.sampled_from(["pad", "drop"]))
def test_padding_changes_no_batch(seed, n, replace, remainder):
    """n rows give the same batches with padding as without. So folds of different sizes fit one program."""
    key, size = jax.random.key(seed), 4
    options = {"replace": replace, "remainder": remainder}
    plain = jitted(fn.data.batches, n, size, **options)(key)
    padded = jitted(fn.data.batches, 14, size, **options)(key, count=n)
    steps = len(plain.rows)
    mask = np.ones(plain.rows.shape, bool) if plain.mask is None else np.asarray(plain.mask)
    assert np.array_equal(padded.mask[:steps], mask)
    assert not padded.mask[steps:].any()
    assert np.array_equal(padded.rows[:steps][mask], plain.rows[mask])


def test_batches_by_bootstrap_and_in_order():
    plan = fn.data.batches(KEY, 600, 100, replace=True)
    assert plan.rows.shape == (6, 100)
    assert 0.3 < 1 - len(np.unique(plan.rows)) / 600 < 0.44
    assert fn.data.batches(None, 4, 2).rows.tolist() == [[0, 1], [2, 3]]


def test_orders_are_uniform():
    orders = jax.vmap(lambda key: fn.data.batches(key, 3, 3).rows[0])(jax.random.split(KEY, 3000))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


# ---------------------------------------------------------------- windows, characters


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_windows(kind):
    series = kind(np.arange(10.0).reshape(5, 2))
    found = fn.data.windows(series, 2, stride=2)
    assert type(found) is type(series) or isinstance(found, jax.Array)
    assert found.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert fn.data.windows(series, 5).shape == (1, 5, 2)
    assert np.array_equal(jitted(fn.data.windows, 3)(series), fn.data.windows(series, 3))


@few
@given(st.text(max_size=30), st.text(max_size=30))
def test_decode_undoes_encode(learned, text):
    known = fn.data.vocabulary(learned)
    assert known.decode(known.encode(text)) == "".join(c if c in learned else "\ufffd" for c in text)
    assert len(known) == len(set(known.symbols))


def test_rare_characters_are_unknown():
    known = fn.data.vocabulary("aaabbc", least=2, largest=1)
    assert known.symbols == "\ufffda"
    assert known.encode("abca").tolist() == [1, 0, 0, 1]


# ---------------------------------------------------------------- mistakes

LABELS = jnp.array([0, 0, 0, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.data.kfold(KEY, 5, 6), "k must be at least 2 and at most n = 5, got 6"),
        (lambda: fn.data.kfold(KEY, 5, 1), "k must be at least 2"),
        (lambda: fn.data.kfold(KEY, 4, 2, labels=LABELS), "at least 2 rows, got 1 of class 2; k=2 folds"),
        (lambda: fn.data.kfold(KEY, 5, 2, labels=LABELS), r"labels must have shape \(5,\)"),
        (lambda: fn.data.holdout(KEY, 1), "n must be at least 2"),
        (lambda: fn.data.holdout(KEY, 5, 1.0), "share must lie between 0 and 1"),
        (lambda: fn.data.holdout(KEY, 4, labels=LABELS), "at least 2 rows, got 1 of class 2"),
        (lambda: fn.data.bootstrap(KEY, 0), "n must be a whole number of at least 1"),
        (lambda: fn.data.bootstrap(KEY, 4, labels=LABELS * 0.5), "labels must hold integers"),
        (lambda: fn.data.oversample(KEY, LABELS), "every class must have a row, got none of class 1"),
        (lambda: fn.data.undersample(KEY, LABELS), "every class must have a row, got none of class 1"),
        (lambda: fn.data.oversample(KEY, LABELS, classes=2), "labels must be 0 … 1, got 0 … 2"),
        (lambda: fn.data.oversample(KEY, LABELS[:3], size=2), "size must be at least 3"),
        (lambda: fn.data.undersample(KEY, LABELS[:3], size=4), "size must be at most 3"),
        (lambda: fn.data.batches(KEY, 4, 5), "size must be at most the number of rows, 4, got 5"),
        (lambda: fn.data.batches(KEY, 4, 2, remainder="cut"), "remainder must be one of"),
        (lambda: fn.data.batches(KEY, 4, 2, remainder="keep", count=3), 'must be "pad" or "drop"'),
        (lambda: fn.data.batches(None, 4, 2, replace=True), "replace=True needs a key"),
        (lambda: fn.data.windows(np.arange(3), 4), "length must be at most that of the series, 3, got 4"),
        (lambda: fn.data.windows([1, 2], 1), "series must be an array, got list"),
        (lambda: fn.data.min_max(1, 1), "low must be below high"),
        (lambda: fn.data.standardise().fit(np.ones((3, 2)), np.ones(2, bool)), r"mask must have shape \(3,\)"),
        (
            lambda: fn.data.standardise().apply(fn.data.Scale(jnp.zeros(2), jnp.ones(2)), np.ones((3, 4))),
            r"x must have shape \(…, 2\), got \(3, 4\)",
        ),
        (lambda: fn.data.vocabulary("a", least=0), "least must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_errors_name_the_mistake(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
