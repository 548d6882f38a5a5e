"""The losses: each has its equation and, next to it, the gradient derived by hand."""

from fnnets.losses._poisson import poisson as poisson
from fnnets.losses.binary import binary_cross_entropy as binary_cross_entropy
from fnnets.losses.binary import sigmoid_cross_entropy as sigmoid_cross_entropy
from fnnets.losses.classification import cross_entropy as cross_entropy
from fnnets.losses.classification import kl_divergence as kl_divergence
from fnnets.losses.classification import nll as nll
from fnnets.losses.classification import softmax_cross_entropy as softmax_cross_entropy
from fnnets.losses.loss import Loss as Loss
from fnnets.losses.regression import half_squared_error as half_squared_error
from fnnets.losses.regression import hinge as hinge
from fnnets.losses.regression import huber as huber
from fnnets.losses.regression import mae as mae
from fnnets.losses.regression import mse as mse
from fnnets.losses.regression import squared_error as squared_error

__all__ = [
    "Loss", "binary_cross_entropy", "cross_entropy", "half_squared_error", "hinge", "huber", "kl_divergence",
    "mae", "mse", "nll", "poisson", "sigmoid_cross_entropy", "softmax_cross_entropy", "squared_error",
]  # fmt: skip
