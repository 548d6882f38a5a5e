"""Checks with readable errors: each names the layer, what was expected, what came, and the remedy."""

from __future__ import annotations

import inspect
import operator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np


def shape_text(shape: tuple[Any, ...]) -> str:
    """A shape as errors show it: `(…, 5)` for `(..., 5)`."""
    inner = ", ".join("…" if size is ... else str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 and shape[0] is not ... else f"({inner})"


def array(who: Any, x: Any, name: str = "x") -> Any:
    """x as a jax array (a ShapeDtypeStruct stays one); refuses a list and anything else that is not an array."""
    if isinstance(x, jax.ShapeDtypeStruct | jax.Array):
        return x
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise TypeError(
            f"{who}: {name} must be an array, got {type(x).__name__}; convert it with jnp.asarray."
        )
    return jnp.asarray(x)


def floats(who: Any, x: Any, name: str = "x") -> Any:
    """x as an array of floating-point numbers."""
    x = array(who, x, name)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{who}: {name} must be floating point, got {x.dtype}; convert it with {name}.astype(float)"
            + (" or look it up with fn.embedding." if jnp.issubdtype(x.dtype, jnp.integer) else ".")
        )
    return x


def integers(who: Any, x: Any, name: str = "x") -> Any:
    """x as an array of integers."""
    x = array(who, x, name)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(
            f"{who}: {name} must hold integers, got {x.dtype}; convert it with {name}.astype(int)."
        )
    return x


def rank(who: Any, x: Any, least: int, name: str = "x") -> None:
    """Refuses an x with fewer than `least` axes."""
    if x.ndim < least:
        raise ValueError(
            f"{who}: {name} must have at least {least} ax{'is' if least == 1 else 'es'}, got shape {shape_text(x.shape)}."
        )


def width(who: Any, x: Any, size: int, name: str = "x") -> None:
    """Refuses an x whose last axis is not `size` long."""
    if x.ndim == 0 or x.shape[-1] != size:
        raise ValueError(
            f"{who}: {name} must have shape (…, {size}), got {shape_text(x.shape)}; "
            "pass such an input, or call init again with this one."
        )


def same_shape(who: Any, name: str, got: Any, expected: Any, remedy: str) -> None:
    """Refuses a value whose shape is not the expected one."""
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{who}: {name} must have shape {shape_text(expected)}, got {shape_text(got)}; {remedy}"
        )


def node(who: Any, params: Any, kind: type) -> None:
    """Refuses params that do not come from this layer's `init`."""
    if not isinstance(params, kind):
        fields = ", ".join(getattr(kind, "_fields", ()))
        raise TypeError(
            f"{who}: params must be {kind.__name__}({fields}), got {type(params).__name__}; "
            "pass what this layer's own init returns."
        )


def positive(who: str, **sizes: Any) -> None:
    """Refuses sizes that are not whole numbers of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or operator.index(size) < 1:
            raise ValueError(f"{who}: {name} must be a whole number of at least 1, got {size!r}.")


def whole(who: str, **sizes: Any) -> None:
    """Refuses sizes that are not whole numbers of at least 0."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not hasattr(size, "__index__") or operator.index(size) < 0:
            raise ValueError(f"{who}: {name} must be a whole number of at least 0, got {size!r}.")


def above_zero(who: str, **values: float) -> None:
    """Refuses numbers that are not above 0."""
    for name, value in values.items():
        if not isinstance(value, float | int | np.number) or not value > 0:
            raise ValueError(f"{who}: {name} must be a number above 0, got {value!r}.")


def fraction(who: str, name: str, value: float) -> None:
    """Refuses a value outside [0, 1]."""
    if not isinstance(value, float | int | np.number) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{who}: {name} must lie between 0 and 1, got {value!r}.")


def choice(who: str, name: str, value: Any, options: tuple[Any, ...]) -> None:
    """Refuses a value that is not one of the options."""
    if value not in options:
        raise ValueError(f"{who}: {name} must be one of {', '.join(map(repr, options))}, got {value!r}.")


def key(who: Any, key: Any) -> None:
    """Refuses a missing random key where training needs one."""
    if key is None:
        raise ValueError(
            f"{who}: train=True needs a key, got key=None; pass key=jax.random.key(…), a new one each step."
        )


def static_bool(who: Any, train: Any) -> None:
    """Refuses a traced `train`: it decides what is computed, so it must be known before tracing."""
    if not isinstance(train, bool | np.bool_):
        raise TypeError(
            f"{who}: train must be a Python bool, got {type(train).__name__}; "
            "under jit mark it with static_argnames='train'."
        )


def bools(who: Any, mask: Any, name: str = "mask") -> Any:
    """A mask as an array of bools. An additive mask of 0 and −∞ would mean the opposite."""
    mask = array(who, mask, name)
    if mask.dtype != bool:
        raise TypeError(
            f"{who}: {name} must hold bools, got {mask.dtype}; convert it to bools, True where x counts."
        )
    return mask


def no_carry(who: Any, carry: Any) -> None:
    """Refuses a carry in a layer that has no state over time."""
    if carry is not None:
        raise TypeError(
            f"{who}: has no carry, got one of {type(carry).__name__}; leave carry (or dcarry) out."
        )


def pair(who: Any, function: str, expected: str, got: Any) -> Any:
    """Refuses anything but a tuple of two as the result of a user's function."""
    return two(f"{who}: {function} must return {expected}", got)


def two(what: str, got: Any) -> Any:
    """Refuses anything but a tuple of two; `what` is the beginning of the error."""
    if not isinstance(got, tuple) or len(got) != 2:
        came = f"a tuple of {len(got)}" if isinstance(got, tuple) else type(got).__name__
        raise TypeError(f"{what}, got {came}.")
    return got


def layers(who: str, children: tuple[Any, ...], kind: type) -> None:
    """Refuses children that are not layers, most often a factory that was not called."""
    for i, child in enumerate(children):
        if not isinstance(child, kind):
            name = getattr(child, "__name__", type(child).__name__)
            remedy = f"call it: fn.{name}(…)" if inspect.isroutine(child) else "make it one with fn.layer"
            raise TypeError(f"{who}: layer {i} must be a Layer, got {name}; {remedy}.")


def not_a_function(kind: type, instead: str) -> None:
    """Calling a tuple of functions, as other libraries' layers and losses are called, says what to write instead.

    It is set from without: in the class's body a type checker would take `net(x)` for right.
    """

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        del args, kwargs
        raise TypeError(f"{self.info} is a {kind.__name__}, not a function; write {instead}.")

    kind.__call__ = refuse  # type: ignore[method-assign]


def made(who: str, name: str, got: Any, functions: tuple[str, ...], kind: str) -> None:
    """Refuses an object that lacks the functions of its kind."""
    if not all(callable(getattr(got, function, None)) for function in functions):
        raise TypeError(f"{who}: {name} must be {kind}, got {getattr(got, '__name__', repr(got))}.")


def activation(who: Any, name: str, activation: Any, kind: type) -> None:
    """Refuses an activation that is not a layer, or that has params: there is no place for them."""
    if not isinstance(activation, kind):
        got = getattr(activation, "__name__", type(activation).__name__)
        raise TypeError(f"{who}: {name} must be a Layer such as fn.tanh(), got {got}.")
    if jax.tree.leaves(jax.eval_shape(activation.init, jax.random.key(0), jnp.zeros(1))):  # type: ignore[attr-defined]
        raise ValueError(f"{who}: {name} must be a layer without params, got {activation!r}.")


def count(who: Any, name: str, got: Any, expected: int) -> None:
    """Refuses a tuple of params or carries unless it has one entry for each child."""
    if not isinstance(got, tuple) or len(got) != expected:
        what = f"{len(got)}" if isinstance(got, tuple) else type(got).__name__
        raise TypeError(
            f"{who}: {name} must be a tuple of {expected}, one for each layer, got {what}; "
            "pass what this network's own init returns."
        )


def gradient(who: Any, name: str, got: Any, value: Any) -> None:
    """Refuses a gradient by hand whose structure or shapes differ from those of its value."""
    left = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(got)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        where, shape = f"{name}{jax.tree_util.keystr(path)}", jnp.shape(leaf)
        partner = left.pop(jax.tree_util.keystr(path), None)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            continue
        if partner is None:
            raise ValueError(
                f"{who}: backward must return {where} as an array of shape {shape_text(shape)}, got none."
            )
        remedy = "a gradient has the shape of its value."
        same_shape(who, where, jnp.shape(partner), shape, remedy)
    if left:
        raise ValueError(
            f"{who}: backward returned {name}{next(iter(left))}, which {name[1:]} does not have."
        )
