"""Losses: compared with PyTorch and autodiff; masks and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import (
    CLASSES,
    IGNORED,
    MASK,
    REFERENCES,
    SHAPE,
    SUMS,
    WEIGHTS,
    both_ways,
    classified,
    close,
    distributions,
    every_case,
    labels,
    numbers,
    one_of_each,
    other_numbers,
    shares,
    signs,
    soft_targets,
)

import fnnets as fn

# PyTorch's numbers


@pytest.mark.parametrize("case", REFERENCES, ids=lambda case: f"{case['loss']}-{list(case['options'])}")
def test_value_and_gradient_equal_pytorchs(case):
    with jax.enable_x64(True):
        loss = getattr(fn.losses, case["loss"])(**case["options"])
        got = both_ways(loss, np.array(case["y"]), np.array(case["target"]))
    close(got.applied, case["value"])
    close(got.value, case["value"])
    close(got.dy, case["dy"])


# Properties of every loss


@every_case
def test_backward_is_the_gradient_of_apply(case):
    with jax.enable_x64(True):
        got = both_ways(case.build(), case.y, case.target, MASK, 1.7)
    close(got.value, got.applied)
    close(got.dy, 1.7 * got.autodiff)
    assert np.abs(got.dy).max() > 1e-3


@one_of_each
def test_masked_places_are_left_out_whatever_they_hold(case):
    loss = case.build()
    y, target = case.y.copy(), case.target.copy()
    y[~MASK] = np.nan
    target[~MASK] = 99 if target.dtype.kind in "ib" else np.nan
    with jax.enable_x64(True):
        masked = both_ways(loss, y, target, MASK)
        short = both_ways(loss, case.y[MASK], case.target[MASK])
    close(masked.value, short.value)
    for dy in (masked.dy, masked.autodiff):
        close(dy[MASK], short.dy)
        assert not np.asarray(dy)[~MASK].any()


@classified
def test_masked_distributions_add_nothing_to_the_sum_of_weights(name):
    loss = getattr(fn.losses, name)(weights=WEIGHTS)
    target = np.where(MASK[..., None], soft_targets, np.nan)
    with jax.enable_x64(True):
        masked = loss.apply(distributions, target, MASK)
        close(masked, loss.apply(distributions[MASK], soft_targets[MASK]))


@every_case
def test_apply_is_the_reduced_per_example(case):
    ignored = case.options.get("ignore_label")
    counts = np.ones(SHAPE) if ignored is None else case.target != ignored
    divisor = 1 if case.loss in SUMS else counts.sum()
    if "weights" in case.options and not case.loss.startswith(("binary", "sigmoid")):
        hot = np.eye(CLASSES)[case.target] if case.target.shape == SHAPE else case.target
        divisor = (counts * (hot @ WEIGHTS)).sum()
    with jax.enable_x64(True):
        loss = case.build()
        each = loss.per_example(case.y, case.target)
        assert each.shape == SHAPE
        close(each.sum() / divisor, loss.apply(case.y, case.target))
        assert not np.asarray(each)[counts == 0].any()


@one_of_each
def test_under_jit_and_vmap_the_numbers_are_the_same(case):
    loss = case.build()

    def by_hand(y, target, mask):
        value, saved = loss.forward(y, target, mask)
        return value, loss.backward(saved), loss.per_example(y, target)

    with jax.enable_x64(True):
        batches = case.y, case.target, MASK
        one_by_one = [by_hand(*batch) for batch in zip(*batches, strict=True)]
        for got, *expected in zip(jax.jit(jax.vmap(by_hand))(*batches), *one_by_one, strict=True):
            close(got, expected)


@pytest.mark.parametrize("name", ["mse", "sigmoid_cross_entropy", "nll"])
@pytest.mark.parametrize("batch", [(), (0, 3)])
def test_one_example_without_batch_axes_and_a_batch_without_examples(name, batch):
    loss, y = getattr(fn.losses, name)(), np.full((*batch, 2), 0.5)
    got = both_ways(loss, y, np.ones(batch if name == "nll" else y.shape, int), np.ones(batch, bool))
    assert got.value == got.applied
    assert (got.value == 0) == (y.size == 0)
    assert got.dy.shape == y.shape
    assert got.dy.tolist() == got.autodiff.tolist()


@one_of_each
def test_value_and_gradient_are_zero_if_no_example_counts(case):
    with jax.enable_x64(True):
        got = both_ways(case.build(), case.y, case.target, np.zeros(SHAPE, bool))
    assert got.value == got.applied == 0
    assert not got.dy.any()
    assert not got.autodiff.any()


@one_of_each
def test_backward_is_linear_in_dvalue(case):
    with jax.enable_x64(True):
        loss = case.build()
        _, saved = loss.forward(case.y, case.target, MASK)
        close(jax.jit(loss.backward)(saved, -3.0), -3 * loss.backward(saved))


@one_of_each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_are_at_least_float32_and_gradients_keep_the_dtype(case, dtype):
    wide = "float64" if dtype == "float64" else "float32"
    numpy_scalars = {
        key: np.float64(option) for key, option in case.options.items() if isinstance(option, float)
    }
    loss = case._replace(options=case.options | numpy_scalars).build()

    def everything(y):
        value, saved = loss.forward(y, case.target, MASK)
        each = loss.per_example(y, case.target)
        return value, loss.apply(y, case.target), each, loss.backward(saved, np.float64(2))

    with jax.enable_x64(True):
        shapes = jax.eval_shape(everything, jax.ShapeDtypeStruct(case.y.shape, dtype))
    assert [shape.dtype for shape in shapes] == [wide, wide, wide, dtype]


# Classes as targets


@pytest.mark.parametrize(
    ("name", "y"),
    [("cross_entropy", jax.nn.softmax), ("nll", jax.nn.log_softmax)],
    ids=["cross_entropy", "nll"],
)
def test_the_three_cross_entropies_agree(name, y):
    options = {"weights": WEIGHTS, "label_smoothing": 0.1, "ignore_label": IGNORED}
    with jax.enable_x64(True):
        expected = fn.losses.softmax_cross_entropy(**options).apply(numbers, labels, MASK)
        close(getattr(fn.losses, name)(**options).apply(y(numbers), labels, MASK), expected)


@classified
def test_labels_and_one_hot_targets_agree(name):
    with jax.enable_x64(True):
        loss = getattr(fn.losses, name)(weights=WEIGHTS, label_smoothing=0.1)
        from_labels = both_ways(loss, distributions, labels)
        one_hot = both_ways(loss, distributions, np.eye(CLASSES)[labels])
    for got, expected in zip(one_hot, from_labels, strict=True):
        close(got, expected)


def test_cross_entropy_is_entropy_plus_divergence():
    with jax.enable_x64(True):
        entropy = -(soft_targets * np.log(soft_targets)).sum(-1)
        divergence = fn.losses.kl_divergence().per_example(np.log(distributions), soft_targets)
        close(fn.losses.cross_entropy().per_example(distributions, soft_targets), entropy + divergence)


def test_binary_weights_are_relative_and_smoothing_moves_targets_towards_a_half():
    with jax.enable_x64(True):
        weighted = fn.losses.sigmoid_cross_entropy(weights=WEIGHTS).apply(numbers, shares)
        tenfold = fn.losses.sigmoid_cross_entropy(weights=[10 * w for w in WEIGHTS]).apply(numbers, shares)
        smoothed = fn.losses.sigmoid_cross_entropy(label_smoothing=0.2).apply(numbers, signs > 0)
        close(tenfold, weighted)
        close(smoothed, fn.losses.sigmoid_cross_entropy().apply(numbers, np.where(signs > 0, 0.9, 0.1)))


@classified
def test_a_label_out_of_range_gives_nan(name):
    loss, wrong, target = getattr(fn.losses, name)(), np.zeros(SHAPE, bool), labels.copy()
    target[0], wrong[0] = (CLASSES, -1, 2**30), True
    with jax.enable_x64(True):
        got = both_ways(loss, distributions, target)
        each = loss.per_example(distributions, target)
    assert np.isnan([got.value, got.applied]).all()
    for values in (got.dy.sum(-1), got.autodiff.sum(-1), each):
        assert np.isnan(values).tolist() == wrong.tolist()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int32", "uint32"])
def test_labels_of_every_integer_type(dtype):
    z = jnp.zeros((2, 300)).at[:, 100].set(50.0)
    loss = fn.losses.softmax_cross_entropy(ignore_label=-100)
    assert loss.per_example(z, jnp.array([100, 7], dtype)).tolist() == [0.0, 50.0]


def test_weights_may_be_traced():
    def value(weights):
        return fn.losses.softmax_cross_entropy(weights=weights).apply(jnp.asarray(numbers), labels)

    close(jax.jit(value)(jnp.array(WEIGHTS)), value(WEIGHTS), rtol=1e-6)


def test_value_and_gradient_are_zero_if_all_weights_are_zero():
    loss = fn.losses.softmax_cross_entropy(weights=(1.0, 0.0, 1.0, 1.0, 1.0), label_smoothing=0.1)
    with jax.enable_x64(True):
        got = both_ways(loss, numbers, np.ones(SHAPE, int))
    assert got.value == got.applied == 0
    assert not got.dy.any()
    assert not got.autodiff.any()


def test_a_network_with_a_loss_is_differentiated_without_autodiff():
    with jax.enable_x64(True):
        net, loss = fn.serial(fn.dense(CLASSES), fn.sigmoid()), fn.losses.binary_cross_entropy()
        x, target, mask = numbers[:, 0], shares[:, 0], MASK[:, 0]
        params = (fn.Dense(w=other_numbers[0, 0] * numbers[1, 0][:, None], b=numbers[2, 0]), ())

        @jax.jit
        def both(params):
            by_hand = fn.value_and_grad_by_hand(net, loss)
            (value, _), grads = by_hand(params, x, target, loss_mask=mask)
            return (value, grads), jax.value_and_grad(lambda p: loss.apply(net.apply(p, x), target, mask))(
                params
            )

        for got, expected in zip(*map(jax.tree.leaves, both(params)), strict=True):
            close(got, expected)
