"""Training: a step, whole epochs, and many models in one program."""

from fnnets.saving import CheckpointError as CheckpointError
from fnnets.saving import Checkpoints as Checkpoints
from fnnets.saving import checkpoints as checkpoints
from fnnets.train._fit import Fitted as Fitted
from fnnets.train._fit import fit as fit
from fnnets.train.epoch import History as History
from fnnets.train.evaluation import accuracy as accuracy
from fnnets.train.evaluation import evaluate as evaluate
from fnnets.train.many import CrossValidated as CrossValidated
from fnnets.train.many import Ensemble as Ensemble
from fnnets.train.many import Prediction as Prediction
from fnnets.train.many import Recipe as Recipe
from fnnets.train.many import Swept as Swept
from fnnets.train.many import cross_validate as cross_validate
from fnnets.train.many import ensemble as ensemble
from fnnets.train.many import predict as predict
from fnnets.train.many import sweep as sweep
from fnnets.train.non_finite import NonFiniteError as NonFiniteError
from fnnets.train.state import State as State
from fnnets.train.state import start as start
from fnnets.train.step import make_step as make_step
from fnnets.train.stopping import Best as Best
from fnnets.train.stopping import EarlyStopping as EarlyStopping
from fnnets.train.stopping import early_stopping as early_stopping

__all__ = [
    "Best", "CheckpointError", "Checkpoints", "CrossValidated", "EarlyStopping", "Ensemble", "Fitted",
    "History", "NonFiniteError", "Prediction", "Recipe", "State", "Swept", "accuracy", "checkpoints",
    "cross_validate", "early_stopping", "ensemble", "evaluate", "fit", "make_step", "predict", "start",
    "sweep",
]  # fmt: skip
