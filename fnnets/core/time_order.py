"""Whether a network is recurrent, and where time is in its input."""

from __future__ import annotations

from fnnets.core.layer import Layer


def time_first(layer: Layer) -> bool:
    """Whether time is the first axis of a network's x: as its info says, or else as any of its children says."""
    own = layer.info.time_major
    return any(map(time_first, layer.info.children)) if own is None else own


def examples_first(who: str, layer: Layer) -> None:
    """Refuses a network whose x has time first, where the rows of x must be examples."""
    if time_first(layer):
        raise ValueError(
            f"{who}: the first axis of x must be the examples, got a network with time_major=True: {layer.info}; "
            "build it without time_major."
        )


def has_steps(layer: Layer) -> bool:
    """Whether a network contains a recurrent layer."""
    return layer.info.recurrence is not None or any(map(has_steps, layer.info.children))
