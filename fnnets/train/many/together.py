"""Many models trained at the same time: by vmap on one device, a part of them on each of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnnets.data.examples import take
from fnnets.train import mesh as m


def together(who: str, one: Callable[..., Any], in_axes: tuple[int | None, ...], mesh: Mesh | None) -> Any:
    """`one`, the training of a model, for all models of a first axis: `jax.vmap(one, in_axes)`, compiled.

    With a mesh each device trains its part, and none has to do with another. Where the devices do not divide the
    models, some train the last one too, which is not slower: the others would be waited for. What comes back is a
    process's own, and every process gets all of it.
    """
    vmapped = jax.vmap(one, in_axes)
    if mesh is None:
        return jax.jit(vmapped)
    part, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()
    specs = tuple(whole if axis is None else part for axis in in_axes)
    # Nothing is exchanged, so that jax need not keep account of what differs from device to device.
    program = jax.jit(jax.shard_map(vmapped, mesh=mesh, in_specs=specs, out_specs=part, check_vma=False))

    def on_devices(*args: Any) -> Any:
        m.agreed(who, mesh, lambda: {"shapes": m.shapes(args), "keys and data": m.contents(args)})
        models = len(jax.tree.leaves(args[in_axes.index(0)])[0])
        rows = np.minimum(np.arange(-(-models // mesh.size) * mesh.size), models - 1)
        placed = [
            m.put(arg, m.everywhere(mesh)) if axis is None else m.put(take(arg, rows), m.shared(mesh))
            for arg, axis in zip(args, in_axes, strict=True)
        ]
        with m.active(mesh):
            found = program(*placed)
        return jax.tree.map(lambda leaf: leaf[:models], m.home(mesh, found))

    return on_devices
