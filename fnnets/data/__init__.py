"""Data before training: splits, scaling, balance and batches. Pure functions of arrays and keys."""

from fnnets.data._bootstrap import bootstrap as bootstrap
from fnnets.data._holdout import holdout as holdout
from fnnets.data._kfold import kfold as kfold
from fnnets.data._vocabulary import Vocabulary as Vocabulary
from fnnets.data._vocabulary import vocabulary as vocabulary
from fnnets.data._windows import windows as windows
from fnnets.data.balance import oversample as oversample
from fnnets.data.balance import undersample as undersample
from fnnets.data.batching import Batches as Batches
from fnnets.data.batching import batches as batches
from fnnets.data.examples import Examples as Examples
from fnnets.data.examples import take as take
from fnnets.data.scaling import Scale as Scale
from fnnets.data.scaling import Scaler as Scaler
from fnnets.data.scaling import min_max as min_max
from fnnets.data.scaling import standardise as standardise
from fnnets.data.split import Split as Split

__all__ = [
    "Batches", "Examples", "Scale", "Scaler", "Split", "Vocabulary", "batches", "bootstrap", "holdout",
    "kfold", "min_max", "oversample", "standardise", "take", "undersample", "vocabulary", "windows",
]  # fmt: skip
