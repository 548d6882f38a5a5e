"""The parameters of gated layers, by name."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def gates(params: Any) -> dict[str, jax.Array]:
    """The parameters of a gated layer as named blocks: W_f, U_f, b_f and so on.

    Formula: the field w, in equal blocks along its last axis, gives W_i, W_f, …; u gives U_i, …; b and p likewise.

    Args:
      params: a NamedTuple with a class attribute `blocks`, such as `LSTM` or `GRU`, or its gradients.

    Returns:
      A dict of arrays: (D, H) for W, (H, H) for U, (H,) for b and for the peepholes p. Fields without blocks keep
      their name. Fields that are None are left out.

    Raises:
      TypeError: params have no attribute `blocks`.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> params = fn.lstm(3).init(jax.random.key(0), jnp.ones((5, 2)))
      >>> {name: leaf.shape for name, leaf in fn.gates(params).items() if name.endswith("_f")}
      {'W_f': (2, 3), 'U_f': (3, 3), 'b_f': (3,)}
      >>> float(fn.gates(params)["b_f"][0])
      1.0
    """
    blocks = getattr(type(params), "blocks", None)
    if blocks is None:
        raise TypeError(
            f"gates: params must name their blocks, as LSTM and GRU do, got {type(params).__name__}; "
            "pass the params of one gated layer."
        )
    named: dict[str, jax.Array] = {}
    for field, leaf in params._asdict().items():
        if leaf is None:
            continue
        if field not in blocks:
            named[field] = leaf
            continue
        names, letter = blocks[field], field.upper() if field in ("w", "u") else field
        parts = leaf if len(leaf) == len(names) and leaf.ndim > 1 else jnp.split(leaf, len(names), -1)
        named |= {f"{letter}_{name}": part for name, part in zip(names, parts, strict=True)}
    return named
