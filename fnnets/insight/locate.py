"""Finds the first value that is not finite, forward or backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import recording
from fnnets.core.layer import Layer
from fnnets.gradients.custom_derivatives import plain_equations
from fnnets.insight.layer_paths import Place, indices, place_of
from fnnets.insight.non_finite import END, Along, NonFinite, Order, Value, Where, first
from fnnets.insight.trace import in_blocks, leaves, stages_of
from fnnets.rnn.step_records import Stepped, Traced


def locate_nan(
    net: Layer,
    params: Any,
    x: Any,
    target: Any = None,
    loss: Any = None,
    *,
    dy: Any = None,
    carry: Any = None,
    key: Any = None,
    train: bool = False,
    mask: Any = None,
    loss_mask: Any = None,
    when: Any = None,
) -> NonFinite:
    """Finds the first value, in the order of computation, that is not finite.

    It checks, in this order:

        input     params, x, carry, target, dy
        forward   y, layer by layer; in a recurrent layer before it z for all steps (in blocks: z_i, z_f, …), then
                  step by step the gates (i, f, g, o) and the carry (c, h); at the end the last carry
        loss      per_example, value, dy
        backward  dy, layer by layer; in a recurrent layer, from the last step to the first, dh, dc, dz_i, …,
                  dh_before, dc_before; the layer's part of dparams, and dx; at the end the gradient of the first carry

    z is a cell's projection of x; an overflow in h·u shows in the gates. Inside other layers it does not look.
    It costs a forward and a backward pass, and a check of every value; outside of jit every call compiles again. A
    compiled training step with `when=~jnp.isfinite(optax.tree.norm(grads))` is hardly slower, but needs more memory.

    Args:
      net: any layer or network.
      params: its parameters.
      x: its input.
      target: the loss's target.
      loss: a `Loss`, such as `fn.losses.mse()`. Without loss and dy only the forward pass is checked.
      dy: the gradient of y, instead of a loss.
      carry, key, train, mask: as in `net.forward`.
      loss_mask: the loss's own mask.
      when: a bool; if False, nothing is computed and everything counts as finite.

    Returns:
      A `NonFinite`. It is False if all values are finite; `str` names direction, layer (by its path), quantity, index,
      time step and, in a `stack`, the copy. Padding does not count. Under jit, vmap and scan it is decoded outside.
      In a layer that reads x from its end, the index of a step counts from the end, but `step` is that of x.

    Raises:
      TypeError: a target without a loss, a loss without a target, or a loss and dy.
      ValueError: the layers or the loss refuse their input.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> root = fn.layer(
      ...     init=lambda key, x: (),
      ...     apply=lambda params, x: jnp.sqrt(x),
      ...     forward=lambda params, x: (jnp.sqrt(x), jnp.sqrt(x)),
      ...     backward=lambda params, y, dy: ((), dy / (2 * y)),
      ...     name="root",
      ... )
      >>> net = fn.serial(fn.relu(), root, fn.dense(1))
      >>> x, target = jnp.array([[4.0, 1.0], [9.0, -1.0]]), jnp.zeros((2, 1))
      >>> params = net.init(jax.random.key(0), x)
      >>> find = jax.jit(lambda params, x: fn.locate_nan(net, params, x, target, fn.losses.mse()))
      >>> bool(find(params, jnp.abs(x)))
      False
      >>> print(find(params, x))
      backward: dx[1, 1] of 1.root is ..., the first that is not finite
      >>> print(find(params, x.at[0, 0].set(jnp.nan)))
      x[0, 0] is nan before anything was computed
      >>> print(find((*params[:2], params[2]._replace(b=jnp.array([jnp.inf]))), x))
      params[2].b[0] is inf before anything was computed

    Differences: `jax_debug_nans` runs the step again operation by operation, names the operation that gave a NaN, but
    no layer, and stops the program; it is a global setting. `checkify` checks operations under jit.
    """
    if (target is None) != (loss is None) or (loss is not None and dy is not None):
        raise TypeError("locate_nan: give a target and a loss, or dy, or none of them.")

    def forward(params: Any, x: Any, carry: Any, key: Any, mask: Any) -> Any:
        y, carry, saved = net.forward(params, x, carry, key=key, train=train, mask=mask)
        recording.note("mask", mask)
        return recording.note("y", y), carry, saved

    def backward(params: Any, saved: Any, dy: Any) -> Any:
        dparams, dx, dcarry = net.backward(params, saved, dy)
        return dparams, recording.note("dx", dx), dcarry

    def search(inputs: dict[str, Any], key: Any, mask: Any, loss_mask: Any) -> NonFinite:
        masks = {"x": mask, "target": loss_mask}
        values = list(_inputs(inputs, masks))
        params, x, dy = inputs["params"], inputs["x"], inputs.get("dy")
        with plain_equations():
            (y, carry, saved), ahead = recording.collect(
                "values", forward, params, x, inputs.get("carry"), key, mask
            )
            values += _forward(net, ahead, carry)
            if loss is not None:
                of_loss, dy = _loss(loss, y, inputs["target"], loss_mask)
                values += of_loss
            if dy is not None:
                (dparams, _, dcarry), back = recording.collect("values", backward, params, saved, dy)
                values += _backward(net, ahead, back, dparams, dcarry)
        return first(values)

    named = {"params": params, "x": x, "carry": carry, "target": target, "dy": dy}
    inputs = {name: value for name, value in named.items() if value is not None}
    run = jax.jit(search)
    if when is None:
        return run(inputs, key, mask, loss_mask)
    finite = jax.eval_shape(run, inputs, key, mask, loss_mask)
    return jax.lax.cond(
        when,
        run,
        lambda *_: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), finite),
        *(inputs, key, mask, loss_mask),
    )


INPUT, FORWARD, LOSS, BACKWARD = range(4)  # the first number in an order


def _inputs(inputs: dict[str, Any], masks: dict[str, Any]) -> Iterator[Value]:
    """The values of the inputs."""
    for name, tree in inputs.items():
        structure: Any = jax.tree.structure(tree)
        mask = masks.get(name)
        parts = [None] * structure.num_leaves if mask is None else structure.flatten_up_to(mask)
        for (quantity, leaf), part in zip(_parts(name, tree), parts, strict=True):
            yield from _value((INPUT,), "input", "", quantity, leaf, part)


def _forward(net: Layer, ahead: dict[str, Any], carry: Any) -> Iterator[Value]:
    """The values of the forward pass, and the last carry."""
    for path, values in ahead.items():
        place, name = place_of(net, path), path or net.info.name
        order, mask = (FORWARD, *_route(net, path)), values.get("mask")
        if (steps := values.get("steps")) is not None:
            for when, quantity, leaf, time in _steps_forward(steps):
                yield from _value((*order, *when), "forward", name, quantity, leaf, mask, place, time)
        for quantity, leaf in _parts("y", values["y"]):
            yield from _value((*order, END), "forward", name, quantity, leaf, mask, place)
    for quantity, leaf in _parts("carry", carry):
        yield from _value((FORWARD, END, END), "forward", net.info.name, quantity, leaf)


def _steps_forward(steps: Stepped) -> Iterator[tuple[Order, str, Any, int]]:
    """The values of the steps of a recurrence: (order, name, values, time axis)."""
    time, blocks = steps.axis.value, dict(steps.blocks.value)
    for name, leaf in leaves(steps.z, "z").items():
        for quantity, part in in_blocks(name, leaf, blocks).items():
            yield (0,), quantity, part, time
    # A carry's first field, the output, is computed from the others.
    carry = dict(reversed(leaves(steps.after, "h").items()))
    for rank, (quantity, leaf) in enumerate([*steps.gates.items(), *carry.items()]):
        yield (1, Along(time), rank), quantity, leaf, time


def _loss(loss: Any, y: Any, target: Any, mask: Any) -> tuple[list[Value], Any]:
    """The values of the loss, and dy."""
    value, saved = loss.forward(y, target, mask)
    dy = loss.backward(saved)
    parts = [("per_example", loss.per_example(y, target), mask), ("value", value, None), ("dy", dy, None)]
    values = [
        value
        for rank, (name, leaf, own) in enumerate(parts)
        for value in _value((LOSS, rank), "loss", "", name, leaf, own)
    ]
    return values, dy


def _backward(
    net: Layer, ahead: dict[str, Any], back: dict[str, Any], dparams: Any, dcarry: Any
) -> Iterator[Value]:
    """The values of the backward pass, the gradients of the params, and of the first carry."""
    for path, values in back.items():
        place, name = place_of(net, path), path or net.info.name
        order, mask = (BACKWARD, *_route(net, path, backward=True)), ahead.get(path, {}).get("mask")
        for quantity, leaf in _parts("dy", values.get("dy")):
            yield from _value((*order, -END), "backward", name, quantity, leaf, mask, place)
        if (steps := values.get("steps")) is not None:
            time = steps.axis.value
            for rank, (quantity, leaf) in enumerate(_steps_backward(steps)):
                when = (*order, 0, Along(time), rank)
                yield from _value(when, "backward", name, quantity, leaf, mask, place, time)
        for quantity, leaf in _parts("dx", values.get("dx")):
            yield from _value((*order, END), "backward", name, quantity, leaf, mask, place)
    for quantity, leaf in _parts("dparams", dparams):
        path = _owner(net, list(back), quantity)
        order = (BACKWARD, *_route(net, path, backward=True), END - 1)
        yield from _value(order, "backward", path or net.info.name, quantity, leaf, None, place_of(net, path))
    for quantity, leaf in _parts("dcarry", dcarry):
        yield from _value((BACKWARD, END, END), "backward", net.info.name, quantity, leaf)


def _steps_backward(steps: Traced) -> Iterator[tuple[str, Any]]:
    for stage in stages_of(steps).values():
        yield from stage.items()


def _owner(net: Layer, paths: list[str], quantity: str) -> str:
    """The path of the innermost layer whose params hold a leaf of dparams."""
    holders = [path for path in paths if quantity.startswith(f"d{place_of(net, path).params}")]
    return max(holders, key=lambda path: len(list(indices(path))), default="")


def _route(net: Layer, path: str, *, backward: bool = False) -> Order:
    """The path to a layer as part of an order: the copy, where there are several, and the child, level by level."""
    route: list[int | Along] = []
    copies, layer = 0, net
    for index in indices(path):
        if layer.info.copies:
            route.append(Along(copies))
            copies += 1
        route.append(-index if backward else index)
        layer = layer.info.children[index]
    return tuple(route)


def _parts(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree with their names."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield f"{name}{jax.tree_util.keystr(path)}", leaf


def _value(
    order: Order,
    direction: str,
    layer: str,
    quantity: str,
    leaf: Any,
    mask: Any = None,
    place: Place | None = None,
    time: int | None = None,
) -> Iterator[Value]:
    """A quantity to check, unless it is empty or not a float."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    if not leaf.size or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return
    fits = [part for part in jax.tree.leaves(mask) if part.shape in (leaf.shape, leaf.shape[:-1])]
    copies, from_end = (0, False) if place is None else (place.copies, place.from_end)
    where = Where(order, direction, layer, quantity, leaf.shape, copies, time, from_end)
    yield Value(where, leaf, fits[0] if fits else None)
