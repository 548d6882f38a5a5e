"""The target of a command: a layer, or a function with its derivation, in a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.comparison import compare, compare_grad
from fnnets.comparison.report import Report
from fnnets.core.layer import Layer

GUESSES = ((4, 5), (4, 3, 5), (2, 6, 6, 3))  # shapes of x: a batch of vectors, of sequences, of pictures

EXPECTED = "a Layer, (layer, x), (layer, params, x) or (f, grad, args)"


class TargetError(Exception):
    """The target cannot be compared; the message is one line for the user."""


def load(target: str) -> Any:
    """The object at `path/to/file.py:name` or `module:name`."""
    place, colon, name = target.rpartition(":")
    if not (colon and place and name):
        raise TargetError(f"{target!r} must be path/to/file.py:name or module:name")
    module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    if not hasattr(module, name):
        public = [own for own, value in vars(module).items() if isinstance(value, Layer | tuple)]
        hint = f"; it has {', '.join(public)}" if public else ""
        raise TargetError(f"{place} has no {name}{hint}")
    return getattr(module, name)


def report_on(subject: Any, shape: tuple[int, ...] | None) -> Report:
    """The report on a target; `shape` is the shape of x if the target is only a layer."""
    if isinstance(subject, Layer):
        return _of_layer(subject, shape)
    if not isinstance(subject, tuple) or len(subject) not in (2, 3):
        raise TargetError(f"expected {EXPECTED}, got {type(subject).__name__}")
    if isinstance(subject[0], Layer):
        layer, *params, x = subject
        return compare(layer, params[0] if params else layer.init(jax.random.key(0), x), x)
    if len(subject) == 3 and callable(subject[0]) and callable(subject[1]):
        f, grad, args = subject
        return compare_grad(f, grad, *(args if isinstance(args, tuple) else (args,)))
    raise TargetError(
        f"expected {EXPECTED}, got a tuple of {', '.join(type(part).__name__ for part in subject)}"
    )


def _of_layer(layer: Layer, shape: tuple[int, ...] | None) -> Report:
    """Compares a layer at the given shape, or at the first of `GUESSES` that it accepts."""
    refused = None
    for guess in [shape] if shape else GUESSES:
        x = np.random.default_rng(0).standard_normal(guess)
        try:
            params = layer.init(jax.random.key(0), x)
            jax.eval_shape(layer.apply, params, x)
        except Exception as error:
            refused = refused or error
            continue
        return compare(layer, _away_from_zeros(params), x)
    tried = shape or " or ".join(map(str, GUESSES))
    raise TargetError(
        f"{layer!r} does not accept x of shape {tried} ({first_line(refused)}); give --shape, or name a tuple (layer, x)"
    )


def _away_from_zeros(params: Any) -> Any:
    """Moves params away from their initial zeros, which hide mistakes."""
    rng = np.random.default_rng(1)

    def move(leaf: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            return leaf
        return np.asarray(leaf, np.float64) + 0.1 * rng.standard_normal(np.shape(leaf))

    return jax.tree.map(move, params)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Like `python path/to/file.py`: it can import its neighbours, and its classes can be looked up by name.
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TargetError(f"{path} cannot be imported: {first_line(error)}") from error
    return module


def _from_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TargetError(f"{name} cannot be imported: {first_line(error)}") from error


def first_line(error: BaseException | None) -> str:
    """The type and the first line of an error."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
