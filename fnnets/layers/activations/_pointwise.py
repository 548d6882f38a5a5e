"""Makes layers without params from functions of x alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fnnets.core import checks
from fnnets.core.layer import Info, Layer, layer, no_params


def pointwise(
    info: Info,
    f: Callable[[jax.Array], jax.Array],
    forward: Callable[[jax.Array], tuple[jax.Array, Any]],
    backward: Callable[[Any, jax.Array], jax.Array],
    *,
    least_rank: int = 0,
    tangent: Callable[[Any, jax.Array], jax.Array] | None = None,
) -> Layer:
    """The layer y = f(x): `forward(x) -> (y, saved)`, `backward(saved, dy) -> dx`, `tangent(saved, dx) -> dy`."""

    def checked(x: Any) -> jax.Array:
        x = checks.floats(info, x)
        checks.rank(info, x, least_rank)
        return x

    return layer(
        no_params,
        lambda params, x: f(checked(x)),
        lambda params, x: forward(checked(x)),
        lambda params, saved, dy: ((), backward(saved, dy)),
        tangent=None if tangent is None else lambda params, saved, dparams, dx: tangent(saved, dx),
        name=info,
    )
