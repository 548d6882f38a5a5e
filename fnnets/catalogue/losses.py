"""The rows with losses and penalties."""

from __future__ import annotations

import numpy as np

import fnnets as fn
from fnnets.catalogue.case import (
    GAPS,
    Case,
    ids,
    log_probabilities,
    loss_case,
    normal,
    one_hot,
    penalty_case,
    probabilities,
    shares,
    signs,
)


def loss_cases() -> list[Case]:
    """The rows with losses and penalties."""
    losses = fn.losses
    weights = np.array([0.5, 1.0, 2.0, 0.25, 1.5])
    rows = [
        loss_case("half_squared_error", losses.half_squared_error(), normal(4, 5), normal(4, 5)),
        loss_case("squared_error", losses.squared_error(), normal(4, 5), normal(4, 5)),
        loss_case("mse", losses.mse(), normal(4, 5), normal(4, 5)),
        loss_case("mse, masked", losses.mse(), normal(4, 3, 5), normal(4, 3, 5), mask=GAPS),
        loss_case("mae", losses.mae(), normal(4, 5), normal(4, 5)),
        loss_case("huber", losses.huber(), normal(4, 5), normal(4, 5)),
        loss_case("hinge", losses.hinge(), normal(4, 5), signs(4, 5)),
        loss_case("poisson", losses.poisson(), normal(4, 5), lambda rng: rng.poisson(2.0, (4, 5))),
        loss_case(
            "poisson, rates",
            losses.poisson(log_input=False),
            lambda rng: rng.uniform(0.2, 4.0, (4, 5)),
            lambda rng: rng.poisson(2.0, (4, 5)),
        ),
        loss_case("kl_divergence", losses.kl_divergence(), log_probabilities(4, 5), probabilities(4, 5)),
        loss_case("binary_cross_entropy", losses.binary_cross_entropy(), shares(4, 5), shares(4, 5)),
        loss_case("sigmoid_cross_entropy", losses.sigmoid_cross_entropy(), normal(4, 5), shares(4, 5)),
        loss_case(
            "sigmoid_cross_entropy, masked",
            losses.sigmoid_cross_entropy(),
            normal(4, 3, 5),
            shares(4, 3, 5),
            mask=GAPS,
        ),
    ]
    classes = (
        (losses.cross_entropy, probabilities),
        (losses.nll, log_probabilities),
        (losses.softmax_cross_entropy, normal),
    )
    for factory, y in classes:
        name, full = factory.__name__, factory(weights=weights, label_smoothing=0.1, ignore_label=2)
        rows += [
            loss_case(f"{name}, labels", factory(), y(6, 5), ids(5, 6)),
            loss_case(f"{name}, one-hot", factory(), y(6, 5), one_hot(5, 6)),
            loss_case(f"{name}, soft", factory(weights=weights), y(6, 5), probabilities(6, 5)),
            loss_case(f"{name}, all options", full, y(4, 3, 5), ids(5, 4, 3), mask=GAPS),
        ]
    net = fn.serial(fn.dense(3), fn.prelu(), fn.dense(2))
    return [
        *rows,
        penalty_case("l1", fn.l1(0.1, n=3), net, normal(4, 5)),
        penalty_case("l2", fn.l2(0.1), net, normal(4, 5)),
    ]
