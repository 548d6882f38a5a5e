"""Whether a network goes through time, and where time is in its input."""

from __future__ import annotations

from fnnets.core.layer import Layer


def time_major(layer: Layer) -> bool:
    """Whether a recurrent layer has time first."""
    return bool(getattr(layer.info.settings.get("options"), "time_major", False))


def time_first(layer: Layer) -> bool:
    """Whether a network has a recurrent layer with time first."""
    return time_major(layer) or any(map(time_first, layer.info.children))


def examples_first(who: str, layer: Layer) -> None:
    """Refuses a network whose x has time first, where what is asked for takes the rows of x for examples."""
    if time_first(layer):
        raise ValueError(
            f"{who}: the first axis of x must be the examples, got a network with time_major=True: {layer.info}; make "
            "it without."
        )


def has_steps(layer: Layer) -> bool:
    """Whether there is a recurrent layer in a network."""
    return "cell" in layer.info.settings or any(map(has_steps, layer.info.children))
