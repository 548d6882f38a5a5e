"""A batch of trees through a binary Tree-LSTM, forward and backward, against Python loops over their nodes.

Run `python examples/benchmarks/trees.py`; `--quick` only shows that it runs. The trees are random, with 10 to 30 leaves
each and an input at every node. The loss is the mean of ½|h|² of their roots; its gradient is with respect to the
params. The batch is one program of `fn.tree_lstm`. The loops are what one writes without it: under `jax.grad`, a
recursive function that calls the compiled cell of one node; and, with the gradient derived by hand, a compiled cell for
each node on the way up and one on the way down. They need no padding. Before anything is timed, all of them are
checked to give the same gradient.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from harness import Verdict, arguments, processor, ratio, table, versions
from processes import MEASURED, TURN, Built, Contender, compiled_figures, measure

import fnnets as fn

ROUNDS, SITTINGS = (5, 2), 1
TIMES = 20  # at least this many times as fast as every loop


class Settings(NamedTuple):
    """The sizes."""

    trees: int = 64
    inputs: int = 64
    units: int = 64
    leaves: int = 30  # of the largest tree; the smallest has a third


QUICK = Settings(2, 4, 4, 3)
Params = fn.BinaryTreeLSTM
State = tuple[jax.Array, jax.Array]
Gradient = Callable[[Params], Params]


class Forest(NamedTuple):
    """A batch as arrays, and tree by tree."""

    x: tuple[np.ndarray, np.ndarray]
    mask: tuple[np.ndarray, np.ndarray]
    trees: list[Any]  # a tree is a pair of its input and its children


def forest(settings: Settings) -> Forest:
    """Random binary trees."""
    rng = np.random.default_rng(0)

    def grown(leaves: int) -> Any:
        x = rng.standard_normal(settings.inputs, np.float32)
        if leaves == 1:
            return x, ()
        left = int(rng.integers(1, leaves))
        return x, (grown(left), grown(leaves - left))

    trees = [grown(int(n)) for n in rng.integers(settings.leaves // 3, settings.leaves + 1, settings.trees)]
    x, mask = fn.pad_trees(trees, children=lambda tree: tree[1], value=lambda tree: tree[0])
    return Forest(x, mask, trees)


def layer(settings: Settings) -> tuple[fn.Layer, Params]:
    """The layer and its params."""
    net = fn.tree_lstm(settings.units, "binary")
    return net, net.init(jax.random.key(0), forest(settings).x)


# ---------------------------------------------------------------- the batch


def batch_by_hand(settings: Settings) -> tuple[Gradient, dict[str, int]]:
    """`forward` and `backward` of the whole batch."""
    net, _ = layer(settings)

    def gradient(params: Params, x: Any, mask: Any) -> Params:
        h, _, saved = net.forward(params, x, mask=mask)
        dy = jnp.zeros_like(h).at[:, -1].set(h[:, -1] / len(h))
        return net.backward(params, saved, dy)[0]

    return compiled(gradient, settings)


def batch_by_autodiff(settings: Settings) -> tuple[Gradient, dict[str, int]]:
    """`jax.grad` of the plain equations of the whole batch."""
    net, _ = layer(settings)

    def loss(params: Params, x: Any, mask: Any) -> jax.Array:
        roots = net.apply(params, x, mask=mask)[:, -1]
        return 0.5 * (roots**2).sum() / len(roots)

    return compiled(jax.grad(loss), settings)


def compiled(gradient: Callable[..., Params], settings: Settings) -> tuple[Gradient, dict[str, int]]:
    """The gradient as one compiled program, with its arrays on the device."""
    given = forest(settings)
    x, mask = jax.device_put((given.x, given.mask))
    program = jax.jit(gradient)
    figures = compiled_figures(program.lower(layer(settings)[1], x, mask).compile())
    return partial(lambda params, x, mask: program(params, x, mask), x=x, mask=mask), figures


# ---------------------------------------------------------------- loops over the nodes


class Kept(NamedTuple):
    """What one node keeps for the backward pass."""

    x: jax.Array
    h: jax.Array  # of both children, side by side
    c_left: jax.Array
    c_right: jax.Array
    gates: jax.Array
    c: jax.Array


def node(params: Params, x: jax.Array, left: State, right: State) -> tuple[State, Kept]:
    """The equations of one node: Tai et al. (2015), eqs. 9-14."""
    h = jnp.concatenate([left[0], right[0]])
    i, f, g, o = jnp.split(x @ params.w + params.b, 4)
    a = jnp.concatenate([i, f, f, g, o]) + h @ params.u
    i, f_left, f_right, g, o = jnp.split(a, 5)
    i, f_left, f_right, o = map(jax.nn.sigmoid, (i, f_left, f_right, o))
    g = jnp.tanh(g)
    c = i * g + f_left * left[1] + f_right * right[1]
    gates = jnp.concatenate([i, f_left, f_right, g, o])
    return (o * jnp.tanh(c), c), Kept(x, h, left[1], right[1], gates, c)


def node_back(params: Params, total: Params, kept: Kept, dh: jax.Array, dc: jax.Array) -> Any:
    """The params' gradients with this node's added, and the gradients of the children's states."""
    i, f_left, f_right, g, o = jnp.split(kept.gates, 5)
    t = jnp.tanh(kept.c)
    dc = dc + dh * o * (1 - t * t)
    dz = [
        dc * g * i * (1 - i),
        dc * kept.c_left * f_left * (1 - f_left),
        dc * kept.c_right * f_right * (1 - f_right),
        dc * i * (1 - g * g),
        dh * t * o * (1 - o),
    ]
    below = jnp.concatenate(dz)
    own = jnp.concatenate([dz[0], dz[1] + dz[2], *dz[3:]])
    dleft, dright = jnp.split(params.u @ below, 2)
    total = Params(total.w + jnp.outer(kept.x, own), total.u + jnp.outer(kept.h, below), total.b + own)
    return total, (dleft, dc * f_left), (dright, dc * f_right)


def loop_by_autodiff(settings: Settings) -> tuple[Gradient, dict[str, int]]:
    """`jax.grad` of a recursive function."""
    cell = jax.jit(lambda *given: node(*given)[0])
    nothing, trees = zeros(settings), jax.device_put(forest(settings).trees)

    def state(params: Params, tree: Any) -> State:
        x, children = tree
        left, right = [state(params, child) for child in children] or (nothing, nothing)
        return cell(params, x, left, right)

    def loss(params: Params) -> jax.Array:
        return sum(0.5 * (state(params, tree)[0] ** 2).sum() for tree in trees) / len(trees)

    return jax.grad(loss), {}


def loop_by_hand(settings: Settings) -> tuple[Gradient, dict[str, int]]:
    """A compiled cell for each node on the way up, and one on the way down."""
    up, down = jax.jit(node), jax.jit(node_back)
    nothing, trees = zeros(settings), jax.device_put(forest(settings).trees)

    def ascend(params: Params, tree: Any) -> tuple[State, Any]:
        x, children = tree
        (left, below_left), (right, below_right) = [ascend(params, child) for child in children] or (
            (nothing, None),
            (nothing, None),
        )
        state, kept = up(params, x, left, right)
        return state, (kept, below_left, below_right)

    def descend(params: Params, total: Params, branch: Any, dstate: State) -> Params:
        if branch is None:
            return total
        kept, *below = branch
        total, *dstates = down(params, total, kept, *dstate)
        for child, dchild in zip(below, dstates, strict=True):
            total = descend(params, total, child, dchild)
        return total

    def gradient(params: Params) -> Params:
        total = jax.tree.map(jnp.zeros_like, params)
        for tree in trees:
            (h, c), branch = ascend(params, tree)
            total = descend(params, total, branch, (h / len(trees), jnp.zeros_like(c)))
        return total

    return gradient, {}


def zeros(settings: Settings) -> State:
    """The state of a missing child."""
    return jnp.zeros(settings.units), jnp.zeros(settings.units)


# ---------------------------------------------------------------- the comparison

WAYS: dict[str, Callable[[Settings], tuple[Gradient, dict[str, int]]]] = {
    "batch, by hand": batch_by_hand,
    "batch, jax.grad": batch_by_autodiff,
    "loop, by hand": loop_by_hand,
    "loop, jax.grad": loop_by_autodiff,
}
OURS, AUTODIFF, *LOOPS = WAYS


def build(settings: Settings, name: str) -> Built:
    """One gradient, warmed up."""
    gradient, figures = WAYS[name](settings)
    _, params = layer(settings)

    def step() -> None:
        jax.block_until_ready(gradient(params))

    step()
    return Built(step, figures, jax.devices()[0].device_kind)


def agreement(settings: Settings) -> float:
    """The largest difference from the first gradient, relative to its largest entry."""
    _, params = layer(settings)
    vectors = [jnp.concatenate([leaf.ravel() for leaf in way(settings)[0](params)]) for way in WAYS.values()]
    return float(max(jnp.abs(vector - vectors[0]).max() for vector in vectors) / jnp.abs(vectors[0]).max())


def main(options: argparse.Namespace) -> int:
    """Compares, measures, reports; returns the exit status."""
    settings, rounds = QUICK if options.quick else Settings(), options.rounds or ROUNDS[options.quick]
    before, gap = processor(), agreement(QUICK)
    names = (OURS, LOOPS[0]) if options.quick else WAYS
    contenders = [Contender(name, partial(build, name=name)) for name in names]
    turn = TURN / 50 if options.quick else TURN
    rows = measure(contenders, settings, rounds, turn, SITTINGS)
    found = {row.name: row.seconds for row in rows if row.status == MEASURED}
    verdicts = [Verdict(gap <= 1e-5, f"all gradients agree to {gap:.0e} of the largest entry")]
    for name in (AUTODIFF, *LOOPS):
        if OURS not in found or name not in found:
            verdicts.append(Verdict(None, f"{name}: not compared"))
            continue
        times = ratio(found[name], found[OURS])
        least = TIMES if name in LOOPS else 1
        held = (times.high if name == AUTODIFF else times.value) >= least
        verdicts.append(Verdict(held, f"{name}: takes {times} times as long, claimed at least {least}"))
    facts = {"device": next((row.device for row in rows if row.device), "unknown"), "processor": before}
    facts["versions"] = versions(contenders)
    print(", ".join(f"{name} {value}" for name, value in settings._asdict().items()))
    print(f"device {facts['device']} ({before}); {', '.join(' '.join(v) for v in facts['versions'].items())}")
    print(f"{rounds} rounds in random order, one process at a time\n\n{table(rows)}\n")
    for held, text in verdicts:
        print({True: "holds", False: "FAILS", None: "     "}[held], text)
    if options.json:
        report = {"settings": settings._asdict(), "rounds": rounds, **facts, "rows": [*map(asdict, rows)]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(options.check and not all(verdict.held for verdict in verdicts))


if __name__ == "__main__":
    try:
        sys.exit(main(arguments(__doc__, *ROUNDS).parse_args()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
