"""Pictures of gradients and of training, drawn with matplotlib, which is only imported to draw.

Every function returns a matplotlib `Figure`. Given `ax`, it draws on these axes and returns their figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnnets.core import checks
from fnnets.insight import GradientFlow
from fnnets.train.epoch import History
from fnnets.train.many import Swept

BLUE, ORANGE, GREY = "#2f6db3", "#e08214", "#8a8f98"
LOWEST = 1e-30  # smaller values are not drawn


def gradient_flow(flow: GradientFlow, ax: Any = None) -> Any:
    """Draws the result of `fn.gradient_flow`.

    Args:
      flow: from `fn.gradient_flow`.
      ax: axes for the first panel alone: the gradients through time, or through depth for a network without time. By
        default a new figure with a panel for each field.

    Returns:
      The figure: a heat map of log₁₀ ‖∂s_t/∂s_k‖, the singular values of the steps, the norms through depth, and
      the saturated shares. Empty fields have no panel.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.lstm(3), jax.random.normal(jax.random.key(1), (4, 7, 2))
      >>> figure = fn.plots.gradient_flow(fn.gradient_flow(net, net.init(jax.random.key(0), x), x))
      >>> [ax.get_title() for ax in figure.axes if ax.get_title()][:2]
      ['Gradient through time', 'Each step']
    """
    panels: list[Callable[[Any], None]] = []
    if flow.through_time is not None:
        panels += [lambda ax: _through_time(ax, flow), lambda ax: _steps(ax, flow)]
    if len(depth := _flat(flow.through_depth)) > 1:
        panels.append(lambda ax: _through_depth(ax, depth))
    if shares := _flat(flow.saturated):
        panels.append(lambda ax: _saturated(ax, shares))
    return _draw(panels or [lambda ax: _through_depth(ax, depth)], ax)


def trace(trace: dict[str, dict[str, Any]], ax: Any = None, *, time_axis: int = -2) -> Any:
    """Draws the sizes in a trace: of every quantity of a recurrent layer, at every step.

    Args:
      trace: from `fn.trace_backward`.
      ax: axes for the first recurrent layer alone; by default a new figure with a panel for each.
      time_axis: the axis of time: −2, or 0 for layers with `time_major`.

    Returns:
      The figure: for each recurrent layer a heat map of log₁₀ of the root mean square, with a row for each quantity in
      the order of computation and a column for each step.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.
      ValueError: the trace does not contain a recurrent layer.

    Example:
      >>> import fnnets as fn, jax, jax.numpy as jnp
      >>> net, x = fn.gru(3), jax.random.normal(jax.random.key(1), (4, 7, 2))
      >>> trace = fn.trace_backward(net, net.init(jax.random.key(0), x), x, jnp.ones((4, 7, 3)))
      >>> fn.plots.trace(trace).axes[0].get_title()
      'gru'
    """
    layers = {path: steps for path, steps in trace.items() if len(steps) > 1}
    if not layers:
        raise ValueError(
            "plots.trace: the trace must hold the steps of a recurrent layer, got none; trace a recurrent network."
        )

    def panel(path: str) -> Callable[[Any], None]:
        return lambda ax: _trace(ax, path, layers[path], time_axis)

    return _draw([panel(path) for path in layers], ax)


def plot_history(history: History, ax: Any = None) -> Any:
    """Draws the loss and the metrics of a training, epoch by epoch.

    Args:
      history: from `fn.train.fit`; or, with a leading axis for several models, from `fn.train.cross_validate` or
        `fn.train.ensemble`. Each model is then a thin line, and their mean a thick one.
      ax: axes for the loss alone; by default a new figure with a panel for the loss and one for each metric.

    Returns:
      The figure. The training loss is the mean over an epoch, the validation loss that at its end.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.

    Example:
      >>> import fnnets as fn, numpy as np
      >>> validation = {"loss": np.array([0.9, 0.6]), "accuracy": np.array([0.7, 0.8])}
      >>> figure = fn.plots.plot_history(fn.train.History(np.ones((2, 4)), np.array([0.8, 0.5]), validation))
      >>> [ax.get_title() for ax in figure.axes]
      ['Loss', 'accuracy']
    """
    metrics = {name: values for name, values in history.validation.items() if name != "loss"}

    def panel(name: str) -> Callable[[Any], None]:
        return lambda ax: _curves(ax, name, {"validation": metrics[name]})

    curves = {"training": history.loss}
    if "loss" in history.validation:
        curves["validation"] = history.validation["loss"]
    return _draw([lambda ax: _curves(ax, "Loss", curves), *map(panel, metrics)], ax)


def heat_map(
    swept: Swept,
    x: str,
    y: str,
    metric: str = "loss",
    ax: Any = None,
    *,
    larger_is_better: bool = False,
) -> Any:
    """Draws two hyperparameters of a sweep: the mean score over the seeds, at the best of all other hyperparameters.

    Args:
      swept: from `fn.train.sweep`.
      x: the hyperparameter from left to right.
      y: the hyperparameter from top to bottom.
      metric: the score to show.
      ax: the axes to draw on; by default a new figure.
      larger_is_better: whether the largest score is the best.

    Returns:
      The figure, with the number in each cell, the best one bold. Above 64 cells it only marks the best with a cross. A
      white cell is a training that diverged.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.
      ValueError: x, y or metric is not in the sweep, or x is y.

    Example:
      >>> import fnnets as fn, numpy as np
      >>> axes = {"units": (4, 8), "rate": (0.1, 1.0), "seed": (0,)}
      >>> swept = fn.train.Swept(axes, {"loss": np.array([[[0.5], [0.7]], [[0.2], [np.nan]]])}, None)
      >>> fn.plots.heat_map(swept, "rate", "units").axes[0].get_title()
      'loss'
    """
    names = tuple(name for name in swept.axes if name != "seed")
    checks.choice("heat_map", "x", x, names)
    checks.choice("heat_map", "y", y, tuple(name for name in names if name != x))
    checks.choice("heat_map", "metric", metric, tuple(swept.scores))
    worst = -np.inf if larger_is_better else np.inf
    means = np.nan_to_num(np.asarray(swept.scores[metric], np.float64).mean(-1), nan=worst)
    others = tuple(i for i, name in enumerate(names) if name not in (x, y))
    values = means.max(others) if larger_is_better else means.min(others)
    if names.index(x) < names.index(y):
        values = values.T
    values = np.where(np.isfinite(values), values, np.nan)
    return _draw([lambda ax: _heat_map(ax, values, swept.axes, (x, y), metric, larger_is_better)], ax)


def _draw(panels: list[Callable[[Any], None]], ax: Any) -> Any:
    """The panels on a new figure, two in a row; or the first panel on `ax`."""
    if ax is not None:
        panels[0](ax)
        return ax.figure
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, and nothing to close
    except ModuleNotFoundError as error:
        remedy = 'pip install "fnnets[examples]"'
        raise ModuleNotFoundError(
            f"plots: matplotlib is not installed; install it with {remedy}.", name=error.name
        ) from error
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.2 * rows), layout="constrained")
    for i, panel in enumerate(panels):
        panel(figure.add_subplot(rows, columns, i + 1))
    return figure


def _through_time(ax: Any, flow: GradientFlow) -> None:
    norms = np.asarray(flow.through_time, np.float64)
    _heat(ax, norms, "log₁₀ ‖∂s_t/∂s_k‖")
    ax.set(title="Gradient through time", xlabel="k, where it arrives", ylabel="t, where it starts")


def _heat(ax: Any, values: np.ndarray, label: str) -> None:
    """Logarithms as colours: blue below 0 (vanishing), red above (exploding), white where there is no value."""
    with np.errstate(divide="ignore"):
        logs = np.log10(np.where(values > LOWEST, values, 0))
    logs[~np.isfinite(logs)] = np.nan
    largest = max(float(np.nanmax(np.abs(logs), initial=0)), 0.1)
    image = ax.imshow(
        logs, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
    )
    ax.figure.colorbar(image, ax=ax, label=label)


def _steps(ax: Any, flow: GradientFlow) -> None:
    ax.plot(np.asarray(flow.singular), ".-", color=BLUE)
    ax.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
    ax.set(title="Each step", xlabel="t", ylabel="largest singular value of ∂s_t/∂s_{t−1}", yscale="log")


def _through_depth(ax: Any, norms: dict[str, float]) -> None:
    ax.plot(list(norms), list(norms.values()), ".-", color=BLUE)
    ax.set(title="Gradient through depth", ylabel="‖∂E/∂h‖ at each output", yscale="log")
    ax.tick_params(axis="x", labelrotation=90)


def _saturated(ax: Any, shares: dict[str, float]) -> None:
    names = list(shares)[::-1]
    ax.barh(names, [shares[name] for name in names], color=ORANGE)
    ax.set(title="Saturated", xlabel="share of the values", xlim=(0, 1))


def _trace(ax: Any, path: str, steps: dict[str, Any], time_axis: int) -> None:
    def sizes(values: Any) -> np.ndarray:
        values = np.moveaxis(np.asarray(values, np.float64), time_axis, 0)
        return np.asarray(np.sqrt(np.square(values).reshape(len(values), -1).mean(1)))

    _heat(ax, np.stack([sizes(values) for values in steps.values()]), "log₁₀ of the root mean square")
    ax.set(title=path, xlabel="t", yticks=range(len(steps)), yticklabels=list(steps))


def _curves(ax: Any, title: str, curves: dict[str, Any]) -> None:
    lowest = min(float(np.nanmin(np.asarray(values), initial=np.inf)) for values in curves.values())
    for (name, values), color in zip(curves.items(), (BLUE, ORANGE), strict=False):
        lines = np.asarray(values, np.float64).reshape(-1, np.shape(values)[-1])
        epochs = np.arange(1, lines.shape[-1] + 1)
        if len(lines) > 1:
            ax.plot(epochs, lines.T, color=color, linewidth=0.8, alpha=0.35)
        ax.plot(epochs, lines.mean(0), color=color, linewidth=1.8, label=name)
    ax.set(title=title, xlabel="epoch", yscale="log" if title == "Loss" and lowest > 0 else "linear")
    if len(curves) > 1:
        ax.legend(frameon=False)


def _heat_map(
    ax: Any, values: np.ndarray, axes: dict[str, Any], names: tuple[str, str], metric: str, larger: bool
) -> None:
    """The values (y, x) as colours, dark where they are good; with a number in each cell if there is room."""
    x, y = ([f"{v:.3g}" if isinstance(v, float) else str(v) for v in axes[name]] for name in names)
    image = ax.imshow(
        values, cmap="viridis" if larger else "viridis_r", aspect="auto", interpolation="nearest"
    )
    ax.figure.colorbar(image, ax=ax, label=metric)
    if np.isfinite(values).any():
        best = np.unravel_index(np.nanargmax(values if larger else -values), values.shape)
        if values.size <= 64:
            low, high = np.nanmin(values), np.nanmax(values)
            for place, value in np.ndenumerate(values):
                if np.isfinite(value):
                    good = (value - low) / (high - low or 1)
                    dark = (good if larger else 1 - good) < 0.6
                    weight = "bold" if place == best else "normal"
                    ax.text(
                        place[1], place[0], f"{value:.3g}", ha="center", va="center", fontsize=8,
                        color="white" if dark else "black", weight=weight,
                    )  # fmt: skip
        else:
            ax.plot(best[1], best[0], "x", color="#c8373f", markersize=9, markeredgewidth=2)
    ax.grid(False)
    every = -(-len(x) // 12)
    ax.set(title=metric, xlabel=names[0], ylabel=names[1], yticks=range(len(y)), yticklabels=y)
    ax.set_xticks(range(0, len(x), every), x[::every], rotation=45 if len(x) > 6 else 0)


def _flat(values: dict[str, Any]) -> dict[str, float]:
    """A number for each name; inside a stack, one for each copy."""
    numbers: dict[str, float] = {}
    for name, value in values.items():
        value = np.asarray(value)
        numbers |= {f"{name} {list(i)}" if i else name: float(value[i]) for i in np.ndindex(value.shape)}
    return numbers
