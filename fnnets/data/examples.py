"""Examples: inputs, targets, and the masks of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks


class Examples(NamedTuple):
    """N examples, or a batch of them: the first axis of every array.

    Attributes:
      x: (N, …), or a tree of such arrays: the network's input.
      target: (N, …), what the loss compares the output with.
      mask: the network's mask, (N, T) bools for sequences, or None.
      loss_mask: the loss's mask, bools, or None.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> examples = fn.data.Examples(jnp.ones((6, 2)), jnp.zeros((6, 1)))
      >>> fn.data.take(examples, jnp.array([0, 3])).x.shape
      (2, 2)
    """

    x: Any
    target: Any
    mask: Any = None
    loss_mask: Any = None


def take(arrays: Any, index: Any) -> Any:
    """Takes rows by their indices from an array, or from every array of a tree.

    Args:
      arrays: (N, …), or a tree of such arrays, such as `Examples`.
      index: (…) integers.

    Returns:
      The same tree; in each array the axes of index replace the first axis.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.data.take(jnp.array([10, 20, 30]), jnp.array([2, 0])).tolist()
      [30, 10]
    """
    return jax.tree.map(lambda array: array[index], arrays)


def checked(
    who: str, examples: Any, name: str = "examples", array: Callable[[Any], Any] = jnp.asarray
) -> Examples:
    """Examples, or a tuple (x, target), as `Examples` of arrays whose first axes agree."""
    if not isinstance(examples, tuple) or not 2 <= len(examples) <= 4:
        raise TypeError(
            f"{who}: {name} must be fn.data.Examples(x, target) or a tuple (x, target), got "
            f"{type(examples).__name__}."
        )
    found = jax.tree.map(array, Examples(*examples))
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(found)}
    if len(sizes) != 1 or () in sizes:
        shapes = ", ".join(checks.shape_text(jnp.shape(leaf)) for leaf in jax.tree.leaves(found))
        raise ValueError(
            f"{who}: all arrays of {name} must have the examples as first axis, got shapes {shapes}."
        )
    return found


def number(examples: Examples) -> int:
    """The number of examples."""
    return int(jax.tree.leaves(examples.x)[0].shape[0])
