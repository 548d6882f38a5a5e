"""What layers without parameters have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fnnets import checks
from fnnets.contract import Info, Layer, layer, no_params


def pointwise(
    info: Info,
    f: Callable[[jax.Array], jax.Array],
    forward: Callable[[jax.Array], tuple[jax.Array, Any]],
    backward: Callable[[Any, jax.Array], jax.Array],
    *,
    least_rank: int = 0,
) -> Layer:
    """The layer y = f(x): `forward(x) -> (y, saved)` and `backward(saved, dy) -> dx`."""

    def checked(x: Any) -> jax.Array:
        x = checks.floats(info, x)
        checks.rank(info, x, least_rank)
        return x

    return layer(
        no_params,
        lambda params, x: f(checked(x)),
        lambda params, x: forward(checked(x)),
        lambda params, saved, dy: ((), backward(saved, dy)),
        name=info,
    )
