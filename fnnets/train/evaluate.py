"""How good a network is on examples that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fnnets import checks
from fnnets.contract import Layer
from fnnets.data import Examples, batches, take
from fnnets.data.examples import checked, number
from fnnets.losses import Loss
from fnnets.train import rows as r

Metric = Callable[[Any, Any], Any]  # (y, target) -> (…), a number for each example


def accuracy(y: Any, target: Any) -> jax.Array:
    """1 where the largest of the logits (or probabilities) is that of the label, else 0.

    Args:
      y: (…, C) floats.
      target: (…) integer labels, or (…, C) distributions, whose largest entry is the label.

    Returns:
      (…) floats: a metric, whose mean over examples is the share that is right.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.train.accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
      [1.0, 0.0]
    """
    y, target = checks.floats("accuracy", y, "y"), checks.array("accuracy", target, "target")
    if target.shape == y.shape:
        target = target.argmax(-1)
    checks.same_shape("accuracy", "target", target.shape, y.shape[:-1], "one label for each row of y.")
    return (y.argmax(-1) == target).astype(jnp.promote_types(y.dtype, jnp.float32))


def evaluate(
    net: Layer,
    loss: Loss,
    params: Any,
    examples: Any,
    *,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int | None = None,
) -> dict[str, jax.Array]:
    """The loss and the metrics of examples, at inference.

    Args:
      net: any network.
      loss: a `Loss`.
      params: the network's parameters.
      examples: `fn.data.Examples`, or a tuple (x, target).
      metrics: functions `(y, target) -> (…)`, a number for each row of y, by name; such as `fn.train.accuracy`.
      batch_size: how many examples are computed at a time; by default all. The result is then the mean of the
        batches', weighted by what counts in each.

    Returns:
      A dict of scalars: "loss", and the mean of each metric over the rows that the loss's mask leaves.

    Raises:
      TypeError: examples are no such tuple.
      ValueError: the arrays' first axes differ; batch_size is above the number of examples.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.dense(2), jnp.ones((4, 3))
      >>> params = net.init(jax.random.key(0), x)
      >>> loss, target = fn.losses.softmax_cross_entropy(), jnp.array([0, 0, 0, 1])
      >>> found = fn.train.evaluate(net, loss, params, (x, target), metrics={"accuracy": fn.train.accuracy})
      >>> sorted(found), float(found["accuracy"]) in (0.25, 0.75)
      (['accuracy', 'loss'], True)
    """
    examples = checked("evaluate", examples)
    given = tuple((metrics or {}).items())
    if batch_size is None:
        return scores(net, loss, given, params, examples, None)
    plan = batches(None, number(examples), batch_size)

    def one(total: Any, which: Any) -> tuple[Any, None]:
        index, mask = which
        batch = take(examples, index)
        found = scores(net, loss, given, params, batch, mask)
        size = r.weight(r.only(net, params, batch, mask))
        return jax.tree.map(lambda t, s: t + size * s, total, {**found, "": jnp.ones(())}), None

    first = jax.eval_shape(lambda: scores(net, loss, given, params, take(examples, plan.rows[0]), None))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), {**first, "": jnp.zeros(())})
    total, _ = jax.lax.scan(one, zeros, (plan.rows, plan.mask))
    weight = total.pop("")
    return {name: value / weight for name, value in total.items()}


def scores(
    net: Layer,
    loss: Loss,
    metrics: tuple[tuple[str, Metric], ...],
    params: Any,
    examples: Examples,
    rows: Any,
) -> dict[str, jax.Array]:
    """The same for all examples at once, of which only `rows` (B,) count where they are given."""
    examples = r.only(net, params, examples, rows)
    y = net.apply(params, examples.x, mask=examples.mask)
    found = {"loss": loss.apply(y, examples.target, examples.loss_mask)}
    for name, metric in metrics:
        each = metric(y, examples.target)
        checks.same_shape(
            f"evaluate: metric {name}", "its result", each.shape, y.shape[:-1], "a number for each row of y."
        )
        found[name] = each.mean(where=examples.loss_mask)
    return found
