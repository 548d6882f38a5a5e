"""The leaves of a tree by name, as they are written to files and read again: bit for bit."""

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
    """What an array is, without its values."""

    dtype: str  # such as "float32"; "key<fry>" for random keys
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {checks.shape_text(self.shape)}"


def named(who: str, tree: Any, top: str = "") -> dict[str, Any]:
    """The leaves by their paths, such as "0.w" or "2.stats.mean", below the name `top`; a tree that is a leaf is "params".

    Python's numbers become arrays. Refuses what is no array, and two leaves of one name.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        inner = jax.tree_util.keystr(path, simple=True, separator=".")
        name = ".".join(part for part in (top, inner) if part) or "params"
        if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
            leaf = jnp.asarray(leaf)
        if not _is_array(leaf):
            what = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(f"{who}: {name} must be an array of numbers, got {what}; leave it out.")
        if name in found:
            raise ValueError(f"{who}: two leaves have the path {name}; rename the key of one.")
        found[name] = leaf
    return found


def kind(leaf: Any) -> Kind:
    """What a leaf is: of an array, or of a `jax.ShapeDtypeStruct`."""
    return Kind(str(leaf.dtype), tuple(int(size) for size in leaf.shape))


def differences(there: Mapping[str, Kind], asked: Mapping[str, Kind]) -> list[str]:
    """A line for each path by which what is there differs from what is asked for."""
    lines = []
    for name, wanted in asked.items():
        if name not in there:
            lines.append(f"{name}: missing there, {wanted} here")
        elif there[name] != wanted:
            lines.append(f"{name}: {there[name]} there, {wanted} here")
    return lines + [
        f"{name}: {found} there, nothing here" for name, found in there.items() if name not in asked
    ]


def to_host(leaf: Any) -> np.ndarray:
    """A copy in NumPy, which shares no memory with a buffer that may be used again; of a random key, its data."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf, order="C")


def from_host(array: np.ndarray, like: Any, impl: str | None = None) -> Any:
    """The leaf again, and of the kind of array that `like` is: NumPy's, or jax's, laid out on the same devices."""
    if isinstance(like, np.ndarray | np.generic):
        return array
    with jax.enable_x64(True):  # float64 stays what it is, wherever it came from
        leaf = jnp.array(array)
    if impl is not None:
        leaf = jax.random.wrap_key_data(leaf, impl=impl)
    if isinstance(like, jax.Array) and len(like.sharding.device_set) > 1:
        leaf = jax.device_put(leaf, like.sharding)
    return leaf


def digest(name: str, array: np.ndarray) -> str:
    """SHA-256 of an array's name, dtype, shape and bytes."""
    found = hashlib.sha256(f"{name} {kind(array)} ".encode())
    found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _is_array(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    numbers = dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in (np.bool_, jnp.number))
    return numbers or is_key(leaf)
