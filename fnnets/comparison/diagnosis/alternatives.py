"""The gradients that common mistakes give: the same function, with one derivative altered at a time.

A derivation that forgets a factor f' treats f as if its slope were 1; a derivation that misses a term treats an operand
as a constant. Each such mistake gives the exact gradient of an altered function. So the altered gradients can be
computed and compared with a wrong one; a match names the mistake.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnnets.comparison import float_trees
from fnnets.comparison.diagnosis.shifted import SHAPE_ONLY, Partners, Shift
from fnnets.core import recording
from fnnets.core.layer import Layer
from fnnets.core.programs import scan_parts

Plain = Callable[[Any, Any], Any]

LARGEST = 20_000_000  # the most numbers that all alternatives together may hold
INLINED = ("jit", "pjit", "closed_call")
NAMES = {"logistic": "sigmoid", "integer_pow": "power"}


class Alternative(NamedTuple):
    """A mistake, and the gradient that it gives."""

    kind: str  # "missing derivative", "missing term", "missing sum" or "wrong step"
    text: str
    gradient: dict[str, np.ndarray]


class _Sites:
    """Numbers the places of a function that can be altered, and alters the chosen one.

    `chosen` may be traced, so one compiled program computes every alternative.
    """

    def __init__(self, chosen: jax.Array) -> None:
        self.chosen = chosen
        self.named: dict[tuple[str, str], int] = {}
        self.calls: collections.Counter[str] = collections.Counter()

    def label(self, name: str) -> str:
        """A primitive's name, with the number of the call from the second call on."""
        self.calls[name] += 1
        return name if self.calls[name] == 1 else f"{name} (its call number {self.calls[name]})"

    def slope_one(self, name: str, x: jax.Array, y: jax.Array) -> jax.Array:
        altered = x + jax.lax.stop_gradient(y - x)
        return jnp.where(
            self._is_chosen("missing derivative", f"the derivative of {name} is missing"), altered, y
        )

    def cut(self, what: str, x: jax.Array) -> jax.Array:
        if not _is_float(x):
            return x
        altered = jax.lax.stop_gradient(x)
        return jnp.where(self._is_chosen("missing term", f"the term through {what} is missing"), altered, x)

    def at(self, here: jax.Array, where: str, x: jax.Array) -> jax.Array:
        """x; if chosen, without its gradient except where `here` is True."""
        if not _is_float(x):
            return x
        altered = jnp.where(here, x, jax.lax.stop_gradient(x))
        return jnp.where(
            self._is_chosen("missing sum", f"only {where} counts: the sum over its steps is missing"),
            altered,
            x,
        )

    def shift(self, label: str) -> Shift:
        late = f"one step late: {label} pairs each step's gradient with the state after it, not before it"
        off = f"one step off: {label} pairs each step's gradient with the values of the step"
        texts = (late, f"{off} before", f"{off} after")
        return Shift(*(self._is_chosen("wrong step", text) for text in texts))

    def _is_chosen(self, kind: str, text: str) -> jax.Array:
        # By name, since a scan may trace its body more than once.
        return self.chosen == self.named.setdefault((kind, text), len(self.named))


def of_layers(plain: Plain, point: Any, fixed: Any, dy: Any) -> list[Alternative]:
    """The gradients with one child layer altered: an activation has slope 1, or a layer is cut off."""

    def altered(sites: _Sites, point: Any, fixed: Any) -> Any:
        def alter(path: str, layer: Layer, x: Any, y: Any) -> Any:
            if not isinstance(y, jax.Array) or not _is_float(y):
                return y
            y = sites.cut(f"layer {path} ({layer})", y)
            same = isinstance(x, jax.Array) and x.shape == y.shape and x.dtype == y.dtype
            return sites.slope_one(f"layer {path} ({layer})", x, y) if same and not layer.info.children else y

        with recording.altering(alter):
            return plain(point, fixed)

    return _gradients(altered, point, fixed, dy)


def of_equations(plain: Plain, point: Any, fixed: Any, dy: Any) -> list[Alternative]:
    """The gradients with one primitive equation altered: a function has slope 1, or an operand is cut off."""
    jaxpr = jax.make_jaxpr(plain)(point, fixed)
    structure: Any = jax.tree.structure(jax.eval_shape(plain, point, fixed))

    def altered(sites: _Sites, point: Any, fixed: Any) -> Any:
        inputs = jax.tree_util.tree_leaves_with_path((point, fixed))
        leaves, names = [leaf for _, leaf in inputs], [float_trees.text(path[1:]) for path, _ in inputs]
        return structure.unflatten(_evaluate(jaxpr, leaves, sites, names))

    return _gradients(altered, point, fixed, dy)


def _gradients(altered: Callable[..., Any], point: Any, fixed: Any, dy: Any) -> list[Alternative]:
    """The gradient with each site altered, in one compiled loop."""
    named: dict[tuple[str, str], int] = {}

    def gradient(chosen: jax.Array, point: Any, fixed: Any, dy: Any) -> Any:
        sites = _Sites(chosen)
        pulled = jax.vjp(lambda point: altered(sites, point, fixed), point)[1](dy)[0]
        named.update(sites.named)
        return pulled

    jax.eval_shape(gradient, jnp.int32(0), point, fixed, dy)
    size = sum(leaf.size for leaf in jax.tree.leaves(point))
    if not named or len(named) * size > LARGEST:
        return []
    every = jnp.arange(len(named))
    stacked = jax.jit(lambda *args: jax.lax.map(lambda k: gradient(k, *args), every))(point, fixed, dy)
    gradients = float_trees.by_path(stacked)
    return [
        Alternative(kind, text, {path: leaf[k] for path, leaf in gradients.items()})
        for (kind, text), k in named.items()
    ]


def _evaluate(
    closed: Any,
    inputs: list[Any],
    sites: _Sites,
    origins: list[str] | None = None,
    partners: Partners | None = None,
) -> list[Any]:
    """Evaluates a jaxpr, with every differentiable equation as a site; `partners` only inside a scan."""
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))
    origin: dict[Any, str] = dict(zip(jaxpr.invars, origins or (), strict=False))

    def read(atom: Any) -> Any:
        return atom.val if _is_literal(atom) else values[atom]

    def source(atom: Any) -> str:
        return "a constant" if _is_literal(atom) else origin.get(atom, "an input")

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        sources = [source(atom) for atom in equation.invars]
        kind, label = equation.primitive.name, ""
        if kind in INLINED:
            label, called = str(equation.params.get("name", kind)), equation.params["jaxpr"]
            inner = partners and partners.inside(equation.invars, called.jaxpr.invars)
            results = _evaluate(called, operands, sites, sources, inner)
        elif kind == "scan":
            label = sites.label("scan")
            results = _scan(equation, operands, label, sites, sources)
        else:
            # An equation that only changes the shape is named after its operand.
            label = sources[0] if kind in SHAPE_ONLY and sources else sites.label(_name(equation))
            operands = _cut_operands(equation, operands, label, sources, sites)
            results = _unary(equation, operands, _bind(equation, operands), label, sites)
            results = results if partners is None else partners.pair(equation, operands, results)
        for variable, result in zip(equation.outvars, results, strict=True):
            values[variable] = result
            origin[variable] = label
    return [read(atom) for atom in jaxpr.outvars]


def _scan(equation: Any, inputs: list[Any], label: str, sites: _Sites, sources: list[str]) -> list[Any]:
    """A scan with sites in its body, and three of its own: the last step alone, a cut carry, a step off by one."""
    body, length, reverse = (equation.params[name] for name in ("jaxpr", "length", "reverse"))
    shared, carried = scan_parts(equation)
    consts, start, rows = inputs[:shared], inputs[shared : shared + carried], inputs[shared + carried :]
    ends = (length - 1, 0) if reverse else (0, length - 1)
    variables, shift = body.jaxpr.invars, sites.shift(label)

    def next_states(carry: list[Any], row: Any) -> tuple[list[Any], list[Any]]:
        results = _evaluate(body, [*consts, *carry, *row], _Sites(jnp.int32(-1)))
        return results[:carried], results[:carried]

    def step(carry: list[Any], now: Any) -> tuple[list[Any], list[Any]]:
        t, row, others = now
        first_step, last_step = (t == end for end in ends)
        parts = [*(shift.shared(const, first_step, last_step) for const in consts), *row]
        own = [sites.at(last_step, f"the last step of {label}", part) for part in parts]
        state = [sites.cut(f"the carry of {label} (number {i})", part) for i, part in enumerate(carry)]
        others = dict(zip(variables[shared:], others, strict=True))
        partners = Partners(shift, others, set(variables[:shared]), _bind)
        results = _evaluate(body, [*own[:shared], *state, *own[shared:]], sites, sources, partners)
        return results[:carried], results[carried:]

    _, after = jax.lax.scan(next_states, start, rows, length, reverse=reverse)
    others = [shift.states(one, each, reverse) for one, each in zip(start, after, strict=True)]
    others += [shift.partner_rows(each, reverse) for each in rows]
    rows = [shift.rows(each, reverse) for each in rows]
    carry, results = jax.lax.scan(step, start, (jnp.arange(length), rows, others), length, reverse=reverse)
    return [*carry, *results]


def _name(equation: Any) -> str:
    """The usual name of a primitive; for a custom derivative, the name of its function."""
    name = equation.primitive.name
    inner: Any = getattr(equation.params.get("call_jaxpr"), "eqns", ())
    if len(inner) == 1:
        name = inner[0].params.get("name", name)
    return str(equation.params.get("name") or NAMES.get(name, name))


def _bind(equation: Any, operands: list[Any]) -> list[Any]:
    results = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
    return results if equation.primitive.multiple_results else [results]


def _cut_operands(
    equation: Any, operands: list[Any], label: str, sources: list[str], sites: _Sites
) -> list[Any]:
    """The operands, each with a site that cuts it off; only where there are several."""
    live = [i for i, atom in enumerate(equation.invars) if not _is_literal(atom) and _is_float(operands[i])]
    if len(live) < 2:
        return operands
    operands = list(operands)
    for i in live:
        operands[i] = sites.cut(f"operand {i} ({sources[i]}) of {label}", operands[i])
    return operands


def _unary(equation: Any, operands: list[Any], results: list[Any], label: str, sites: _Sites) -> list[Any]:
    """The results; those of a function of one operand have a site that gives it slope 1."""
    live = [x for atom, x in zip(equation.invars, operands, strict=True) if not _is_literal(atom)]
    if len(live) != 1 or len(results) != 1 or equation.primitive.name in SHAPE_ONLY:
        return results
    x, y = live[0], results[0]
    if not (_is_float(x) and _is_float(y)) or jnp.shape(x) != jnp.shape(y):
        return results
    return [sites.slope_one(label, x, y)]


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))


def _is_literal(atom: Any) -> bool:
    """Whether an atom of a jaxpr is a literal; asking for `val` avoids an import of `jax.extend`."""
    return hasattr(atom, "val")
