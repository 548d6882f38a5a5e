"""Layers one after another."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax

from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Layer, describe, keep_stats, named


class SerialSaved(NamedTuple):
    """What `serial` keeps for its backward."""

    children: tuple[Any, ...]
    mask: Any


def serial(*layers: Layer) -> Layer:
    """Layers one after another: the output of each is the input of the next.

    Formula: h_0 = x, h_{i+1} = f_i(params_i, h_i), y = h_n.

    Derivation: the chain rule, from the last layer to the first. With dh_n = dy, each layer's own backward gives
    (dparams_i, dh_i) from dh_{i+1}; dx = dh_0. Forward mode, if all layers offer it, runs from the first layer to the
    last: with dh_0 = dx, each layer's tangent gives dh_{i+1} from (dparams_i, dh_i); dy = dh_n.

    Args:
      *layers: any layers or networks. `serial()` is the identity.

    Returns:
      A `Layer`; params is the tuple of the layers' params. The carry is the tuple of their carries, with None for a
      layer that has none; without recurrent layers it is None. Layer i gets the key `fold_in(key, i)`. A mask has the
      shape of x without its features. It is passed on until a layer reduces the time axis away. Where it is False, x
      is set to 0.

    Raises:
      TypeError: an argument is not a Layer, or params or carry is not a tuple with one entry for each layer.
      ValueError: the mask does not fit x.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net = fn.serial(fn.dense(8), fn.tanh(), fn.dense(1))
      >>> x = jnp.ones((4, 2))
      >>> net.apply(net.init(jax.random.key(0), x), x).shape
      (4, 1)

    References:
      Rumelhart, Hinton & Williams, Nature 323 (1986); `jax.example_libraries.stax.serial`.

    Differences: stax splits the key among its layers, so adding a layer changes all random draws. Here each layer
    folds in its own index.
    """
    checks.layers("serial", layers, Layer)
    info = dataclasses.replace(describe(serial, children=layers), sequence=True)

    def init(key: Any, x: Any) -> tuple[Any, ...]:
        params = []
        for i, child in enumerate(layers):
            with recording.child(info, i, child):
                params.append(child.init(c.child_key(key, i), x))
                x = jax.eval_shape(child.apply, params[-1], x) if i + 1 < len(layers) else None
        return tuple(params)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        checks.count(info, "params", params, len(layers))
        x = masks.zero_padding(info, x, mask)
        for i, (child, own) in enumerate(zip(layers, params, strict=True)):
            mask = masks.fitting_mask(info, x, mask)
            x = c.apply_child(info, i, child, own, x, key=c.child_key(key, i), train=train, mask=mask)
        return x

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, Any, SerialSaved]:
        checks.count(info, "params", params, len(layers))
        x, first_mask = masks.zero_padding(info, x, mask), mask
        carries, saved = c.one_each(info, carry, len(layers)), []
        for i, (child, own) in enumerate(zip(layers, params, strict=True)):
            mask = masks.fitting_mask(info, x, mask)
            x, carries[i], kept = c.forward_child(
                info, i, child, own, x, carries[i], key=c.child_key(key, i), train=train, mask=mask
            )
            saved.append(kept)
        return x, c.all_or_none(carries), SerialSaved(tuple(saved), first_mask)

    def backward(params: Any, saved: SerialSaved, dy: Any, dcarry: Any = None) -> tuple[Any, Any, Any]:
        dparams: list[Any] = [None] * len(layers)
        dcarries = c.one_each(info, dcarry, len(layers))
        for i in reversed(range(len(layers))):
            dparams[i], dy, dcarries[i] = c.backward_child(
                info, i, layers[i], params[i], saved.children[i], dy, dcarries[i]
            )
        return tuple(dparams), masks.hide_gradient(dy, saved.mask), c.all_or_none(dcarries)

    def update_stats(params: Any, saved: SerialSaved) -> Any:
        children = zip(layers, params, saved.children, strict=True)
        return tuple(child.update_stats(own, kept) for child, own, kept in children)

    def tangent(
        params: Any, saved: SerialSaved, dparams: Any, dx: Any, dcarry: Any = None
    ) -> tuple[Any, Any]:
        dx, dcarries = masks.hide_gradient(dx, saved.mask), c.one_each(info, dcarry, len(layers))
        for i, (child, own, kept) in enumerate(zip(layers, params, saved.children, strict=True)):
            assert child.tangent is not None
            with recording.child(info, i, child):
                dx, dcarries[i] = child.tangent(own, kept, dparams[i], dx, dcarries[i])
        return dx, c.all_or_none(dcarries)

    offered = tangent if all(child.tangent is not None for child in layers) else None
    stats = update_stats if c.any_stats(layers) else keep_stats
    return named(Layer(init, apply, forward, backward, stats, info, offered))
