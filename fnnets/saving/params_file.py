"""Params in a safetensors file: a header and named arrays, without pickle. Many tools read it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core.arrays import is_key
from fnnets.saving import leaves

OURS = "fnnets."
DIGEST, VERSION = f"{OURS}sha256", f"{OURS}format"  # two names: one flipped bit cannot hide both
BLANK = "0" * 64  # stands in for the digest while the digest is computed
DTYPES = {
    "BOOL": "bool", "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip


def save(path: str | os.PathLike[str], params: Any, metadata: Mapping[str, str] | None = None) -> None:
    """Saves params as one safetensors file. It replaces an existing file as a whole, or not at all.

    Args:
      path: the file's name, such as "digits.safetensors", in a folder that exists.
      params: any tree of arrays and numbers. The file names each leaf by its path, such as `0.w` or `2.stats.mean`.
      metadata: texts by name to save too, such as {"trained on": "digits"}.
        `safetensors.safe_open(path, "np").metadata()` reads them.

    Returns:
      Nothing.

    Raises:
      ImportError: safetensors is not installed.
      OSError: the file cannot be written.
      TypeError: a leaf is not an array of numbers, or the format lacks its dtype (for a random key, save its
        `jax.random.key_data`); metadata are not texts.
      ValueError: two leaves have the same path.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, os, tempfile
      >>> net = fn.serial(fn.dense(3), fn.batch_norm())
      >>> params = net.init(jax.random.key(0), jnp.ones((4, 2)))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "net.safetensors")
      ...     fn.save(path, params, {"note": "before training"})
      ...     again = fn.load(path, params)
      >>> bool((again[0].w == params[0].w).all())
      True
    """
    safetensors = _safetensors()
    arrays = {}
    for name, leaf in leaves.named("save", params).items():
        if str(leaf.dtype) not in DTYPES.values() or name == "__metadata__":
            remedy = "save jax.random.key_data of it" if is_key(leaf) else "rename or convert it"
            raise TypeError(f"save: a safetensors file cannot hold {name} of {leaf.dtype}; {remedy}.")
        arrays[name] = leaves.to_host(leaf)
    texts = dict(metadata or {})
    if not all(
        isinstance(text, str) and not text.startswith(OURS) for item in texts.items() for text in item
    ):
        raise TypeError(
            f"save: metadata must be texts by name (none may begin with {OURS}), got {metadata!r}."
        )
    content = _ordered(safetensors.numpy.save(arrays, {**texts, VERSION: "1", DIGEST: BLANK}))
    digest = hashlib.sha256(content).hexdigest()
    _replace(Path(os.path.realpath(path)), content.replace(_entry(BLANK), _entry(digest)))


def load(path: str | os.PathLike[str], like: Any) -> Any:
    """Loads params from a safetensors file.

    Args:
      path: the file's name.
      like: params of the network, or only their shapes, such as `jax.eval_shape(net.init, key, x)`.

    Returns:
      A tree like `like` with the file's values: jax arrays, or NumPy arrays where like has them.

    Raises:
      ImportError: safetensors is not installed.
      OSError: the file does not exist, or cannot be read.
      ValueError: the file is damaged, or its params do not match like; the error lists every path that differs.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp, os, tempfile
      >>> net, x = fn.dense(3), jnp.ones((4, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "dense.safetensors")
      ...     fn.save(path, params)
      ...     shapes = jax.eval_shape(fn.dense(5).init, jax.random.key(0), x)
      ...     try:
      ...         fn.load(path, shapes)
      ...     except ValueError as error:
      ...         print(str(error).replace(path, "dense.safetensors"))
      load: dense.safetensors holds other params:
        w: float32 (2, 3) there, float32 (2, 5) here
        b: float32 (3,) there, float32 (5,) here
    """
    wanted = leaves.named("load", like)
    arrays = _read(path)
    saved = {name: leaves.kind(array) for name, array in arrays.items()}
    if lines := leaves.differences(saved, {name: leaves.kind(leaf) for name, leaf in wanted.items()}):
        raise ValueError(f"load: {os.fspath(path)} holds other params:\n  " + "\n  ".join(lines))
    values = [leaves.from_host(arrays[name], leaf) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The file's arrays. Checks the digest that `save` wrote; files of other programs have none."""
    safetensors = _safetensors()
    content = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(content)
        with safetensors.safe_open(os.fspath(path), "np") as opened:
            texts = dict(opened.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"load: {os.fspath(path)} is not a complete safetensors file ({error}); save it again, or take another copy."
        ) from error
    if unknown := [f"{name} ({entry['dtype']})" for name, entry in entries if entry["dtype"] not in DTYPES]:
        raise ValueError(f"load: {os.fspath(path)} has unknown dtypes: {', '.join(unknown)}.")
    arrays = {
        name: np.frombuffer(entry["data"], jnp.dtype(DTYPES[entry["dtype"]])).reshape(entry["shape"])
        for name, entry in entries
    }
    if any(name.startswith(OURS) for name in texts) and not _has_digest(content, texts.get(DIGEST, "")):
        raise ValueError(
            f"load: {os.fspath(path)} is damaged: its content is not what was saved; take another copy."
        )
    return arrays


def _ordered(content: bytes) -> bytes:
    """The file with its metadata sorted, so that the same params give the same file: safetensors writes any order."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _has_digest(content: bytes, digest: str) -> bool:
    """Whether the file has the digest in its header."""
    return hashlib.sha256(content.replace(_entry(digest), _entry(BLANK))).hexdigest() == digest


def _entry(digest: str) -> bytes:
    """The digest as the header writes it."""
    return f'"{DIGEST}":"{digest}"'.encode()


def _replace(path: Path, content: bytes) -> None:
    """Writes a temporary file beside the path, and moves it there when it is on the disk."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: the folder {path.parent} does not exist; make it first.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _safetensors() -> Any:
    """The package, imported only when it is needed."""
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "save and load need safetensors; install it with pip install 'fnnets[save]'.", name="safetensors"
        ) from error
    return safetensors
