"""Masks for batches with padding rows, which take no part in anything."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fnnets.core import masks
from fnnets.core.layer import Layer, keep_stats
from fnnets.data.examples import Examples


def count_only(net: Layer, params: Any, batch: Examples, rows: Any) -> Examples:
    """The batch with masks under which only `rows` (B,) count, in the loss and in the statistics of the batch.

    The network gets a mask if it has moving statistics, or had a mask before. Other layers treat every row on its own,
    and a row that does not count in the loss gives no gradient.
    """
    if rows is None:
        return batch
    y = jax.eval_shape(lambda: net.apply(params, batch.x, mask=batch.mask))
    loss_mask = broadcast_rows(rows, y.shape[:-1])
    if batch.loss_mask is not None:
        loss_mask &= batch.loss_mask
    mask = batch.mask
    if mask is not None:
        mask = jax.tree.map(lambda own: own & broadcast_rows(rows, own.shape), mask)
    elif net.update_stats is not keep_stats:
        mask = jax.tree.map(lambda x: broadcast_rows(rows, masks.mask_shape(x)), batch.x)
    return batch._replace(mask=mask, loss_mask=loss_mask)


def broadcast_rows(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A bool for each row, repeated for each of its places."""
    return jnp.broadcast_to(rows.reshape(rows.shape + (1,) * (len(shape) - 1)), shape)


def batch_weight(batch: Examples) -> jax.Array:
    """The weight of a batch in the mean of an epoch: its rows, or the places that count in its loss mask."""
    if batch.loss_mask is not None:
        return batch.loss_mask.sum()
    return jnp.asarray(jax.tree.leaves(batch.x)[0].shape[0])
