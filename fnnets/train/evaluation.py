"""Evaluates a network: the loss and the metrics of examples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks
from fnnets.core.arrays import float32_or_wider
from fnnets.core.layer import Layer
from fnnets.core.time_order import examples_first
from fnnets.data import batches
from fnnets.data.examples import Examples, checked, number, take
from fnnets.losses.loss import Kept, Loss
from fnnets.train.rows import batch_weight, count_only

Metric = Callable[[Any, Any], Any]  # (y, target) -> (…), a number for each example


def accuracy(y: Any, target: Any) -> jax.Array:
    """1 where the label has the largest logit (or probability), else 0.

    Args:
      y: (…, C) floats.
      target: (…) integer labels, or (…, C) distributions, whose largest entry is the label.

    Returns:
      (…) floats; their mean over examples is the share of correct ones.

    Raises:
      TypeError: y is not floating point.
      ValueError: y has fewer than two columns; target is not one label for each row.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.train.accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
      [1.0, 0.0]
    """
    y, target = checks.floats("accuracy", y, "y"), checks.array("accuracy", target, "target")
    if y.shape[-1:] in ((), (1,)):
        raise ValueError(
            f"accuracy: y must have two classes or more on its last axis, got {checks.shape_text(y.shape)}; for a "
            "single logit, use lambda y, target: ((y > 0) == target)[..., 0] as the metric."
        )
    if target.shape == y.shape:
        target = target.argmax(-1)
    checks.same_shape("accuracy", "target", target.shape, y.shape[:-1], "give one label for each row of y.")
    return (y.argmax(-1) == target).astype(float32_or_wider(y.dtype))


def evaluate(
    net: Layer,
    loss: Loss,
    params: Any,
    examples: Any,
    *,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int | None = None,
) -> dict[str, jax.Array]:
    """Evaluates the loss and the metrics of examples, at inference.

    Args:
      net: any network.
      loss: a `Loss`.
      params: the network's parameters.
      examples: `fn.data.Examples`, or a tuple (x, target).
      metrics: functions `(y, target) -> (…)` by name, such as `fn.train.accuracy`; each gives a number for each row of
        y.
      batch_size: the number of examples computed at a time; by default all. The mean weights each
        batch by what counts in it: rows, and for the loss also class weights.

    Returns:
      A dict of scalars: "loss", and the mean of each metric over the rows that count in the loss's mask.

    Raises:
      TypeError: examples are neither `fn.data.Examples` nor a tuple; metrics are not functions by name.
      ValueError: the arrays' first axes differ; batch_size is above the number of examples; a metric is named "loss".

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.dense(2), jnp.ones((4, 3))
      >>> params = net.init(jax.random.key(0), x)
      >>> loss, target = fn.losses.softmax_cross_entropy(), jnp.array([0, 0, 0, 1])
      >>> scores = fn.train.evaluate(net, loss, params, (x, target), metrics={"accuracy": fn.train.accuracy})
      >>> sorted(scores), float(scores["accuracy"]) in (0.25, 0.75)
      (['accuracy', 'loss'], True)
    """
    examples = checked("evaluate", examples)
    named = named_metrics("evaluate", metrics)
    if batch_size is None:
        return scores(net, loss, named, params, examples, None)
    checks.positive("evaluate", batch_size=batch_size)
    examples_first("evaluate", net)
    return _in_batches(net, loss, named, batch_size)(params, examples)


def named_metrics(caller: str, metrics: Any) -> tuple[tuple[str, Metric], ...]:
    """Metrics with their names; refuses values that are not functions, and the name "loss"."""
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise TypeError(
            f'{caller}: metrics must be functions by name, such as {{"accuracy": fn.train.accuracy}}, got {metrics!r}.'
        )
    if "loss" in metrics:
        raise ValueError(
            f'{caller}: metrics must have other names than "loss", which names the loss itself; rename it.'
        )
    return tuple(metrics.items())


@functools.lru_cache(maxsize=16)
def _in_batches(
    net: Layer, loss: Loss, metrics: tuple[tuple[str, Metric], ...], size: int
) -> Callable[[Any, Examples], dict[str, jax.Array]]:
    """The mean of all batches' scores, compiled; the next call with the same functions reuses the program."""

    def of_batch(params: Any, examples: Examples, index: Any, rows: Any) -> dict[str, tuple[Any, Any]]:
        batch = count_only(net, params, take(examples, index), rows)
        y = net.apply(params, batch.x, mask=batch.mask)
        weights = dict.fromkeys((name for name, _ in metrics), batch_weight(batch))
        _, kept = loss.forward(y, batch.target, batch.loss_mask)
        counted = isinstance(kept, Kept) and kept.mean.value
        weights["loss"] = kept.divisor if counted else batch_weight(batch)
        means = _measured(loss, metrics, y, batch)
        # A batch in which nothing counts has a metric of NaN.
        return {
            name: (jnp.where(weights[name] > 0, weights[name] * means[name], 0), weights[name])
            for name in means
        }

    def of_all(params: Any, examples: Examples) -> dict[str, jax.Array]:
        plan = batches(None, number(examples), size)

        def one(total: Any, which: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_batch(params, examples, *which)), None

        sums = jax.eval_shape(lambda: of_batch(params, examples, plan.rows[0], None))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums)
        total, _ = jax.lax.scan(one, zeros, (plan.rows, plan.mask))
        return {name: value / weight for name, (value, weight) in total.items()}

    return jax.jit(of_all)


def scores(
    net: Layer,
    loss: Loss,
    metrics: tuple[tuple[str, Metric], ...],
    params: Any,
    examples: Examples,
    rows: Any,
) -> dict[str, jax.Array]:
    """The loss and the metrics of all examples at once; if rows (B,) is not None, only these rows count."""
    examples = count_only(net, params, examples, rows)
    return _measured(loss, metrics, net.apply(params, examples.x, mask=examples.mask), examples)


def _measured(
    loss: Loss, metrics: tuple[tuple[str, Metric], ...], y: Any, examples: Examples
) -> dict[str, jax.Array]:
    """The loss and the metrics of outputs y."""
    measured = {"loss": loss.apply(y, examples.target, examples.loss_mask)}
    for name, metric in metrics:
        each = jnp.asarray(metric(y, examples.target))
        checks.same_shape(
            f"evaluate: metric {name}",
            "its result",
            each.shape,
            y.shape[:-1],
            "return one number for each row of y.",
        )
        measured[name] = each.mean(where=examples.loss_mask)
    return measured
