"""From one sequence to another: the decoder starts from the encoder's last state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnnets.core import checks, masks, recording
from fnnets.core import children as c
from fnnets.core.layer import Layer, Static, describe, keep_stats, named
from fnnets.core.parameters import zero_carry


class EncoderDecoderSaved(NamedTuple):
    """What `encoder_decoder` keeps for its backward."""

    children: tuple[Any, Any]
    encoded: Static  # the shape and dtype of the encoder's output
    carry: Static  # the structure and dtypes of the encoder's carry
    masks: tuple[Any, Any]


def encoder_decoder(encoder: Layer, decoder: Layer) -> Layer:
    """Turns one sequence into another: the decoder starts from the encoder's last carry.

    Formula: (·, s) = f(params[0], source) from zeros, y = g(params[1], inputs) from the carry s.

    In training, the decoder's inputs are the targets shifted by one step (teacher forcing, see `fn.shift_right`).
    The example shows how to generate a sequence.

    Derivation: the source reaches y only through s, so

        dparams[1], dinputs, ds = g.backward(dy)
        dparams[0], dsource     = f.backward(dy = 0, dcarry = ds)
        dx = (dsource, dinputs)

    Args:
      encoder: a network with a carry. Its output is not used.
      decoder: a network whose carry has arrays of the same shapes, in the same order. Layers without a carry,
        such as a dense layer at its end, need no counterpart in the encoder.

    Returns:
      A `Layer`; params are a tuple of two. x is a pair (source, inputs), and the mask is such a pair too, with None for
      a part without padding. The decoder starts from the state after the last valid step of the source, wherever the
      padding is. y is the decoder's output. The layer takes no carry and returns None for it.

    Raises:
      TypeError: x or the mask is not a pair, or forward gets a carry.
      ValueError: the encoder has no carry, the decoder's carry has arrays of other shapes, or a mask does not fit.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> encoder = fn.serial(fn.embedding(10, 4), fn.lstm(8))
      >>> decoder = fn.serial(fn.embedding(12, 4), fn.lstm(8), fn.dense(12))
      >>> net = fn.encoder_decoder(encoder, decoder)
      >>> source, targets = jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([[7, 8], [9, 11]])
      >>> x = (source, fn.shift_right(targets, 0))
      >>> params = net.init(jax.random.key(0), x)
      >>> net.apply(params, x).shape
      (2, 2, 12)

      To generate a sequence, run the encoder alone. The decoder then reads its own output, starting with id 0.

      >>> _, carry, _ = encoder.forward(params[0], source)
      >>> ids, _ = fn.generate(decoder, params[1], carry, jnp.array([0, 0]), 5, temperature=0)
      >>> ids.shape
      (2, 5)

    References:
      Sutskever, Vinyals & Le, Sequence to sequence learning with neural networks (2014), eq. 1; Cho et al.,
      Learning phrase representations using RNN encoder-decoder (2014), section 2.2.

    Differences: Cho et al. feed the encoder's state to every step of the decoder. Here, as in Sutskever et al., it is
    only the decoder's first state.
    """
    children = (encoder, decoder)
    checks.layers("encoder_decoder", children, Layer)
    info = describe(encoder_decoder, children=children)

    def pair(name: str, value: Any) -> Any:
        return checks.two(f"{info}: {name} must be a pair, for the source and the decoder's inputs", value)

    def init(key: Any, x: Any) -> tuple[Any, Any]:
        params = []
        for i, (child, own) in enumerate(zip(children, pair("x", x), strict=True)):
            with recording.child(info, i, child):
                params.append(child.init(c.child_key(key, i), own))
        return tuple(params)

    def start(params: Any, inputs: Any, carry: Any) -> Any:
        """The encoder's last carry, in the structure of the decoder's."""
        if not jax.tree.leaves(carry):
            raise ValueError(
                f"{info}: the encoder must return a carry, but {encoder.info} has none; use recurrent layers "
                "that run in one direction."
            )
        with recording.child(info, 1, decoder):
            like = zero_carry(decoder, params[1], inputs)
        return c.fitted_carry(info, carry, like, "the encoder's carry")

    def forward(
        params: Any, x: Any, carry: Any = None, *, key: Any = None, train: bool = False, mask: Any = None
    ) -> tuple[Any, None, EncoderDecoderSaved]:
        checks.no_carry(info, carry)
        checks.count(info, "params", params, 2)
        both_masks = (None, None) if mask is None else pair("mask", mask)
        source, inputs = map(masks.zero_padding, (info, info), pair("x", x), both_masks)
        keys = c.child_key(key, 0), c.child_key(key, 1)
        encoded, carry, saved_encoder = c.forward_child(
            info, 0, encoder, params[0], source, None, key=keys[0], train=train, mask=both_masks[0]
        )
        first = start(params, inputs, carry)
        y, _, saved_decoder = c.forward_child(
            info, 1, decoder, params[1], inputs, first, key=keys[1], train=train, mask=both_masks[1]
        )
        dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(carry))
        saved = EncoderDecoderSaved(
            (saved_encoder, saved_decoder),
            Static((encoded.shape, encoded.dtype)),
            Static((jax.tree.structure(carry), dtypes)),
            both_masks,
        )
        return y, None, saved

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False, mask: Any = None) -> Any:
        # A layer's `apply` takes no carry, so the equation uses the children's `forward`.
        return forward(params, x, key=key, train=train, mask=mask)[0]

    def backward(
        params: Any, saved: EncoderDecoderSaved, dy: Any, dcarry: Any = None
    ) -> tuple[Any, Any, None]:
        checks.no_carry(info, dcarry)
        ddecoder, dinputs, dfirst = c.backward_child(info, 1, decoder, params[1], saved.children[1], dy, None)
        structure, dtypes = saved.carry.value
        leaves = [leaf.astype(dtype) for leaf, dtype in zip(jax.tree.leaves(dfirst), dtypes, strict=True)]
        dcarry, unused = structure.unflatten(leaves), jnp.zeros(*saved.encoded.value)
        dencoder, dsource, _ = c.backward_child(
            info, 0, encoder, params[0], saved.children[0], unused, dcarry
        )
        dx = tuple(map(masks.hide_gradient, (dsource, dinputs), saved.masks))
        return (dencoder, ddecoder), dx, None

    def update_stats(params: Any, saved: EncoderDecoderSaved) -> Any:
        both = zip(children, params, saved.children, strict=True)
        return tuple(child.update_stats(own, kept) for child, own, kept in both)

    return named(
        Layer(init, apply, forward, backward, update_stats if c.any_stats(children) else keep_stats, info)
    )
