"""Values from inside a computation: tagged where they arise, collected through jax's transformations.

A tag is an equation y = y with a name. `harvest` traces a computation with tags to a jaxpr and evaluates it equation
by equation: it collects the value of each tag, or adds something to it. It enters the equations around a tag:

    jit, checkpoint, custom derivatives    evaluated in place
    scan                                   scanned again, with the tagged values as further outputs, steps first
    vmap                                   already gone in the jaxpr; the value has the examples first

A value cannot leave a branch of `cond`, the body of a `while_loop` or a part of a `shard_map`: this is an error.
No tracer reaches Python from inside a transformation, where it would outlive its trace.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core.programs import scan_parts

try:  # jax says that these may move
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

Name = tuple[str, str]  # the path of the call, and the name of the value


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["front"])
@dataclass(frozen=True)
class Tagged:
    """A tagged value, and what put axes in front of it ("scan" or "vmap"), the outermost last."""

    value: Any
    front: tuple[str, ...]


Harvest = dict[Name, Tagged]

# The equations that are entered, and the parameters in which they hold their jaxpr.
ENTERED = ("jit", "pjit", "checkpoint", "remat", "remat2", "closed_call", "core_call", "custom_jvp_call",
           "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")  # fmt: skip
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def tag(name: Name, value: Any) -> Any:
    """Returns the value, a tree of arrays, with a name for `harvest`."""
    if MISSING:
        raise ImportError(
            f"recording: it needs parts of jax that jax {jax.__version__} has moved: {MISSING}."
        )
    leaves, structure = jax.tree.flatten(value)
    return jax.tree.unflatten(
        structure, _tag.bind(*map(jnp.asarray, leaves), name=name, structure=structure, front=())
    )


def harvest(
    function: Callable[..., Any], *args: Any, added: dict[Name, Any] | None = None
) -> tuple[Any, Harvest]:
    """`function(*args)`, and the tagged values inside by name, in the order of computation.

    Args:
      function: a function with tags inside.
      args: its arguments, trees of arrays.
      added: by name, an addend for a tagged value, in the shape that the harvest has. The gradient of a value inside
        is the gradient with respect to zeros added to it.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    results, harvested = _evaluate(program.jaxpr, program.consts, jax.tree.leaves(args), added or {})
    return jax.tree.unflatten(jax.tree.structure(shapes), results), harvested


def _evaluate(
    jaxpr: Any, consts: list[Any], args: list[Any], added: dict[Name, Any]
) -> tuple[list[Any], Harvest]:
    """The results of a jaxpr, and its tagged values."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    harvested: Harvest = {}

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]  # a literal holds its value

    for equation in jaxpr.eqns:
        inputs = list(map(read, equation.invars))
        if equation.primitive is _tag:
            results, inner = _at_tag(equation, inputs, added)
        elif names := list(dict.fromkeys(_names(equation))):
            results, inner = _inside(equation, inputs, added, names)
        else:
            results, inner = _bind(equation, inputs), {}
        harvested |= inner
        values |= zip(equation.outvars, results, strict=True)
    return list(map(read, jaxpr.outvars)), harvested


def _at_tag(equation: Any, inputs: list[Any], added: dict[Name, Any]) -> tuple[list[Any], Harvest]:
    name, structure, front = (equation.params[key] for key in ("name", "structure", "front"))
    if name in added:
        addends = jax.tree.leaves(added[name])
        inputs = [value + addend for value, addend in zip(inputs, addends, strict=True)]
    return inputs, {name: Tagged(structure.unflatten(inputs), front)}


def _inside(
    equation: Any, inputs: list[Any], added: dict[Name, Any], names: list[Name]
) -> tuple[list[Any], Harvest]:
    """The results of an equation with tags inside, and its tagged values."""
    kind = equation.primitive.name
    if kind == "scan":
        return _scan(equation, inputs, {name: added[name] for name in names if name in added})
    body = next((equation.params[name] for name in BODIES if name in equation.params), None)
    if kind not in ENTERED or body is None:
        raise ValueError(
            f"values inside {kind} cannot be recorded: {', '.join(map(str, names))}; call the layer "
            f"outside of {kind}, or inside jit, jax.checkpoint, jax.lax.scan or jax.vmap."
        )
    return _evaluate(getattr(body, "jaxpr", body), getattr(body, "consts", []), inputs, added)


def _scan(equation: Any, inputs: list[Any], added: dict[Name, Any]) -> tuple[list[Any], Harvest]:
    """The results of a scan, with its tagged values as further outputs and the addends as further inputs."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    shared, carried = scan_parts(equation)
    consts, start, rows = inputs[:shared], inputs[shared : shared + carried], inputs[shared + carried :]

    def step(carry: list[Any], row: Any) -> Any:
        own, addends = row
        results, harvested = _evaluate(body.jaxpr, body.consts, [*consts, *carry, *own], addends)
        return results[:carried], (results[carried:], harvested)

    end, (outputs, harvested) = jax.lax.scan(
        step,
        start,
        (rows, added),
        length,
        reverse=equation.params["reverse"],
        unroll=equation.params["unroll"],
    )
    return [*end, *outputs], {
        name: dataclasses.replace(tagged, front=(*tagged.front, "scan")) for name, tagged in harvested.items()
    }


def _names(equation: Any) -> Iterator[Name]:
    """The names of the tags inside an equation."""
    for inner in _jaxprs(tuple(equation.params.values())):
        for each in inner.eqns:
            if each.primitive is _tag:
                yield each.params["name"]
            else:
                yield from _names(each)


def _jaxprs(value: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    if isinstance(value, tuple | list):
        for each in value:
            yield from _jaxprs(each)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(getattr(value, "jaxpr", None), "eqns"):
        yield value.jaxpr


def _bind(equation: Any, inputs: list[Any]) -> list[Any]:
    results = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
    return results if equation.primitive.multiple_results else [results]


def _batched(args: list[Any], axes: list[int | None], *, front: tuple[str, ...], **params: Any) -> Any:
    """A tag under vmap: every part of the value gets the examples first, even a part that they share."""
    (size,) = {arg.shape[axis] for arg, axis in zip(args, axes, strict=True) if axis is not None}
    batched = [
        jnp.broadcast_to(arg, (size, *arg.shape)) if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args, axes, strict=True)
    ]
    return _tag.bind(*batched, front=(*front, "vmap"), **params), [0] * len(args)


def _identity(*args: Any, **params: Any) -> list[Any]:
    del params
    return list(args)


if not MISSING:
    _tag = Primitive("fnnets_tag")
    _tag.multiple_results = True
    _tag.def_impl(_identity)
    _tag.def_abstract_eval(_identity)
    mlir.register_lowering(_tag, mlir.lower_fun(_identity))
    ad.primitive_jvps[_tag] = lambda primals, tangents, **params: (
        _tag.bind(*primals, **params),
        list(tangents),
    )
    batching.primitive_batchers[_tag] = _batched
