"""Parameters as trees: which leaves are trained, which are kernels, how to count them, how to freeze some."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnnets.core.layer import Carry, Layer, Params, PyTree

Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array

KERNELS = ("w", "u", "v")


class Stats(NamedTuple):
    """The moving statistics of a normalisation: part of params, but constants in every gradient."""

    mean: jax.Array  # (C,)
    var: jax.Array  # (C,)
    weight: jax.Array | None = (
        None  # (), how much data both have seen, from 0 at the start to 1; None counts as 1
    )


def _is_stats(node: Any) -> bool:
    return isinstance(node, Stats)


def with_fixed_stats(params: Params) -> Any:
    """The params, with moving statistics as constants for autodiff too."""

    def fixed(node: Any) -> Any:
        return jax.lax.stop_gradient(node) if _is_stats(node) else node

    return jax.tree.map(fixed, params, is_leaf=_is_stats)


def trainable(params: Params) -> PyTree:
    """Marks what is trained: True on every floating-point leaf outside `Stats`.

    Args:
      params: any tree of parameters (arrays or shapes).

    Returns:
      A tree of bools with the same structure, for `optax.masked` and `optax.adamw(mask=…)`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> fn.trainable(fn.dense(3).init(jax.random.key(0), jnp.ones(2)))
      Dense(w=True, b=True)
    """

    def mark(node: Any) -> Any:
        if _is_stats(node):
            return jax.tree.map(lambda _: False, node)
        return bool(jnp.issubdtype(getattr(node, "dtype", None) or jnp.result_type(node), jnp.floating))

    return jax.tree.map(mark, params, is_leaf=_is_stats)


def kernels(params: Params) -> PyTree:
    """Marks what penalties act on: True on kernels (`w`, `v`) and recurrent kernels (`u`).

    Biases, peepholes, scales and moving statistics are False. The name of a leaf's innermost field or dict key decides.

    Args:
      params: any tree of parameters.

    Returns:
      A tree of bools with the same structure.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> fn.kernels(fn.dense(3).init(jax.random.key(0), jnp.ones(2)))
      Dense(w=True, b=False)
    """

    def mark(path: Any, leaf: Any) -> bool:
        del leaf
        names = [getattr(step, "name", getattr(step, "key", None)) for step in path]
        return bool(names) and names[-1] in KERNELS

    return jax.tree_util.tree_map_with_path(mark, params)


def freeze(updater: Any, mask: PyTree | Callable[[Params], PyTree]) -> optax.GradientTransformationExtraArgs:
    """An updater that leaves the chosen leaves unchanged.

    Formula: Δ = 0 where mask is True, the updater's own Δ elsewhere. `optax.masked` alone would pass the raw
    gradients of the frozen leaves through, and move them.

    Args:
      updater: an `optax.GradientTransformation`.
      mask: a tree of bools, True where a leaf is frozen, or a function from params to one. A bool in place of
        a subtree applies to all of it: `(True, False)` freezes a network's first layer.

    Returns:
      An `optax.GradientTransformationExtraArgs`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, optax
      >>> params = fn.dense(3).init(jax.random.key(0), jnp.ones(2))
      >>> updater = fn.freeze(optax.sgd(0.1), fn.Dense(w=False, b=True))
      >>> updates, _ = updater.update(params, updater.init(params), params)
      >>> float(jnp.abs(updates.b).sum())
      0.0
    """

    def labels(params: Params) -> Any:
        chosen = mask(params) if callable(mask) else mask
        return jax.tree.map(lambda fixed: "fixed" if fixed else "trained", chosen)

    return optax.with_extra_args_support(
        optax.partition({"trained": updater, "fixed": optax.set_to_zero()}, labels)
    )


def count_params(params: Params) -> int:
    """The number of trained values, without moving statistics.

    Args:
      params: any tree of parameters (arrays or shapes).

    Returns:
      The total size of the leaves where `trainable` is True.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> fn.count_params(fn.dense(3).init(jax.random.key(0), jnp.ones(2)))
      9
    """
    leaves, marks = jax.tree.leaves(params), jax.tree.leaves(trainable(params))
    return sum(
        math.prod(getattr(leaf, "shape", ())) for leaf, mark in zip(leaves, marks, strict=True) if mark
    )


def zero_carry(layer: Layer, params: Params, x: PyTree) -> Carry:
    """The carry that a sequence starts with by default: zeros.

    Args:
      layer: any layer or network.
      params: its parameters (arrays or shapes).
      x: an input (array or shape); the carry has its batch axes.

    Returns:
      Zeros with the structure of the carry; None for a network without recurrent layers.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.dense(3)
      >>> fn.zero_carry(net, net.init(jax.random.key(0), jnp.ones(2)), jnp.ones(2)) is None
      True
    """
    _, carry, _ = jax.eval_shape(layer.forward, params, x)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), carry)
