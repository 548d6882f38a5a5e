"""A table of every layer, loss and updater in small settings; the command line and the tests share it.

A new layer needs a row in the file of its kind. A test names what lacks a row.
"""

from fnnets.catalogue.activations import activation_cases as activation_cases
from fnnets.catalogue.case import MASKS as MASKS
from fnnets.catalogue.case import Case as Case
from fnnets.catalogue.case import layer_case as layer_case
from fnnets.catalogue.case import loss_case as loss_case
from fnnets.catalogue.case import normal as normal
from fnnets.catalogue.case import penalty_case as penalty_case
from fnnets.catalogue.case import random_like as random_like
from fnnets.catalogue.case import random_params as random_params
from fnnets.catalogue.combinators import network_cases as network_cases
from fnnets.catalogue.convolution import convolution_cases as convolution_cases
from fnnets.catalogue.layers import layer_cases as layer_cases
from fnnets.catalogue.losses import loss_cases as loss_cases
from fnnets.catalogue.normalisation import normalisation_cases as normalisation_cases
from fnnets.catalogue.pooling import pooling_cases as pooling_cases
from fnnets.catalogue.rnn import recurrent_cases as recurrent_cases
from fnnets.catalogue.sequences import sequence_cases as sequence_cases
from fnnets.catalogue.trees import forest as forest
from fnnets.catalogue.trees import tree_cases as tree_cases
from fnnets.catalogue.updaters import UpdaterCase as UpdaterCase
from fnnets.catalogue.updaters import updater_cases as updater_cases


def cases() -> list[Case]:
    """All rows whose gradients are compared."""
    return [
        *layer_cases(), *activation_cases(), *convolution_cases(), *normalisation_cases(), *pooling_cases(),
        *network_cases(), *recurrent_cases(), *sequence_cases(), *tree_cases(),
        *loss_cases(),
    ]  # fmt: skip
