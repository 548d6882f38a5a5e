"""`Problem`s to compare: from a layer, a loss, a penalty, or any function with its derivation."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.comparison import float_trees, steps
from fnnets.comparison.diagnosis import alternatives, causes
from fnnets.comparison.measurement import Problem, slices
from fnnets.core import checks, recording
from fnnets.core.layer import Layer
from fnnets.core.time_order import has_steps, time_first
from fnnets.gradients.custom_derivatives import plain_equations

Functions = tuple[Callable[..., Any], Callable[..., Any]]

AXES = ("the batch", "time")  # of an input (batch, time, features); more axes have numbers


def of_layer(
    layer: Layer,
    params: Any,
    x: Any,
    *,
    key: Any = None,
    train: bool = False,
    mask: Any = None,
    carry: Any = None,
    dy: Any = None,
    loss: Any = None,
    target: Any = None,
    loss_mask: Any = None,
    compiled: Functions | None = None,
) -> Problem:
    """A layer at a point, as a `Problem`; call it inside `jax.enable_x64(True)`.

    `compiled` is the result of `functions`, to compare one layer at many points. It is not cached between
    calls, since a layer may read values that change.
    """
    if not isinstance(layer, Layer):
        raise TypeError(
            f"compare: expected a Layer, got {type(layer).__name__}; for a function use fn.compare_grad."
        )
    who = f"compare({layer!r})"
    checks.static_bool(who, train)
    if loss is not None and not hasattr(loss, "per_example"):
        name = getattr(loss, "__name__", type(loss).__name__)
        raise TypeError(f"{who}: loss must be a Loss, got {name}; call it: fn.losses.{name}().")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, x, carry))):
        raise TypeError(
            f"{who}: it needs concrete values and cannot be traced; call it outside jit, grad and vmap."
        )
    if loss is not None and (target is None or dy is not None):
        raise ValueError(f"{who}: loss needs a target and excludes dy; pass target, and leave dy out.")
    if loss is None and (target is not None or loss_mask is not None):
        raise ValueError(f"{who}: target and loss_mask need a loss; pass one, or leave them out.")
    point, others = float_trees.split(float_trees.in_float64({"params": params, "x": x, "carry": carry}))
    constants = float_trees.in_float64({"key": key, "mask": mask, "target": target, "loss_mask": loss_mask})
    fixed = {"others": others, **constants}
    if not jax.tree.leaves(point):
        raise ValueError(
            f"{who}: params, x and carry have no floating-point leaf: there is nothing to compare."
        )
    plain, by_hand = compiled or functions(layer, train, loss, carry is not None)
    outputs = jax.eval_shape(plain, point, fixed)
    if loss is not None:
        dy = jnp.ones(())
    elif dy is None:
        dy = _random_like(outputs)
    else:
        dy = _checked_dy(who, float_trees.in_float64(dy), outputs, carry is not None)
    return Problem(
        repr(layer) if loss is None else f"{loss.info}({layer!r})",
        plain, by_hand, point, fixed, dy,
        layers=functools.partial(_layer_at, layer),
        departure=functools.partial(steps.departure, layer, plain, by_hand, point, fixed, dy),
        context=_context(layer, train, loss, plain, point, fixed, dy, params, x, carry is not None),
    )  # fmt: skip


def functions(layer: Layer, train: bool, loss: Any = None, with_carry: bool = False) -> Functions:
    """The plain equations and the derivation, as functions of (point, fixed)."""

    def plain(point: Any, fixed: Any) -> Any:
        at = float_trees.join(point, fixed["others"])
        mode = {"key": fixed["key"], "train": train, "mask": fixed["mask"]}
        with plain_equations():
            if with_carry:
                y, carry, _ = layer.forward(at["params"], at["x"], at["carry"], **mode)
            else:
                y = layer.apply(at["params"], at["x"], **mode)
        y = recording.probed_output(y)
        if loss is not None:
            return loss.apply(y, fixed["target"], fixed["loss_mask"])
        return (y, carry) if with_carry else y

    def by_hand(point: Any, fixed: Any, dy: Any) -> Any:
        at = float_trees.join(point, fixed["others"])
        mode = {"key": fixed["key"], "train": train, "mask": fixed["mask"]}
        with plain_equations():
            y, carry, saved = layer.forward(at["params"], at["x"], at["carry"], **mode)
        outputs, dcarry = ((y, carry), None) if with_carry else (y, None)
        if loss is not None:
            outputs, loss_saved = loss.forward(y, fixed["target"], fixed["loss_mask"])
            dy = loss.backward(loss_saved, dy)
        elif with_carry:
            dy, dcarry = dy
        if recording.collects("gradients"):
            dy = recording.note("dy", dy)
        dparams, dx, dcarry = layer.backward(at["params"], saved, dy, dcarry)
        return outputs, {"params": dparams, "x": dx} | ({"carry": dcarry} if with_carry else {})

    return plain, by_hand


def of_loss(loss: Any, y: Any, target: Any, mask: Any = None) -> Problem:
    """A loss at a point, as a `Problem`; call it inside `jax.enable_x64(True)`."""
    point = float_trees.in_float64({"y": y})
    fixed = float_trees.in_float64({"target": target, "mask": mask})
    plain, by_hand = _loss_functions(loss)
    return _of_scalar(str(loss.info), plain, by_hand, point, fixed)


def of_penalty(penalty: Any, params: Any) -> Problem:
    """A penalty at a point, as a `Problem`; call it inside `jax.enable_x64(True)`."""
    plain, by_hand = _penalty_functions(penalty)
    return _of_scalar(str(penalty.info), plain, by_hand, float_trees.in_float64({"params": params}), {})


@functools.lru_cache(maxsize=256)
def _loss_functions(loss: Any) -> Functions:
    def plain(point: Any, fixed: Any) -> Any:
        return loss.apply(point["y"], fixed["target"], fixed["mask"])

    def by_hand(point: Any, fixed: Any, dy: Any) -> Any:
        value, saved = loss.forward(point["y"], fixed["target"], fixed["mask"])
        return value, {"y": loss.backward(saved, dy)}

    return plain, by_hand


@functools.lru_cache(maxsize=256)
def _penalty_functions(penalty: Any) -> Functions:
    def plain(point: Any, fixed: Any) -> Any:
        del fixed
        return penalty.apply(point["params"])

    def by_hand(point: Any, fixed: Any, dy: Any) -> Any:
        del fixed
        value, saved = penalty.forward(point["params"])
        return value, {"params": penalty.backward(saved, dy)}

    return plain, by_hand


def _of_scalar(
    name: str, plain: Any, by_hand: Any, point: Any, fixed: Any, *, traceable: bool = True
) -> Problem:
    """A scalar function at a point; the axes of its arguments give factors their names."""
    dy = jnp.ones(())
    sizes = {
        f"{'the batch' if k == 0 and leaf.ndim > 1 else f'axis {k}'} of {path} ({n})": float(n)
        for path, leaf in float_trees.by_path(point).items()
        for k, n in enumerate(leaf.shape)
    }

    @functools.cache
    def altered() -> list[alternatives.Alternative]:
        with jax.enable_x64(True):
            return alternatives.of_equations(plain, point, fixed, dy)

    context = causes.Context(sizes, float_trees.blocks(point), alternatives=altered)
    return Problem(name, plain, by_hand, point, fixed, dy, traceable=traceable, context=context)


def of_function(
    f: Callable[..., Any],
    grad_by_hand: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...],
) -> Problem:
    """A function and its derivation at a point, as a `Problem`; call it inside `jax.enable_x64(True)`."""
    name = getattr(f, "__name__", type(f).__name__)
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in chosen:
        if not -len(args) <= i < len(args):
            raise ValueError(
                f"compare_grad({name}): argnums must be an index of one of the {len(args)} arguments, got {i}; "
                "count from 0."
            )
        if not any(float_trees.is_float(leaf) for leaf in jax.tree.leaves(args[i])):
            raise TypeError(
                f"compare_grad({name}): argument {i} has no floating-point leaf to differentiate; "
                "convert it, or leave it out of argnums."
            )
    converted = float_trees.in_float64(args)
    point, others = float_trees.split({f"args[{i}]": converted[i] for i in chosen})
    fixed = {"args": converted, "others": others}

    def arguments(point: Any, fixed: Any) -> list[Any]:
        parts = float_trees.join(point, fixed["others"])
        full = list(fixed["args"])
        for i in chosen:
            full[i] = parts[f"args[{i}]"]
        return full

    def plain(point: Any, fixed: Any) -> Any:
        value = f(*arguments(point, fixed))
        if jnp.shape(value) != ():
            raise ValueError(
                f"compare_grad({name}): f must return a scalar, got shape {checks.shape_text(jnp.shape(value))}; "
                "contract it with a fixed dy: jnp.vdot(dy, f(x))."
            )
        return value

    def by_hand(point: Any, fixed: Any, dy: Any) -> Any:
        del dy
        gradient = _eagerly(grad_by_hand, arguments(point, fixed))
        parts = (gradient,) if isinstance(argnums, int) else tuple(gradient)
        return None, {f"args[{i}]": part for i, part in zip(chosen, parts, strict=True)}

    return _of_scalar(name, plain, by_hand, point, fixed, traceable=False)


def _eagerly(grad_by_hand: Callable[..., Any], arguments: list[Any]) -> Any:
    """Calls the derivation without tracing; one that writes into its arguments gets NumPy copies."""
    try:
        return grad_by_hand(*arguments)
    except TypeError as error:
        if "immutable" not in str(error):
            raise
        return grad_by_hand(*jax.tree.map(np.array, arguments))


def _random_like(outputs: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), outputs)


def _checked_dy(who: str, dy: Any, outputs: Any, with_carry: bool) -> Any:
    """dy with the structure of the outputs: y alone, or (y, carry) with zeros for the carry."""
    structure: Any = jax.tree.structure(outputs)
    if with_carry and structure != jax.tree.structure(dy):
        dy = (dy, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), outputs[1]))
    for part, leaf in zip(jax.tree.leaves(dy), jax.tree.leaves(outputs), strict=True):
        checks.same_shape(who, "dy", part.shape, leaf.shape, "give dy the shape of the output.")
    return dy


def _context(
    layer: Layer,
    train: bool,
    loss: Any,
    plain: Any,
    point: Any,
    fixed: Any,
    dy: Any,
    params: Any,
    x: Any,
    with_carry: bool,
) -> causes.Context:
    """What a diagnosis may use; the costly parts are only computed if a leaf is wrong."""
    net = functions(layer, train)[0] if loss is not None else plain
    y = jax.eval_shape(net, point, fixed)
    y = y[0] if with_carry else y
    array = hasattr(y, "shape")
    inputs = [float_trees.leading(leaf) for leaf in jax.tree.leaves(x)] if array else []
    # Of several inputs, the one that shares most axes with y: the decoder's, not the encoder's.
    shared, rank = max(((_shared_axes(axes, y.shape[:-1]), len(axes)) for axes in inputs), default=(0, 0))
    names = _axes(layer, rank)[:shared]

    @functools.cache
    def altered() -> list[alternatives.Alternative]:
        with jax.enable_x64(True):
            inside = alternatives.of_layers(plain, point, fixed, dy) if layer.info.children else []
            return inside + alternatives.of_equations(plain, point, fixed, dy)

    def at_output() -> Any:
        """dy at the network's output, where examples are still separate: behind a loss, the gradient of the loss."""
        if loss is None:
            return dy
        return jax.grad(lambda y: loss.apply(y, fixed["target"], fixed["loss_mask"]))(net(point, fixed))

    @functools.cache
    def parts() -> list[dict[str, np.ndarray]]:
        with jax.enable_x64(True):
            axes = () if with_carry and rank > len(AXES) else names
            splits = [alone(at_output(), axis, name, with_carry) for axis, name in enumerate(axes)]
            return slices(net, point, fixed, splits)

    return causes.Context(
        sizes=_sizes(x, y, names),
        blocks=float_trees.blocks({"params": params}),
        axes=names,
        dy=np.asarray(dy[0] if with_carry else dy) if array else None,
        slices=parts,
        alternatives=altered,
    )


def _axes(layer: Layer, rank: int) -> tuple[str, ...]:
    """The names of an input's axes before its features."""
    if rank > len(AXES):
        return tuple(f"axis {k}" for k in range(rank))
    if not has_steps(layer):
        return AXES[:rank]
    return tuple(reversed(AXES)) if time_first(layer) and rank == 2 else AXES[2 - rank :]


def alone(dy: Any, axis: int, name: str, with_carry: bool) -> list[Any]:
    """dy at each index of an axis of y alone. A carry's gradient is split by example, or goes with the last step."""
    y, dcarry = dy if with_carry else (dy, None)
    n = y.shape[axis]

    def only(leaf: Any, axis: int, index: int) -> Any:
        places = jnp.arange(leaf.shape[axis]).reshape([-1 if k == axis else 1 for k in range(leaf.ndim)])
        return jnp.where(places == index, leaf, 0.0)

    def carried(index: int) -> Any:
        if name == "time":
            return jax.tree.map(lambda leaf: leaf if index == n - 1 else jnp.zeros_like(leaf), dcarry)
        return jax.tree.map(lambda leaf: only(leaf, max(leaf.ndim - 2, 0), index), dcarry)

    parts = [only(y, axis, index) for index in range(n)]
    return [(part, carried(index)) for index, part in enumerate(parts)] if with_carry else parts


def _shared_axes(x: tuple[int, ...], y: tuple[int, ...]) -> int:
    """The number of leading axes that two shapes have in common."""
    shared = 0
    for a, b in zip(x, y, strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _sizes(x: Any, dy: Any, names: tuple[str, ...]) -> dict[str, float]:
    """The numbers by which a gradient may be wrongly scaled: the lengths of axes, and their products."""
    sizes: dict[str, float] = {}
    inputs = [(float_trees.text(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path({"x": x})]
    for name, leaf in [*inputs, ("y", dy)]:
        for k, n in enumerate(getattr(leaf, "shape", ())):
            axis = names[k] if k < len(names) else f"axis {k} of {name}"
            sizes[f"{axis} ({n})"] = float(n)
    if len(names) > 1:
        examples = math.prod(dy.shape[: len(names)])
        sizes[f"{' and '.join(names)} ({examples})"] = float(examples)
    if hasattr(dy, "size"):
        sizes[f"all of y ({dy.size})"] = float(dy.size)
    return sizes


def _layer_at(layer: Layer, path: str) -> str:
    """The layer to which a path in params belongs."""
    if not path.startswith("params"):
        return ""
    for index in re.findall(r"\[(\d+)\]", path):
        while layer.info.unwrapped:
            (layer,) = layer.info.children
        if int(index) >= len(layer.info.children):
            break
        layer = layer.info.children[int(index)]
    return repr(layer)
