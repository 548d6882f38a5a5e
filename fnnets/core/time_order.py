"""Whether a network goes through time, and where time is in its input."""

from __future__ import annotations

from fnnets.core.layer import Layer


def time_first(layer: Layer) -> bool:
    """Whether the x of a network has time first: as it says itself, or else one of its children."""
    said = layer.info.time_major
    return any(map(time_first, layer.info.children)) if said is None else said


def examples_first(who: str, layer: Layer) -> None:
    """Refuses a network whose x has time first, where what is asked for takes the rows of x for examples."""
    if time_first(layer):
        raise ValueError(
            f"{who}: the first axis of x must be the examples, got a network with time_major=True: {layer.info}; make "
            "it without."
        )


def has_steps(layer: Layer) -> bool:
    """Whether there is a recurrent layer in a network."""
    return layer.info.recurrence is not None or any(map(has_steps, layer.info.children))
