"""The leaves of a tree by name, as files store them: bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.arrays import is_key


class Kind(NamedTuple):
    """The dtype and the shape of an array."""

    dtype: str  # such as "float32"; "key<fry>" for random keys
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {checks.shape_text(self.shape)}"


def named(who: str, tree: Any, top: str = "") -> dict[str, Any]:
    """The leaves by their paths below `top`, such as "0.w" or "2.stats.mean"; a tree that is a leaf is "params".

    Python numbers become arrays. Refuses a leaf that is not an array, and two leaves with the same path.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        inner = jax.tree_util.keystr(path, simple=True, separator=".")
        name = ".".join(part for part in (top, inner) if part) or "params"
        if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
            leaf = jnp.asarray(leaf)
        if not _is_array(leaf):
            got = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"{who}: {name} must be an array of numbers, got {got}; remove it.")
        if name in leaves:
            raise ValueError(f"{who}: two leaves have the path {name}; rename the key of one.")
        leaves[name] = leaf
    return leaves


def kind(leaf: Any) -> Kind:
    """The kind of an array or a `jax.ShapeDtypeStruct`."""
    return Kind(str(leaf.dtype), tuple(int(size) for size in leaf.shape))


def differences(there: Mapping[str, Kind], here: Mapping[str, Kind]) -> list[str]:
    """A line for each path where the saved kinds (there) differ from the expected ones (here)."""
    lines = []
    for name, kind in here.items():
        if name not in there:
            lines.append(f"{name}: missing there, {kind} here")
        elif there[name] != kind:
            lines.append(f"{name}: {there[name]} there, {kind} here")
    return lines + [f"{name}: {kind} there, missing here" for name, kind in there.items() if name not in here]


def to_host(leaf: Any) -> np.ndarray:
    """A NumPy copy of a leaf, or of a random key's data. It shares no memory with a buffer that may be donated."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf, order="C")


def from_host(array: np.ndarray, like: Any, impl: str | None = None) -> Any:
    """The saved array in the type of `like`: a NumPy array, or a jax array on the same devices."""
    if isinstance(like, np.ndarray | np.generic):
        return array
    with jax.enable_x64(True):  # keeps float64 even where x64 is off
        leaf = jnp.array(array)
    if impl is not None:
        leaf = jax.random.wrap_key_data(leaf, impl=impl)
    if isinstance(like, jax.Array) and len(like.sharding.device_set) > 1:
        leaf = jax.device_put(leaf, like.sharding)
    return leaf


def digest(name: str, array: np.ndarray) -> str:
    """SHA-256 of an array's name, dtype, shape and bytes."""
    sha256 = hashlib.sha256(f"{name} {kind(array)} ".encode())
    sha256.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def _is_array(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    numbers = dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in (np.bool_, jnp.number))
    return numbers or is_key(leaf)
