"""Dropout inside a recurrence: on the hidden state, before its products."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import checks


@dataclass(frozen=True)
class Noise:
    """The factors that multiply the hidden state: 0, or 1/(1−rate), which keeps the mean.

    A separate draw for each step is not stored. It is drawn again from the step's number when needed.
    """

    rate: float
    variational: bool

    def start(self, who: Any, key: Any, train: bool, like: jax.Array) -> Any:
        """The source of the factors of all steps: None without dropout, the factors themselves, or a key."""
        checks.static_bool(who, train)
        if not train or self.rate == 0:
            return None
        checks.key(who, key)
        return self._draw(key, like) if self.variational else key

    def at(self, source: Any, t: Any, like: jax.Array) -> Any:
        """The factors of step t, or of many steps at once if the first axis of t and `like` is time."""
        if source is None or self.variational:
            return source
        if jnp.ndim(t) == 0:
            return self._draw(jax.random.fold_in(source, t), like)
        return jax.vmap(lambda t, like: self._draw(jax.random.fold_in(source, t), like))(t, like)

    def _draw(self, key: Any, like: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(key, jnp.float32(1 - self.rate), like.shape)
        scale = 1 / (1 - self.rate) if self.rate < 1 else 0.0
        return jnp.where(keep, jnp.asarray(scale, like.dtype), jnp.zeros((), like.dtype))


def takes_noise(function: Callable[..., Any]) -> bool:
    """Whether a cell's function takes `noise`."""
    return "noise" in inspect.signature(function).parameters


def dropped(h: jax.Array, noise: jax.Array | None) -> jax.Array:
    """The hidden state, or its gradient, after dropout; h itself without noise."""
    return h if noise is None else h * noise
