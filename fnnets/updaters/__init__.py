"""The updaters: each its rule, and each an optax GradientTransformation."""

from fnnets.updaters.adadelta import AdadeltaState as AdadeltaState
from fnnets.updaters.adadelta import adadelta as adadelta
from fnnets.updaters.adagrad import AdagradState as AdagradState
from fnnets.updaters.adagrad import adagrad as adagrad
from fnnets.updaters.adam import AdamState as AdamState
from fnnets.updaters.adam import adam as adam
from fnnets.updaters.adamw import adamw as adamw
from fnnets.updaters.momentum import MomentumState as MomentumState
from fnnets.updaters.momentum import momentum as momentum
from fnnets.updaters.nesterov import nesterov as nesterov
from fnnets.updaters.newton import NewtonState as NewtonState
from fnnets.updaters.newton import newton as newton
from fnnets.updaters.rmsprop import RMSpropState as RMSpropState
from fnnets.updaters.rmsprop import rmsprop as rmsprop
from fnnets.updaters.sgd import SGDState as SGDState
from fnnets.updaters.sgd import sgd as sgd
