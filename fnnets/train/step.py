"""One step of training: the gradient, the update, the statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from fnnets.core import checks
from fnnets.core.layer import Layer, keep_stats
from fnnets.data.examples import Examples
from fnnets.gradients import value_and_grad_by_hand
from fnnets.train.state import State, draw_key, joined, trained

Gradient = Literal["hand", "autodiff"]
Step = Callable[[State, Examples], tuple[State, jax.Array]]


def make_step(
    net: Layer,
    loss: Any,
    updater: Any,
    *,
    gradient: Gradient = "hand",
    penalty: Any = None,
    clip: Any = None,
) -> Step:
    """Makes a compiled step of training.

    Formula: E = loss(net(params, x), target) + penalty(params), g = ∂E/∂params with ‖g‖ clipped to `clip`,
    params ← params + updater(g). Then the moving statistics are updated from the batch.

    Args:
      net: any network.
      loss: a `Loss`, such as `fn.losses.mse()`.
      updater: an `optax.GradientTransformation`. It also gets `value`, `grad` and `value_fn`, which Newton's method and
        line searches need. It does not get moving statistics.
      gradient: "hand", by the derivations of layers and losses, or "autodiff", by `jax.grad` of the plain equations.
      penalty: a `Penalty`, such as `fn.l2(1e-3)`, or None.
      clip: the largest norm of the gradient of all params together, or None. For other ways of clipping, chain them
        with the updater: `optax.chain(optax.clip(0.1), updater)`.

    Returns:
      `step(state, batch) -> (state, value)`, for a state from `fn.train.start` and a batch of `fn.data.Examples`; value
      () is E before the update. Do not use the state passed in again: its buffers are donated.

    Raises:
      TypeError: net is not a `Layer`, or loss, updater or penalty has the wrong type.
      ValueError: gradient is neither "hand" nor "autodiff", or clip is not above 0.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, updater = fn.dense(1), fn.updaters.sgd(0.1)
      >>> batch = fn.data.Examples(jnp.ones((4, 2)), jnp.zeros((4, 1)))
      >>> step = fn.train.make_step(net, fn.losses.mse(), updater, clip=1.0)
      >>> state = fn.train.start(net, updater, batch.x, jax.random.key(0))
      >>> for _ in range(20):
      ...     state, value = step(state, batch)
      >>> int(state.step), bool(value < 1e-3)
      (20, True)
    """
    check_step("make_step", net, loss, updater, gradient=gradient, penalty=penalty, clip=clip)
    return jax.jit(
        plain_step(net, loss, updater, gradient=gradient, penalty=penalty, clip=clip), donate_argnums=0
    )


def plain_step(net: Layer, loss: Any, updater: Any, *, gradient: str, penalty: Any, clip: Any) -> Step:
    """The step as a pure function, not compiled."""
    by_hand, extended = value_and_grad_by_hand(net, loss), optax.with_extra_args_support(updater)

    def step(state: State, batch: Examples) -> tuple[State, jax.Array]:
        params, learned, key = state.params, trained(state.params), draw_key(state)

        def value_of(learned: Any) -> jax.Array:
            full = joined(learned, params)
            y = net.apply(full, batch.x, key=key, train=True, mask=batch.mask)
            value = loss.apply(y, batch.target, batch.loss_mask)
            return value if penalty is None else value + penalty.apply(full)

        if gradient == "hand":
            (value, aux), grads = by_hand(
                params, batch.x, batch.target,
                key=key, train=True, mask=batch.mask, loss_mask=batch.loss_mask,
            )  # fmt: skip
            grads, saved = trained(grads), aux.saved
            if penalty is not None:
                added, kept = penalty.forward(params)
                value, grads = value + added, jax.tree.map(jnp.add, grads, trained(penalty.backward(kept)))
        else:
            value, grads = jax.value_and_grad(value_of)(learned)
            saved = None
            if net.update_stats is not keep_stats:
                _, _, saved = net.forward(params, batch.x, key=key, train=True, mask=batch.mask)
        if clip is not None:
            grads, _ = optax.clip_by_global_norm(clip).update(grads, optax.EmptyState())
        extra = {"value": value, "grad": grads, "value_fn": value_of}
        updates, memory = extended.update(grads, state.memory, learned, **extra)
        params = joined(optax.apply_updates(learned, updates), params)
        params = net.update_stats(params, saved)
        return state._replace(params=params, memory=memory, step=state.step + 1), value

    return step


def check_step(
    caller: str, net: Any, loss: Any, updater: Any, *, gradient: Any, penalty: Any, clip: Any
) -> None:
    """Refuses arguments of a wrong type, most often a factory that was not called, such as `fn.losses.mse`."""
    checks.layers(caller, (net,), Layer)
    functions = ("apply", "forward", "backward")
    checks.made(caller, "loss", loss, functions, "a loss, such as fn.losses.mse()")
    checks.made(caller, "updater", updater, ("init", "update"), "an updater, such as fn.updaters.adam(1e-3)")
    checks.choice(caller, "gradient", gradient, ("hand", "autodiff"))
    if penalty is not None:
        checks.made(caller, "penalty", penalty, functions, "a penalty, such as fn.l2(1e-3)")
    if clip is not None and not isinstance(clip, jax.Array):
        checks.above_zero(caller, clip=clip)
