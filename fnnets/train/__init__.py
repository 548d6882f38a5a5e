"""Training: a step, whole epochs, and many models in one program."""

from fnnets.train.checkpoints import Checkpoints as Checkpoints
from fnnets.train.checkpoints import checkpoints as checkpoints
from fnnets.train.cross_validate import CrossValidated as CrossValidated
from fnnets.train.cross_validate import cross_validate as cross_validate
from fnnets.train.early_stopping import Best as Best
from fnnets.train.early_stopping import EarlyStopping as EarlyStopping
from fnnets.train.early_stopping import early_stopping as early_stopping
from fnnets.train.ensemble import Ensemble as Ensemble
from fnnets.train.ensemble import Prediction as Prediction
from fnnets.train.ensemble import ensemble as ensemble
from fnnets.train.ensemble import predict as predict
from fnnets.train.epoch import History as History
from fnnets.train.evaluate import accuracy as accuracy
from fnnets.train.evaluate import evaluate as evaluate
from fnnets.train.fit import Fitted as Fitted
from fnnets.train.fit import fit as fit
from fnnets.train.non_finite import NonFiniteError as NonFiniteError
from fnnets.train.state import State as State
from fnnets.train.state import start as start
from fnnets.train.step import make_step as make_step
from fnnets.train.storage import CheckpointError as CheckpointError
from fnnets.train.sweep import Recipe as Recipe
from fnnets.train.sweep import Swept as Swept
from fnnets.train.sweep import sweep as sweep
