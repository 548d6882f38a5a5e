"""The contract: a layer is a named tuple of pure functions; two of them, forward and backward, are its gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from fnnets.core import checks

Array = jax.Array | np.ndarray  # what is taken for an array
Scalar = float | jax.Array  # a number, a traced one too
Key = jax.Array  # a random key
PyTree = Any  # arrays in nested tuples, lists and dicts; one array alone too
Params = PyTree  # what a layer learns, as its `init` gives them
Saved = PyTree  # what `forward` keeps for `backward`
Carry = PyTree  # what a layer hands on in time; None where it hands on nothing
Mask = PyTree  # bools, True where x counts, (…) of an x (…, D); a tuple where x is one; None where all counts


@jax.tree_util.register_static
@dataclass(frozen=True)
class Static:
    """A hashable value in `saved` that is not an array, such as a shape or a dtype.

    It is a pytree node without leaves, so it crosses jit, vmap and scan unchanged. Inside `vmap` it holds
    the shape that one example sees, which is the one that the backward needs there.
    """

    value: Any


class Recurrence(NamedTuple):
    """The cell of a recurrent layer, and its options."""

    cell: Any  # its `Cell`
    options: Any  # the arguments of `fn.recurrent`, by name


@dataclass(frozen=True)
class Info:
    """What is known of a layer before it runs: how to show it, and how it runs its children.

    A name is enough for most layers. A combinator also lists its children and says how it runs them; `fn.summary`,
    `fn.intermediates`, `fn.trace_backward`, `fn.locate_nan` and `fn.compare` need nothing else. A combinator calls
    its children through `apply_child`, `forward_child` and `backward_child` of `fnnets.core.children`.

    Args:
      name: the factory's name, such as `dense`.
      settings: the factory's arguments by name, to be shown.
      children: the layers that this one calls. Its params are a tuple of theirs, in this order.
      label: the layer as code, such as `dense(8, use_bias=False)`.
      unwrapped: whether the params are the params of the only child, not a tuple of one.
      copies: how many copies of its children the layer runs one after another, each with its own params, as
        `fn.stack` does in a scan. Every leaf of params, and every value inside, then has the copies as first axis.
      reversed_children: the indices of the children that read the sequence from its end, such as `(1,)`.
      sequence: whether the layer only runs its children one after another; a summary then shows the children alone.
      time_major: whether the first axis of x is time; None if the children decide.
      recurrence: the cell and its options, if the layer comes from `fn.recurrent`.
      saturates_at: the lower and the upper end of an activation that saturates at both, such as `(-1.0, 1.0)`.

    Raises:
      ValueError: a field does not fit the children, or the range is empty.

    Example:
      A layer that reads a sequence from its end:

      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> from fnnets.core import children
      >>> def backwards(layer):
      ...     info = fn.Info("backwards", children=(layer,), unwrapped=True, reversed_children=(0,))
      ...     mode = {"key": None, "train": False, "mask": None}
      ...     def apply(params, x):
      ...         return jnp.flip(children.apply_child(info, 0, layer, params, jnp.flip(x, -2), **mode), -2)
      ...     def forward(params, x):
      ...         y, _, saved = children.forward_child(info, 0, layer, params, jnp.flip(x, -2), None, **mode)
      ...         return jnp.flip(y, -2), saved
      ...     def backward(params, saved, dy):
      ...         dy = jnp.flip(dy, -2)
      ...         dparams, dx, _ = children.backward_child(info, 0, layer, params, saved, dy, None)
      ...         return dparams, jnp.flip(dx, -2)
      ...     return fn.layer(layer.init, apply, forward, backward, name=info)
      >>> net, x = backwards(fn.elman(3)), jnp.ones((4, 7, 2))
      >>> params = net.init(jax.random.key(0), x)
      >>> print(fn.locate_nan(net, params._replace(w=1e30 * params.w), x.at[0, 5].set(1e30)))
      forward: z[0, 1, 0] of 0.elman, step 5 of x, which it reads from the end, is ...
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    children: tuple[Layer, ...] = ()
    label: str = ""
    unwrapped: bool = False
    copies: int | None = None
    reversed_children: tuple[int, ...] = ()
    sequence: bool = False
    time_major: bool | None = None
    recurrence: Recurrence | None = field(default=None, hash=False, compare=False)
    saturates_at: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        who, number = f"Info({self.name!r})", len(self.children)
        if self.copies is not None:
            checks.positive(who, copies=self.copies)
        if self.unwrapped and number != 1:
            raise ValueError(
                f"{who}: unwrapped=True needs one child, whose params are the layer's, got {number} children; "
                "leave it out, and make params a tuple with one entry for each child."
            )
        if not set(self.reversed_children) <= set(range(number)):
            allowed = (
                f"indices of its children, from 0 to {number - 1}" if number else "empty without children"
            )
            raise ValueError(
                f"{who}: reversed_children must be {allowed}, got {self.reversed_children}; list the reversed "
                "layers in children too."
            )
        if self.saturates_at is not None and not self.saturates_at[0] < self.saturates_at[1]:
            raise ValueError(
                f"{who}: saturates_at must be the lower and the upper end of a range, got {self.saturates_at}; "
                "leave it out if there is no such range."
            )

    def __str__(self) -> str:
        """The layer in an error: in full, except for networks, which can be long."""
        return f"{self.name}(…)" if self.children else self.label or self.name


class Layer(NamedTuple):
    """A layer: pure functions of its parameters and its input, with the gradient derived by hand.

    `y = apply(params, x)` is the textbook equation. `forward` computes the same `y` and stores
    in `saved` what the derivation needs. `backward` is the derivation: it maps dy, the gradient
    of a scalar E with respect to y, to dparams and dx.

    Attributes:
      init: `(key, x) -> params`; x is an array or a `jax.ShapeDtypeStruct` (or a pytree of them).
      apply: `(params, x, *, key=None, train=False, mask=None) -> y`.
      forward: `(params, x, carry=None, *, key=None, train=False, mask=None) -> (y, carry, saved)`.
      backward: `(params, saved, dy, dcarry=None) -> (dparams, dx, dcarry)`; dx is None where x
        holds integers.
      update_stats: `(params, saved) -> params`, with the moving statistics updated by this batch.
      info: the layer's name, settings and children.
      tangent: optional, forward mode by hand: `(params, saved, dparams, dx, dcarry=None) -> (dy, dcarry)`. Here d∗
        is a change of ∗, and dy is the change of y, to first order, when params, x and the first carry change: the
        transpose of `backward`. None where a layer does not offer it.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.dense(3)
      >>> params = net.init(jax.random.key(0), jnp.ones((4, 2)))
      >>> net.apply(params, jnp.ones((4, 2))).shape
      (4, 3)
      >>> y, carry, saved = net.forward(params, jnp.ones((4, 2)))
      >>> dparams, dx, dcarry = net.backward(params, saved, jnp.ones((4, 3)))
      >>> dparams.w.shape, dx.shape
      ((2, 3), (4, 2))
    """

    init: Callable[..., Params]
    apply: Callable[..., PyTree]
    forward: Callable[..., tuple[PyTree, Carry, Saved]]
    backward: Callable[..., tuple[Params, PyTree, Carry]]
    update_stats: Callable[[Params, Saved], Params]
    info: Info
    tangent: Callable[..., tuple[PyTree, Carry]] | None = None

    def __repr__(self) -> str:
        return self.info.label or self.info.name


checks.not_a_function(Layer, "net.apply(params, x), with params = net.init(key, x)")


def no_params(key: Key | None, x: PyTree) -> tuple[()]:
    """The `init` of a layer without params."""
    del key, x
    return ()


def keep_stats(params: Params, saved: Saved) -> Params:
    """The `update_stats` of a layer without moving statistics."""
    del saved
    return params


def describe(
    factory: Callable[..., Any],
    *,
    children: tuple[Layer, ...] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> Info:
    """The Info of a layer that `factory` makes; its label shows required arguments bare, others if changed.

    `defaults` are those of settings that the factory takes as `**keywords`.
    """
    parameters = inspect.signature(factory).parameters
    shown = [repr(child) for child in children]
    for name, value in settings.items():
        default = defaults[name] if name in defaults else parameters[name].default
        if default is inspect.Parameter.empty:
            shown.append(repr(value))
        elif (isinstance(value, Layer) or not callable(value)) and value != default:
            shown.append(f"{name}={value!r}")
    return Info(factory.__name__, settings, children, f"{factory.__name__}({', '.join(shown)})")


def layer(
    init: Callable[..., Params],
    apply: Callable[..., PyTree],
    forward: Callable[..., tuple[PyTree, Saved]],
    backward: Callable[[Params, Saved, PyTree], tuple[Params, PyTree]],
    *,
    tangent: Callable[[Params, Saved, Params, PyTree], PyTree] | None = None,
    name: str | Info = "layer",
) -> Layer:
    """Makes a `Layer` from four short functions, with no carry and no moving statistics.

    Formula: with y = apply(params, x) and E a scalar, backward maps dy = ∂E/∂y to
    dparams = ∂E/∂params and dx = ∂E/∂x.

    Args:
      init: `(key, x) -> params`.
      apply: `(params, x) -> y`, the plain equation. It may also take `key`, `train` or `mask` as keyword arguments.
      forward: `(params, x) -> (y, saved)`, the same y and what `backward` needs; it may take the same keywords.
        saved is a tree of arrays; wrap a shape, a string or anything else that is not an array in `fn.Static(value)`.
      backward: `(params, saved, dy) -> (dparams, dx)`, trees with the shapes of params and x.
      tangent: optional, `(params, saved, dparams, dx) -> dy`: the change of y, to first order, when params change by
        dparams and x by dx.
      name: the layer's name in errors and tables; or an `Info`, as for a combinator.

    Returns:
      The `Layer`. A NamedTuple of params may name the equal blocks of a field's last axis in a class
      attribute, such as `blocks = {"w": ("value", "gate")}`; reports use these names.

    Raises:
      TypeError: forward or backward does not return a pair, or a carry is passed in.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> scale = fn.layer(
      ...     init=lambda key, x: jnp.ones(x.shape[-1]),
      ...     apply=lambda a, x: a * x,
      ...     forward=lambda a, x: (a * x, x),
      ...     backward=lambda a, x, dy: ((dy * x).sum(0), dy * a),
      ...     name="scale",
      ... )
      >>> x = jax.random.normal(jax.random.key(1), (4, 3))
      >>> fn.compare(scale, scale.init(jax.random.key(0), x), x).ok
      True
    """
    info = name if isinstance(name, Info) else Info(name)
    apply_takes, forward_takes = _mode_arguments(apply), _mode_arguments(forward)

    def lifted_apply(
        params: Params, x: PyTree, *, key: Key | None = None, train: bool = False, mask: Mask = None
    ) -> Any:
        mode = {"key": key, "train": train, "mask": mask}
        return apply(params, x, **{name: mode[name] for name in apply_takes})

    def lifted_forward(
        params: Params,
        x: PyTree,
        carry: Carry = None,
        *,
        key: Key | None = None,
        train: bool = False,
        mask: Mask = None,
    ) -> tuple[Any, Carry, Saved]:
        checks.no_carry(info, carry)
        mode = {"key": key, "train": train, "mask": mask}
        y, saved = checks.pair(
            info, "forward", "(y, saved)", forward(params, x, **{name: mode[name] for name in forward_takes})
        )
        return y, None, saved

    def lifted_backward(
        params: Params, saved: Saved, dy: PyTree, dcarry: Carry = None
    ) -> tuple[Params, Any, Carry]:
        checks.no_carry(info, dcarry)
        dparams, dx = checks.pair(info, "backward", "(dparams, dx)", backward(params, saved, dy))
        return dparams, dx, None

    def lifted_tangent(
        params: Params, saved: Saved, dparams: Params, dx: PyTree, dcarry: Carry = None
    ) -> tuple[Any, Carry]:
        checks.no_carry(info, dcarry)
        assert tangent is not None
        return tangent(params, saved, dparams, dx), None

    functions = (lifted_apply, lifted_forward, lifted_backward, keep_stats, info)
    return named(Layer(init, *functions, tangent=None if tangent is None else lifted_tangent))


def named(layer: Layer) -> Layer:
    """Names a layer's functions after it, so that Python's own errors (a misspelt keyword) name the layer."""
    for function in ("apply", "forward", "backward"):
        getattr(layer, function).__qualname__ = f"{layer.info}.{function}"
    return layer


def _mode_arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters
    return tuple(name for name in ("key", "train", "mask") if name in parameters)
