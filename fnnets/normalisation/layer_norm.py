"""Layer normalisation: statistics of each place over its features."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets import checks
from fnnets.contract import Layer, describe
from fnnets.normalisation._grouped import grouped


class LayerNorm(NamedTuple):
    """The parameters of `layer_norm`."""

    scale: jax.Array | None  # (D,); None without scale
    b: jax.Array | None  # (D,); None without bias
