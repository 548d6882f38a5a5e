"""Values from inside a computation: tagged where they arise, brought out whatever stands around them.

A tag is an equation y = y that knows a name. A computation with tags is traced to a jaxpr, and the jaxpr is
evaluated equation by equation: a tag's value is kept, or something is added to it. What stands around a tag is
entered on the way:

    jit, checkpoint, custom derivatives    evaluated in their place
    scan                                   scanned again, with what was kept as a further output: the steps first
    vmap                                   is gone by then: the value has the examples first

Where a value cannot come out (a branch of `cond`, the body of a `while_loop`, a part of a `shard_map`) an error says so.
No tracer is ever handed to Python from inside a transformation, where it would outlive its trace.
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

try:  # where jax documents that its parts may move
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

Name = tuple[str, str]  # where, and what


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["front"])
@dataclass(frozen=True)
class Found:
    """A tagged value, and what has put axes in front of it, the one in the very front last: "scan" or "vmap"."""

    value: Any
    front: tuple[str, ...]


Kept = dict[Name, Found]

# Where a computation is entered, by the name of the equation that holds it, and where its jaxpr is found.
ENTERED = ("jit", "pjit", "checkpoint", "remat", "remat2", "closed_call", "core_call", "custom_jvp_call",
           "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")  # fmt: skip
BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def tag(name: Name, value: Any) -> Any:
    """The value, a tree of arrays, under a name by which `harvest` finds it."""
    if MISSING:
        raise ImportError(f"recording needs parts that jax {jax.__version__} has moved: {MISSING}.")
    leaves, structure = jax.tree.flatten(value)
    return jax.tree.unflatten(
        structure, _tag.bind(*map(jnp.asarray, leaves), name=name, structure=structure, front=())
    )


def harvest(
    function: Callable[..., Any], *args: Any, added: dict[Name, Any] | None = None
) -> tuple[Any, Kept]:
    """`function(*args)`, and the values that were tagged inside, by name, in the order in which they arose.

    Args:
      function: what is computed.
      args: trees of arrays.
      added: by name, what is added to a tagged value before the computation goes on with it, in the shapes that
        a harvest finds: to know the gradient of a value inside, add zeros and differentiate with respect to them.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    results, kept = _evaluate(program.jaxpr, program.consts, jax.tree.leaves(args), added or {})
    return jax.tree.unflatten(jax.tree.structure(shapes), results), kept


def _evaluate(
    jaxpr: Any, consts: list[Any], args: list[Any], added: dict[Name, Any]
) -> tuple[list[Any], Kept]:
    """The results of a jaxpr, and what was kept."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    kept: Kept = {}

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]  # a literal has its value with it

    for equation in jaxpr.eqns:
        given = list(map(read, equation.invars))
        if equation.primitive is _tag:
            results, found = _at_tag(equation, given, added)
        elif names := list(dict.fromkeys(_names(equation))):
            results, found = _inside(equation, given, added, names)
        else:
            results, found = _bind(equation, given), {}
        kept |= found
        values |= zip(equation.outvars, results, strict=True)
    return list(map(read, jaxpr.outvars)), kept


def _at_tag(equation: Any, given: list[Any], added: dict[Name, Any]) -> tuple[list[Any], Kept]:
    name, structure, front = (equation.params[key] for key in ("name", "structure", "front"))
    if name in added:
        given = [value + more for value, more in zip(given, jax.tree.leaves(added[name]), strict=True)]
    return given, {name: Found(structure.unflatten(given), front)}


def _inside(
    equation: Any, given: list[Any], added: dict[Name, Any], names: list[Name]
) -> tuple[list[Any], Kept]:
    """An equation with tags inside."""
    kind = equation.primitive.name
    if kind == "scan":
        return _scan(equation, given, {name: added[name] for name in names if name in added})
    body = next((equation.params[name] for name in BODIES if name in equation.params), None)
    if kind not in ENTERED or body is None:
        raise ValueError(
            f"what is computed inside {kind} cannot be recorded: {', '.join(map(str, names))}; call the layer "
            "outside of it, or under jit, jax.checkpoint, jax.lax.scan or jax.vmap."
        )
    return _evaluate(getattr(body, "jaxpr", body), getattr(body, "consts", []), given, added)


def _scan(equation: Any, given: list[Any], added: dict[Name, Any]) -> tuple[list[Any], Kept]:
    """A scan with what its body kept as a further output, and what is added as a further input."""
    body, length = equation.params["jaxpr"], equation.params["length"]
    held, carried = scan_parts(equation)
    consts, start, rows = given[:held], given[held : held + carried], given[held + carried :]

    def step(carry: list[Any], row: Any) -> Any:
        own, more = row
        results, kept = _evaluate(body.jaxpr, body.consts, [*consts, *carry, *own], more)
        return results[:carried], (results[carried:], kept)

    end, (outputs, kept) = jax.lax.scan(
        step,
        start,
        (rows, added),
        length,
        reverse=equation.params["reverse"],
        unroll=equation.params["unroll"],
    )
    return [*end, *outputs], {
        name: dataclasses.replace(one, front=(*one.front, "scan")) for name, one in kept.items()
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


def _bind(equation: Any, given: list[Any]) -> list[Any]:
    results = equation.primitive.bind(*given, **equation.primitive.get_bind_params(equation.params))
    return results if equation.primitive.multiple_results else [results]


def _batched(args: list[Any], axes: list[int | None], *, front: tuple[str, ...], **params: Any) -> Any:
    """Under vmap: every part of the value has the examples first, those that all share too."""
    (size,) = {arg.shape[axis] for arg, axis in zip(args, axes, strict=True) if axis is not None}
    spread = [
        jnp.broadcast_to(arg, (size, *arg.shape)) if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args, axes, strict=True)
    ]
    return _tag.bind(*spread, front=(*front, "vmap"), **params), [0] * len(args)


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
