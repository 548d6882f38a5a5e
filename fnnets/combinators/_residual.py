"""The residual (skip) connection."""

from __future__ import annotations

from typing import Any, NamedTuple

from fnnets.combinators._branch import side_by_side
from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Layer, describe, keep_stats, named


class ResidualSaved(NamedTuple):
    """What `residual` keeps for its backward."""

    body: Any
    mask: Any


def residual(body: Layer, shortcut: Layer | None = None) -> Layer:
    """A residual block: adds the input to the body's output.

    Formula: y = x + f(params[0], x); with a shortcut, y = s(params[1], x) + f(params[0], x).

    Derivation: ∂y/∂x = 1 + ∂f/∂x, so with (dparams, dx_f) from the body's own backward at dy,

        dx = dy + dx_f

    Because of the 1, gradients reach the first layers of a deep network. With a shortcut, its own backward gives dx_s
    from the same dy, and dx = dx_s + dx_f.

    Args:
      body: a layer or network. Without a shortcut it must keep the shape of its input.
      shortcut: a projection of x to the shape of the body's output, for a body that changes the shape, such as
        `fn.conv(features, (1, 1), strides=2)` or `fn.dense(features)`.

    Returns:
      A `Layer`; params are a tuple of one, the body's, or of two with a shortcut. Mask, key and carry go to the body,
      and with a shortcut to both, as in `branch`.

    Raises:
      TypeError: body or shortcut is not a Layer.
      ValueError: the two summands differ in shape. Broadcasting would hide the mistake.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.residual(fn.serial(fn.dense(2), fn.relu()))
      >>> x = jnp.ones((4, 2))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 2)

    References:
      He, Zhang, Ren & Sun, Deep residual learning for image recognition (2016), eqs. 1 and 2.
    """
    if shortcut is not None:
        checks.layers("residual", (body, shortcut), Layer)
        return side_by_side((body, shortcut), describe(residual, children=(body, shortcut)), "sum")
    checks.layers("residual", (body,), Layer)
    info = describe(residual, children=(body,))

    def shapes(x: Any, y: Any) -> None:
        checks.same_shape(
            info,
            "the body's output",
            y.shape,
            x.shape,
            "if the body changes the shape, add a shortcut: fn.residual(body, projection).",
        )

    def init(key: Any, x: Any) -> tuple[Any, ...]:
        with recording.child(info, 0, body):
            return (body.init(c.child_key(key, 0), x),)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        checks.count(info, "params", params, 1)
        x = masks.zero_padding(info, checks.floats(info, x), mask)
        y = c.apply_child(info, 0, body, params[0], x, key=c.child_key(key, 0), train=train, mask=mask)
        shapes(x, y)
        return x.astype(y.dtype) + y

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Any, ResidualSaved]:
        checks.count(info, "params", params, 1)
        x = masks.zero_padding(info, checks.floats(info, x), mask)
        y, carry, saved = c.forward_child(
            info, 0, body, params[0], x, carry, key=c.child_key(key, 0), train=train, mask=mask
        )
        shapes(x, y)
        return x.astype(y.dtype) + y, carry, ResidualSaved(saved, mask)

    def backward(params: Any, saved: ResidualSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        dbody, dx, dcarry = c.backward_child(info, 0, body, params[0], saved.body, dy, dcarry)
        return (dbody,), masks.hide_gradient(dy.astype(dx.dtype) + dx, saved.mask), dcarry

    def update_stats(params: Any, saved: ResidualSaved) -> Any:
        return (body.update_stats(params[0], saved.body),)

    return named(
        Layer(init, apply, forward, backward, update_stats if c.any_stats((body,)) else keep_stats, info)
    )
