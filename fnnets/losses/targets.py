"""Checks targets, masks and class weights, and converts them for the losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.core import checks
from fnnets.core.layer import Array, Info, describe


class Target(NamedTuple):
    """A target in the form that the equations use."""

    t: jax.Array  # (…, C) in the dtype of the computation; (…, 1) integers if labels are looked up
    counts: jax.Array  # (…) bools, False where the label is ignored
    weight: jax.Array | None  # (…) the weight of each example in the mean; None means 1 for each


Weights = Sequence[float] | Array | None  # one for each class
ReadTarget = Callable[[Info, jax.Array, Any], Target]


def same_shape(info: Info, y: jax.Array, target: Any) -> Target:
    """A target that must have the shape of y."""
    target = checks.array(info, target, "target")
    remedy = "give y and target the same shape (y[..., 0], target[..., None]): a loss does not broadcast."
    checks.same_shape(info, "target", target.shape, y.shape, remedy)
    return Target(target.astype(y.dtype), jnp.ones(y.shape[:-1], bool), None)


def binary(label_smoothing: float) -> ReadTarget:
    """Reads targets in [0, 1] with the shape of y, and smooths them towards ½."""

    def read(info: Info, y: jax.Array, target: Any) -> Target:
        plain = same_shape(info, y, target)
        return plain._replace(t=smoothed(plain.t, label_smoothing, 2)) if label_smoothing else plain

    return read


def classes(weights: Weights, label_smoothing: float, ignore_label: int | None) -> ReadTarget:
    """Reads integer labels, or distributions with the shape of y."""

    def read(info: Info, y: jax.Array, target: Any) -> Target:
        target = checks.array(info, target, "target")
        if target.shape == y.shape:
            t, counts = distribution(info, y, target, ignore_label)
        else:
            t, counts = one_hot(info, y, target, ignore_label)
        # The weight is that of the label before smoothing, as in PyTorch.
        weight = None if weights is None else (t * jnp.asarray(weights, t.dtype)).sum(-1)
        return Target(smoothed(t, label_smoothing, y.shape[-1]) if label_smoothing else t, counts, weight)

    return read


def distribution(
    info: Info, y: jax.Array, target: jax.Array, ignore_label: int | None
) -> tuple[jax.Array, jax.Array]:
    """A target with one number for each class, and all True: no example is ignored."""
    if ignore_label is not None:
        raise ValueError(
            f"{info}: ignore_label needs integer labels of shape {checks.shape_text(y.shape[:-1])}, got a target with "
            f"the shape of y, {checks.shape_text(y.shape)}; leave examples out with the mask."
        )
    return target.astype(y.dtype), jnp.ones(y.shape[:-1], bool)


def labels(
    info: Info, y: jax.Array, target: jax.Array, ignore_label: int | None
) -> tuple[jax.Array, jax.Array]:
    """One integer for each example, and True where it is not ignored."""
    if target.shape != y.shape[:-1]:
        raise ValueError(
            f"{info}: target must have shape {checks.shape_text(y.shape[:-1])} (labels) or "
            f"{checks.shape_text(y.shape)} (distributions, the shape of y), got {checks.shape_text(target.shape)}; "
            "reshape one of them: a loss does not broadcast."
        )
    target = checks.integers(info, target, "target")
    # A dtype wide enough for every class and for a negative ignore_label.
    target = target.astype(jnp.promote_types(target.dtype, jnp.int32))
    return target, jnp.ones(target.shape, bool) if ignore_label is None else target != ignore_label


def one_hot(
    info: Info, y: jax.Array, target: jax.Array, ignore_label: int | None
) -> tuple[jax.Array, jax.Array]:
    """Labels as rows of 0 and 1, NaN for a label outside [0, C), and True where they are not ignored."""
    label, counts = labels(info, y, target, ignore_label)
    names_class = (label >= 0) & (label < y.shape[-1])
    hot = (label[..., None] == jnp.arange(y.shape[-1])).astype(y.dtype)
    return jnp.where(names_class[..., None], hot, jnp.nan), counts


def column(ignore_label: int | None) -> ReadTarget:
    """Reads integer labels as (…, 1), for a loss that looks entries up instead of building a one-hot array."""

    def read(info: Info, y: jax.Array, target: Any) -> Target:
        label, counts = labels(info, y, checks.array(info, target, "target"), ignore_label)
        return Target(label[..., None], counts, None)

    return read


def look_up(y: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The entry of each row of y (…, C) at its label (…, 1), and a factor: 1, or NaN for a label outside [0, C)."""
    near = jnp.clip(label, 0, y.shape[-1] - 1)
    rows = y.reshape(label.size, y.shape[-1]).at[jnp.arange(label.size), near.ravel()]
    entry = rows.get(mode="promise_in_bounds", wrap_negative_indices=False).reshape(label.shape)
    return entry, jnp.where(near == label, jnp.ones((), y.dtype), jnp.nan)


def put(y: jax.Array, label: jax.Array, entry: jax.Array) -> jax.Array:
    """Replaces the entry of each row of y (…, C) at its label (…, 1); a label outside [0, C) replaces nothing."""
    rows = y.reshape(label.size, y.shape[-1]).at[jnp.arange(label.size), label.ravel()]
    replaced = rows.set(entry.ravel(), mode="drop", wrap_negative_indices=False, unique_indices=True)
    return replaced.reshape(y.shape)


def smoothed(t: jax.Array, label_smoothing: float, outcomes: int) -> jax.Array:
    """Mixes the target with the uniform distribution over the outcomes."""
    s = jnp.asarray(label_smoothing, t.dtype)
    return (1 - s) * t + s / outcomes


def mask_of_examples(info: Info, y: jax.Array, mask: Any) -> jax.Array:
    """A mask that must have one bool for each example."""
    mask = checks.bools(info, mask)
    remedy = f"y has shape {checks.shape_text(y.shape)}, and the mask needs one bool for each example."
    checks.same_shape(info, "mask", mask.shape, y.shape[:-1], remedy)
    return mask


def class_weights(info: Info, y: jax.Array, weights: Weights) -> None:
    """Refuses weights unless there is one for each class."""
    if weights is not None:
        remedy = (
            f"y has shape {checks.shape_text(y.shape)}, and each entry of its last axis needs one weight."
        )
        checks.same_shape(info, "weights", np.shape(weights), y.shape[-1:], remedy)


class _Elided:
    """Stands for an array in a label: its numbers would make the label unreadable."""

    def __repr__(self) -> str:
        return "…"


def describe_weighted(factory: Callable[..., Any], *, weights: Weights, **settings: Any) -> Info:
    """Like `describe`, but the label shows `weights=…` instead of the numbers."""
    info = describe(factory, weights=None if weights is None else _Elided(), **settings)
    return dataclasses.replace(info, settings={**info.settings, "weights": weights})
