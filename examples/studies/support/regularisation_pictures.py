"""The picture of `regularisation.py`, and the two constraints in it. Not a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from support.common import BLUE, GREEN, ORANGE, PURPLE, RED

if TYPE_CHECKING:
    from regularisation import Found

COLORS = {
    "nothing": RED,
    "early stopping": "#222222",
    "L1": ORANGE,
    "L1 by shrinking": "#9c6b1f",
    "L2": BLUE,
    "dropout": GREEN,
    "batch norm": PURPLE,
}
PIXELS = ((1, 2), (2, 2))  # row and column
BOUND = 0.4


class Quadratic(NamedTuple):
    """E(w) = ½wᵀHw − cᵀw + E(0), of two weights."""

    hessian: np.ndarray  # (2, 2)
    c: np.ndarray  # (2,)
    zero: float  # E(0)

    def __call__(self, w: np.ndarray) -> np.ndarray:
        """E of each w, (…, 2) to (…)."""
        return 0.5 * ((w @ self.hessian) * w).sum(-1) - w @ self.c + self.zero

    def slope(self, w: np.ndarray) -> np.ndarray:
        """∂E/∂w."""
        return self.hessian @ w - self.c


def two_pixels() -> Quadratic:
    """Half the mean squared error of telling 8s (1) from 3s (−1) by two standardised pixels, linearly."""
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    chosen = np.isin(digits, (3, 8))
    x = pixels.reshape(-1, 8, 8)[chosen][:, *zip(*PIXELS, strict=True)]
    x, t = (x - x.mean(0)) / x.std(0), np.where(digits[chosen] == 8, 1.0, -1.0)
    t -= t.mean()
    return Quadratic(x.T @ x / len(x), x.T @ t / len(x), float(t @ t / len(t) / 2))


def least_on_disc(loss: Quadratic, bound: float) -> np.ndarray:
    """The w with the least E where w₁² + w₂² ≤ bound².

    Formula: (H + λ)w = c, with λ = 0 if that w lies inside, else with the one λ > 0 at which |w| = bound.
    """
    from scipy.optimize import brentq

    def at(rate: float) -> np.ndarray:
        return np.linalg.solve(loss.hessian + rate * np.eye(2), loss.c)

    def beyond(rate: float) -> float:
        return float(np.linalg.norm(at(rate))) - bound

    return (
        at(0.0) if beyond(0.0) <= 0 else at(brentq(beyond, 0.0, np.linalg.norm(loss.c) / bound, xtol=1e-14))
    )


def least_on_diamond(loss: Quadratic, bound: float) -> np.ndarray:
    """The w with the least E where |w₁| + |w₂| ≤ bound.

    Formula: H⁻¹c if it lies inside. Else the least of the four edges' minima: on w = a + s·d, 0 ≤ s ≤ 1, from a
    corner a to the next, E is a parabola in s, lowest at s = −d·∂E(a)/dᵀHd or at an end.
    """
    inside = np.linalg.solve(loss.hessian, loss.c)
    if np.abs(inside).sum() <= bound:
        return inside
    corners = bound * np.array([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)])
    lowest = []
    for a, d in zip(corners, np.roll(corners, -1, axis=0) - corners, strict=True):
        s = np.clip(-(d @ loss.slope(a)) / (d @ loss.hessian @ d), 0, 1)
        lowest.append(a + s * d)
    return min(lowest, key=loss)


def draw(figure: Any, results: list[dict[str, Found]], labels: tuple[str, ...], every: int) -> None:
    """Top: the training. Bottom: the weights, and why L1 makes them 0."""
    (training, validation, accuracy), (sizes, diamond, disc) = figure.subplots(2, 3)
    mistaken = results[1]
    draw_curves(training, validation, mistaken, every)
    training.set_title(f"Training loss, {labels[1]}")
    validation.set_title(f"Validation loss, {labels[1]}")
    draw_accuracies(accuracy, results, labels)
    draw_sizes(sizes, mistaken)
    sizes.set_title(f"Size of weights, {labels[1]}")
    loss = two_pixels()
    draw_constraint(diamond, loss, least_on_diamond, ORANGE, "L1: |w₁| + |w₂| ≤ t")
    draw_constraint(disc, loss, least_on_disc, BLUE, "L2: w₁² + w₂² ≤ t²")


def draw_curves(training: Any, validation: Any, methods: dict[str, Found], every: int) -> None:
    """The losses epoch by epoch, medians over the seeds; a dot shows where early stopping took the params."""
    for name, one in methods.items():
        curves = np.median(one.curves[..., 0], axis=0)
        epochs = every * (1 + np.arange(len(curves)))
        for axes, values in ((training, curves[:, 0]), (validation, curves[:, 1])):
            if name == "early stopping":
                at = int(np.median(one.at))
                axes.plot(epochs[at], values[at], "o", color=COLORS[name], markersize=8, label=name, zorder=5)
            elif name != "L1 by shrinking":  # its curve is that of L1
                axes.plot(epochs, values, color=COLORS[name], label=name)
    training.set(xlabel="epoch", yscale="log")
    validation.set(xlabel="epoch", ylim=(0.4, 1.2))
    validation.legend(fontsize=8, ncols=2)


def draw_accuracies(axes: Any, results: list[dict[str, Found]], labels: tuple[str, ...]) -> None:
    """Every seed's test accuracy, and their mean."""
    names = list(results[0])
    for kind, (methods, label) in enumerate(zip(results, labels, strict=True)):
        for i, name in enumerate(names):
            values = 100 * methods[name].test[:, 1]
            spread = np.linspace(-0.18, 0.18, len(values))
            style = {"color": COLORS[name], "alpha": 0.55, "markersize": 4}
            axes.plot(values, i + spread, "o" if kind else "^", **style)
            axes.plot([values.mean()] * 2, [i - 0.32, i + 0.32], color=COLORS[name], linewidth=3)
        middle = np.mean([100 * one.test[:, 1].mean() for one in methods.values()])
        axes.text(middle, -0.65, label, ha="center", fontsize=9, color="#555555")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="%", ylim=(len(names) - 0.5, -1))
    axes.set_title("Test accuracy, each seed and the mean")


def draw_sizes(axes: Any, methods: dict[str, Found]) -> None:
    """The share of the weights below each size; it stays above 0 if some weights are exactly 0."""
    shown = np.geomspace(1e-6, 3, 400)
    for name, one in methods.items():
        if name in ("nothing", "L1", "L1 by shrinking", "L2"):
            sizes = np.sort(np.abs(one.weights).ravel())
            shares = np.searchsorted(sizes, shown, "right") / len(sizes)
            style = "--" if name == "L1 by shrinking" else "-"
            axes.semilogx(shown, shares, style, color=COLORS[name], label=name)
    axes.set(xlabel="|w|", ylabel="share of smaller weights", ylim=(-0.02, 1.02))
    axes.legend(fontsize=8)


def draw_constraint(axes: Any, loss: Quadratic, least: Any, color: str, title: str) -> None:
    """The contours of E, the region the constraint allows, and where they touch for this and for other bounds."""
    x, y = np.meshgrid(np.linspace(-0.85, 0.65, 200), np.linspace(-0.5, 1.05, 200))
    heights = loss(np.stack([x, y], -1))
    free, touching = np.linalg.solve(loss.hessian, loss.c), least(loss, BOUND)
    level, lowest = loss(touching), loss(free)
    axes.contour(
        x,
        y,
        heights,
        levels=lowest + (level - lowest) * np.array([0.05, 0.25, 0.6, 1.6, 2.4, 3.4]),
        colors="#b9bdc4",
        linewidths=0.9,
    )
    axes.contour(x, y, heights, levels=[level], colors=[RED], linewidths=1.8)
    if least is least_on_diamond:
        outline = BOUND * np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
    else:
        angles = np.linspace(0, 2 * np.pi, 200)
        outline = BOUND * np.stack([np.cos(angles), np.sin(angles)], -1)
    axes.fill(*outline.T, color=color, alpha=0.25, linewidth=0)
    axes.fill(*outline.T, fill=False, edgecolor=color, linewidth=1.5)
    path = np.array([least(loss, bound) for bound in np.linspace(1e-3, 1.2, 200)])
    axes.plot(*path.T, ":", color="#222222", linewidth=1.6)
    axes.plot(*free, "*", color="#222222", markersize=12)
    axes.plot(*touching, "o", color=RED, markersize=8, zorder=5)
    reached = f"w = ({touching[0]:.2f}, {touching[1]:.2f})".replace("-", "−")
    axes.text(0.97, 0.04, reached, color=RED, ha="right", transform=axes.transAxes)
    axes.axhline(0, color="#888888", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    axes.set(xlabel="w₁", ylabel="w₂", aspect="equal", title=f"{title}, t = {BOUND}")
    axes.grid(visible=False)
