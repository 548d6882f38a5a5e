"""Several layers side by side on one input."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Info, Layer, Static, describe, keep_stats, named


class BranchSaved(NamedTuple):
    """What `branch` keeps for its backward."""

    children: tuple[Any, ...]
    widths: Static  # the number of features of each output, for merge="concat"
    mask: Any


def branch(*layers: Layer, merge: Literal["concat", "sum"] = "concat") -> Layer:
    """Several layers on one input, with their outputs merged.

    Formula: y = [f_1(x), …, f_n(x)] along the last axis (concat), or y = Σ_i f_i(x) (sum).

    Derivation: x is used n times, so its gradient is the sum over the uses, dx = Σ_i dx_i. The i-th layer's own
    backward gives (dparams_i, dx_i) from dy_i, which is the i-th slice of dy (concat) or dy itself (sum).

    Args:
      *layers: at least one layer.
      merge: "concat" or "sum".

    Returns:
      A `Layer`; params and carry are tuples as in `serial`.

    Raises:
      TypeError: an argument is not a Layer.
      ValueError: the outputs differ in their leading axes (concat) or in their shapes (sum).

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.branch(fn.dense(3), fn.identity())
      >>> x = jnp.ones((4, 2))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 5)

    References:
      Szegedy et al., Going deeper with convolutions (2015), section 4 (concat); He et al. (2016), eq. 2 (sum).
    """
    checks.layers("branch", layers, Layer)
    checks.positive("branch", **{"the number of layers": len(layers)})
    checks.choice("branch", "merge", merge, ("concat", "sum"))
    return side_by_side(layers, describe(branch, children=layers, merge=merge), merge)


def side_by_side(layers: tuple[Layer, ...], info: Info, merge: Literal["concat", "sum"]) -> Layer:
    """Combines several layers on one input into one layer."""

    def merged(outputs: list[Any]) -> Any:
        shapes = [y.shape if merge == "sum" else y.shape[:-1] for y in outputs]
        for i, shape in enumerate(shapes):
            what = f"layer {i}'s output" + (" without its last axis" if merge == "concat" else "")
            checks.same_shape(info, what, shape, shapes[0], "the outputs of all layers must fit together.")
        return jnp.concatenate(outputs, axis=-1) if merge == "concat" else sum(outputs[1:], outputs[0])

    def init(key: Any, x: Any) -> tuple[Any, ...]:
        params = []
        for i, child in enumerate(layers):
            with recording.child(info, i, child):
                params.append(child.init(c.child_key(key, i), x))
        return tuple(params)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        checks.count(info, "params", params, len(layers))
        x = masks.zero_padding(info, x, mask)
        children = enumerate(zip(layers, params, strict=True))
        return merged(
            [
                c.apply_child(info, i, child, own, x, key=c.child_key(key, i), train=train, mask=mask)
                for i, (child, own) in children
            ]
        )

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Any, BranchSaved]:
        checks.count(info, "params", params, len(layers))
        x = masks.zero_padding(info, x, mask)
        carries, outputs, saved = c.one_each(info, carry, len(layers)), [], []
        for i, (child, own) in enumerate(zip(layers, params, strict=True)):
            y, carries[i], kept = c.forward_child(
                info, i, child, own, x, carries[i], key=c.child_key(key, i), train=train, mask=mask
            )
            outputs.append(y)
            saved.append(kept)
        widths = Static(tuple(y.shape[-1] if merge == "concat" else 0 for y in outputs))
        return merged(outputs), c.all_or_none(carries), BranchSaved(tuple(saved), widths, mask)

    def backward(params: Any, saved: BranchSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        dparams: list[Any] = [None] * len(layers)
        dcarries = c.one_each(info, dcarry, len(layers))
        dx, start = None, 0
        for i, width in enumerate(saved.widths.value):
            part = dy[..., start : start + width] if merge == "concat" else dy
            dparams[i], dx_i, dcarries[i] = c.backward_child(
                info, i, layers[i], params[i], saved.children[i], part, dcarries[i]
            )
            dx = dx_i if dx is None else c.add(dx, dx_i)
            start += width
        return tuple(dparams), masks.hide_gradient(dx, saved.mask), c.all_or_none(dcarries)

    def update_stats(params: Any, saved: BranchSaved) -> Any:
        children = zip(layers, params, saved.children, strict=True)
        return tuple(child.update_stats(own, kept) for child, own, kept in children)

    return named(
        Layer(init, apply, forward, backward, update_stats if c.any_stats(layers) else keep_stats, info)
    )
