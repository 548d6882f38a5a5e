"""Every activation and its derivative, drawn: `python examples/studies/activations.py`.

The study draws every activation of the catalogue. The curve is the layer's `apply`, the derivative its `backward`, which
maps dy = ∂E/∂y to dx = dy ⊙ f'(x): with dy = 1 it gives f' itself. Each derivative by hand is compared with `jax.grad`
of the curve.

What to look for:

- sigmoid, tanh and hard_sigmoid are flat on both sides: f' → 0, and a gradient multiplied by it vanishes.
  For sigmoid f' is at most 1/4, so ten of them in a chain shrink a gradient at least a millionfold.
- relu and its relatives have f' = 1 (or near it) on the positive side. On the other side relu has f' = 0, where a unit
  can die; leaky_relu, prelu and elu keep a small slope there, and the slope of gelu and silu goes below 0 and back.
- softmax and log_softmax work on a whole vector; the picture shows the first output for the logits (x, 0): softmax of
  two logits is a sigmoid of their difference.

`--quick` draws fewer points; `--out DIR` is the folder for the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from support.common import BLUE, GREY, ORANGE, options, picture, progress, run, table

import fnnets as fn
from fnnets import catalogue

ACTIVATIONS = [
    case.layer for case in catalogue.activation_cases() if not case.layer.info.settings.get("per_feature")
]
COLUMNS = 4


class Curve(NamedTuple):
    """An activation at the points x."""

    name: str
    y: np.ndarray
    slope: np.ndarray  # f'(x), by hand
    error: float  # the largest difference from jax.grad


def curve(activation: fn.Layer, x: np.ndarray) -> Curve:
    """The activation's values at x, and its derivative by hand, which must equal that of `jax.grad`."""
    whole = of_vectors(activation)

    def inputs(x: jax.Array) -> jax.Array:
        return jnp.stack([x, jnp.zeros_like(x)], axis=-1) if whole else x

    def shown(y: jax.Array) -> jax.Array:
        return y[..., 0] if whole else y

    @jax.jit
    def computed(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        params = activation.init(jax.random.key(0), inputs(x))
        y, _, saved = activation.forward(params, inputs(x))
        dy = jnp.zeros_like(y).at[..., 0].set(1) if whole else jnp.ones_like(y)
        _, dx, _ = activation.backward(params, saved, dy)
        by_autodiff = jax.vmap(jax.grad(lambda x: shown(activation.apply(params, inputs(x)))))(x)
        return shown(y), shown(dx), by_autodiff

    y, slope, by_autodiff = map(np.asarray, computed(x))
    np.testing.assert_allclose(slope, by_autodiff, rtol=1e-12, atol=1e-12, err_msg=repr(activation))
    return Curve(title(activation), y, slope, float(np.abs(slope - by_autodiff).max()))


def of_vectors(activation: fn.Layer) -> bool:
    """Whether an output depends on more than one input: then dy of the first output gives a dx of the second input."""
    x = jnp.array([0.3, -0.2])
    params = activation.init(jax.random.key(0), x)
    _, _, saved = activation.forward(params, x)
    _, dx, _ = activation.backward(params, saved, jnp.array([1.0, 0.0]))
    return bool(dx[1] != 0)


def title(activation: fn.Layer) -> str:
    """The activation in code, without empty parentheses."""
    return repr(activation).removesuffix("()") + (" of (x, 0)" if of_vectors(activation) else "")


def draw(figure: Any, x: np.ndarray, curves: Sequence[Curve]) -> None:
    """A grid of small pictures on one scale, so that slopes can be compared by eye."""
    panels = figure.subplots(rows_of(curves), COLUMNS, sharex=True, sharey=True)
    for axes in panels.flat[len(curves) :]:
        axes.axis("off")
    for axes, found in zip(panels.flat, curves, strict=False):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.plot(x, found.y, color=BLUE, label="f(x)")
        axes.plot(x, broken_at_jumps(found.slope), color=ORANGE, linewidth=1.5, label="f'(x), by hand")
        axes.set_title(found.name, family="monospace", fontsize=9)
    panels[0, 0].set(xlim=(-5, 5), ylim=(-2.2, 3.2), xticks=(-4, -2, 0, 2, 4), yticks=(-2, -1, 0, 1, 2, 3))
    for axes in panels.flat[len(curves) - COLUMNS : len(curves)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("x")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=12)


def rows_of(curves: Sequence[Curve]) -> int:
    """How many rows of small pictures there are."""
    return -(-len(curves) // COLUMNS)


def broken_at_jumps(slope: np.ndarray) -> np.ndarray:
    """The derivative with gaps where it jumps: at a kink it does not exist, and no line is drawn."""
    jump = np.abs(np.diff(slope, append=slope[-1])) > 0.1
    return np.where(jump, np.nan, slope)


def main(argv: Sequence[str] | None = None) -> int:
    """Draws every curve and prints a few of its numbers."""
    chosen = options(__doc__, argv)
    x = np.linspace(-5, 5, 201 if chosen.quick else 2001)
    with jax.enable_x64(True):
        curves = [curve(activation, x) for activation in progress(ACTIVATIONS, "curves")]

    def at(values: np.ndarray, point: float) -> str:
        return f"{np.interp(point, x, values):z.4f}"

    print("f(x), and f'(x) by hand\n")
    rows = [
        (c.name, *(at(c.y, p) for p in (-5, 0, 5)), *(at(c.slope, p) for p in (-5, 0, 5)), f"{c.error:.0e}")
        for c in curves
    ]
    print(table(("", "f(-5)", "f(0)", "f(5)", "f'(-5)", "f'(0)", "f'(5)", "error"), rows))
    print("\nerror: the largest difference of f' from jax.grad")
    with picture(chosen.out / "activations.png", 11, 2.2 * rows_of(curves)) as figure:
        draw(figure, x, curves)
    return 0


if __name__ == "__main__":
    run(main)
