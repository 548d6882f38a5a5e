"""The updaters: each is one rule, and an optax GradientTransformation."""

from fnnets.updaters._adadelta import AdadeltaState as AdadeltaState
from fnnets.updaters._adadelta import adadelta as adadelta
from fnnets.updaters._adagrad import AdagradState as AdagradState
from fnnets.updaters._adagrad import adagrad as adagrad
from fnnets.updaters._adam import AdamState as AdamState
from fnnets.updaters._adam import adam as adam
from fnnets.updaters._adamax import AdamaxState as AdamaxState
from fnnets.updaters._adamax import adamax as adamax
from fnnets.updaters._adamw import adamw as adamw
from fnnets.updaters._momentum import MomentumState as MomentumState
from fnnets.updaters._momentum import momentum as momentum
from fnnets.updaters._nesterov import nesterov as nesterov
from fnnets.updaters._newton import NewtonState as NewtonState
from fnnets.updaters._newton import newton as newton
from fnnets.updaters._rmsprop import RMSpropState as RMSpropState
from fnnets.updaters._rmsprop import rmsprop as rmsprop
from fnnets.updaters._sgd import SGDState as SGDState
from fnnets.updaters._sgd import sgd as sgd

__all__ = [
    "AdadeltaState", "AdagradState", "AdamState", "AdamaxState", "MomentumState", "NewtonState",
    "RMSpropState", "SGDState", "adadelta", "adagrad", "adam", "adamax", "adamw", "momentum", "nesterov",
    "newton", "rmsprop", "sgd",
]  # fmt: skip
