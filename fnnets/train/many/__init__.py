"""Trains many models at the same time, in one program."""

from fnnets.train.many._cross_validate import CrossValidated as CrossValidated
from fnnets.train.many._cross_validate import cross_validate as cross_validate
from fnnets.train.many._ensemble import Ensemble as Ensemble
from fnnets.train.many._ensemble import Prediction as Prediction
from fnnets.train.many._ensemble import ensemble as ensemble
from fnnets.train.many._ensemble import predict as predict
from fnnets.train.many._sweep import Recipe as Recipe
from fnnets.train.many._sweep import Swept as Swept
from fnnets.train.many._sweep import sweep as sweep
