"""The state of a training: everything that the next step needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.layer import Layer
from fnnets.core.parameters import trainable
from fnnets.saving import leaves

# The numbers folded into the training's key: 0 for the params, 4·e + 1 for the batches of epoch e, 4·i + 2 for the
# draws of step i, 3 for a bootstrap of the data.
INIT, ORDER, DRAWS, SAMPLE, KINDS = 0, 1, 2, 3, 4


class State(NamedTuple):
    """The state of a training. The same state and data give the same next steps.

    Attributes:
      params: the network's params, moving statistics included.
      memory: the updater's state, without moving statistics.
      key: the key of the whole training. fold_in(key, 4·e + 1) shuffles epoch e; fold_in(key, 4·i + 2) is the key of
        step i, for dropout.
      step: () int32, the number of steps taken.
      epoch: () int32, the number of epochs completed.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> state = fn.train.start(fn.dense(1), optax.sgd(0.1), jnp.ones((4, 2)), jax.random.key(0))
      >>> state.params.w.shape, int(state.step)
      ((2, 1), 0)
    """

    params: Any
    memory: Any
    key: Any
    step: jax.Array
    epoch: jax.Array


def start(net: Layer, updater: Any, x: Any, key: Any, params: Any = None) -> State:
    """Makes the state before the first step.

    Args:
      net: any network.
      updater: an `optax.GradientTransformation`, such as `fn.updaters.adam(1e-3)`.
      x: a batch of inputs, arrays or shapes; only shapes and dtypes matter.
      key: the key of the whole training.
      params: the first params; by default `net.init(fold_in(key, 0), x)`.

    Returns:
      A `State` at step 0.

    Raises:
      ValueError: key is None; what the network's `init` raises.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> net = fn.serial(fn.dense(3), fn.batch_norm())
      >>> state = fn.train.start(net, optax.adam(1e-3), jnp.ones((4, 2)), jax.random.key(0))
      >>> state.params[1].stats.mean.shape, state.memory[0].mu[1].stats.mean is None
      ((3,), True)
    """
    checks.key("start", key)
    return jax.tree.map(jnp.copy, _first(net.init, updater.init)(key, _one(x), params))


def start_or_continue(caller: str, net: Layer, updater: Any, x: Any, key: Any, state: State | None) -> State:
    """The state before the first step, or a copy of the state to continue from: training donates its buffers."""
    if (key is None) == (state is None):
        raise ValueError(f"{caller}: give either a key, to start with, or a state, to continue from.")
    if state is None:
        return start(net, updater, x, key)
    if not isinstance(state, State):
        raise TypeError(
            f"{caller}: state must be a State, from fn.train.start or a fit's fitted.state, got {type(state).__name__}."
        )
    _check_memory(caller, updater, state)
    return jax.tree.map(jnp.copy, state)


def _check_memory(caller: str, updater: Any, state: State) -> None:
    """Refuses a state that another updater made."""
    wanted = leaves.named(caller, jax.eval_shape(lambda: updater.init(trained(state.params))), "memory")
    kinds = [
        {name: leaves.kind(leaf) for name, leaf in named.items()}
        for named in (leaves.named(caller, state.memory, "memory"), wanted)
    ]
    if lines := leaves.differences(*kinds):
        raise ValueError(
            f"{caller}: the state must come from this updater, got one of another:\n  "
            + "\n  ".join(lines)
            + "\nGive the updater that made it, or start again from its params: "
            "fn.train.start(net, updater, x, key, params)."
        )


def start_models(net: Layer, updater: Any, x: Any, key: Any, models: int) -> State:
    """The first states from the keys fold_in(key, i), stacked."""
    # A small program called for each model compiles faster than their vmap.
    first, impl = _numbered(net.init, updater.init), jax.random.key_impl(key)
    states = jax.device_get([first(key, np.uint32(i), _one(x)) for i in range(models)])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    return stacked._replace(key=jax.random.wrap_key_data(stacked.key, impl=impl))


def _one(x: Any) -> Any:
    """A batch of one example, of zeros."""
    return jax.tree.map(lambda leaf: np.zeros((1, *leaf.shape[1:]), leaf.dtype), x)


@functools.lru_cache(maxsize=16)
def _first(init: Callable[..., Any], init_memory: Callable[[Any], Any]) -> Callable[..., State]:
    """The first state, compiled. Its types are strong: with a weak type, the second step would compile again."""

    def first(key: Any, x: Any, params: Any) -> Any:
        if params is None:
            params = init(jax.random.fold_in(key, INIT), x)
        parts = params, init_memory(trained(params))
        parts = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), parts)
        return State(parts[0], parts[1], key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    return jax.jit(first)


@functools.lru_cache(maxsize=16)
def _numbered(init: Callable[..., Any], init_memory: Callable[[Any], Any]) -> Callable[..., State]:
    """The first state from fold_in(key, i), with the key's data in place of the key."""
    first = _first(init, init_memory)

    def numbered(key: Any, i: Any, x: Any) -> State:
        own = jax.random.fold_in(key, i)
        return first(own, x, None)._replace(key=jax.random.key_data(own))

    return jax.jit(numbered)


def trained(params: Any) -> Any:
    """The params that are trained; None in place of moving statistics, and of leaves that are not floating point."""
    return jax.tree.map(lambda leaf, is_trained: leaf if is_trained else None, params, trainable(params))


def joined(learned: Any, params: Any) -> Any:
    """Puts what `trained` took out of params back in its place."""
    return jax.tree.map(
        lambda new, old: old if new is None else new, learned, params, is_leaf=lambda node: node is None
    )


def order_key(state: State) -> jax.Array:
    """The key that shuffles the next epoch."""
    return jax.random.fold_in(state.key, KINDS * state.epoch + ORDER)


def draw_key(state: State) -> jax.Array:
    """The key of the next step."""
    return jax.random.fold_in(state.key, KINDS * state.step + DRAWS)
