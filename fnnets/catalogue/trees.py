"""The rows with tree networks."""

from __future__ import annotations

from typing import Any

import numpy as np

import fnnets as fn
from fnnets.catalogue.case import MASKS, Case, Draw, ids, layer_case


def forest(*batch: int, nodes: int, places: int, width: int) -> Draw:
    """Draws random trees with these numbers of nodes and places for children; some have several roots."""

    def draw(rng: np.random.Generator) -> Any:
        children = np.full((*batch, nodes, places), -1, np.int32)
        for tree in np.ndindex(batch):
            roots: list[int] = []
            for j in range(nodes):
                for place in rng.permutation(places)[: rng.integers(places + 1)]:
                    if roots:
                        children[(*tree, j, place)] = roots.pop(rng.integers(len(roots)))
                roots.append(j)
        return rng.standard_normal((*batch, nodes, width)), children

    return draw


def tree_cases() -> list[Case]:
    """The rows with tree networks: kinds, numbers of children, and masks."""
    pairs, triples = (forest(5, nodes=4, places=places, width=2) for places in (2, 3))
    there = np.arange(60).reshape(5, 4, 3) % 5 > 0  # masks some children that have a number
    two: dict[str, Any] = {"mask": (MASKS, there[..., :2])}
    three: dict[str, Any] = {"mask": (MASKS, there)}
    kinds: tuple[Any, ...] = ("child_sum", "binary")
    deep = fn.serial(
        fn.nodes(fn.serial(fn.dense(3), fn.tanh())), fn.tree_lstm(2), fn.last(), fn.dense(2), fn.softmax()
    )
    words = fn.serial(fn.nodes(fn.embedding(6, 3)), fn.recursive(2), fn.last(), fn.dense(2))
    return [
        layer_case("recursive", fn.recursive(2), pairs),
        layer_case("recursive, three places, masked", fn.recursive(2, fn.sigmoid()), triples, **three),
        layer_case("tree_lstm, child_sum, three places, masked", fn.tree_lstm(2), triples, **three),
        layer_case("tree_lstm, binary, masked", fn.tree_lstm(2, "binary"), pairs, **two),
        *[
            layer_case(
                f"tree_lstm, {kind}, no bias, no batch", fn.tree_lstm(2, kind, use_bias=False),
                forest(nodes=5, places=2, width=3),
            )
            for kind in kinds
        ],
        layer_case("nodes, tree_lstm, last, dense", deep, triples, **three),
        layer_case("nodes of ids, recursive", words, lambda rng: (ids(6, 5, 4)(rng), pairs(rng)[1]), **two),
    ]  # fmt: skip
