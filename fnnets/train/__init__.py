"""Training: a step, whole epochs, and many models in one program."""

from fnnets.train.early_stopping import Best as Best
from fnnets.train.early_stopping import EarlyStopping as EarlyStopping
from fnnets.train.early_stopping import early_stopping as early_stopping
from fnnets.train.epoch import History as History
from fnnets.train.evaluate import accuracy as accuracy
from fnnets.train.evaluate import evaluate as evaluate
from fnnets.train.fit import Fitted as Fitted
from fnnets.train.fit import fit as fit
from fnnets.train.non_finite import NonFiniteError as NonFiniteError
from fnnets.train.state import State as State
from fnnets.train.state import start as start
from fnnets.train.step import make_step as make_step
