"""A layer at every node of a tree."""

from __future__ import annotations

from typing import Any, NamedTuple

from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Layer, describe, keep_stats, named


class NodesSaved(NamedTuple):
    """What `nodes` keeps for its backward."""

    body: Any
    mask: Any


def nodes(body: Layer) -> Layer:
    """Applies a layer to the features of every node of a tree; passes the children on unchanged.

    Formula: (y, children) = (f(params, x), children).

    Derivation: dx = (dx_f, None), with (dparams, dx_f) from the body's own backward at dy. The children are
    integers and have no gradient.

    Args:
      body: a layer or network, such as `fn.embedding(5, 6)` for trees of words. Its input and output hold
        the nodes in order, (…, N, ·).

    Returns:
      A `Layer` from a pair (features, children) to such a pair; put it before `fn.recursive` or `fn.tree_lstm`.
      Its params are a tuple that holds the body's. The mask is a pair (nodes, children); the body gets the nodes' mask.

    Raises:
      TypeError: x or the mask is not a pair.

    Example:
      >>> import fnnets as fn, jax
      >>> x, mask = fn.pad_trees([((1, 2), 3), (2, 4)])
      >>> net = fn.nodes(fn.embedding(5, 6))
      >>> features, children = net.apply(net.init(jax.random.key(0), x), x)
      >>> features.shape, children.shape
      ((2, 5, 6), (2, 5, 2))
    """
    checks.layers("nodes", (body,), Layer)
    info = describe(nodes, children=(body,))

    def paired(name: str, value: Any) -> Any:
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(
                f"{info}: {name} must be a pair (one part for the nodes, one for their children), "
                f"got {type(value).__name__}; fn.pad_trees builds it from trees."
            )
        return value

    def parts(x: Any, mask: Any) -> tuple[Any, Any, Any]:
        if mask is None:
            return *paired("x", x), None
        return *masks.zero_padding(info, paired("x", x), paired("mask", mask)), mask[0]

    def init(key: Any, x: Any) -> tuple[Any, ...]:
        features, _ = paired("x", x)
        with recording.child(info, 0, body):
            return (body.init(c.child_key(key, 0), features),)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        checks.count(info, "params", params, 1)
        features, children, own = parts(x, mask)
        y = c.apply_child(info, 0, body, params[0], features, key=c.child_key(key, 0), train=train, mask=own)
        return y, children

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Any, NodesSaved]:
        checks.count(info, "params", params, 1)
        features, children, own = parts(x, mask)
        y, carry, saved = c.forward_child(
            info, 0, body, params[0], features, carry, key=c.child_key(key, 0), train=train, mask=own
        )
        return (y, children), carry, NodesSaved(saved, own)

    def backward(params: Any, saved: NodesSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        dbody, dx, dcarry = c.backward_child(info, 0, body, params[0], saved.body, dy[0], dcarry)
        return (dbody,), (masks.hide_gradient(dx, saved.mask), None), dcarry

    def update_stats(params: Any, saved: NodesSaved) -> Any:
        return (body.update_stats(params[0], saved.body),)

    return named(
        Layer(init, apply, forward, backward, update_stats if c.any_stats((body,)) else keep_stats, info)
    )
