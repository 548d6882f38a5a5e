"""Data before training: how it is parted, scaled, balanced and read. Pure functions of arrays and keys."""

from fnnets.data.balance import oversample as oversample
from fnnets.data.balance import undersample as undersample
from fnnets.data.batches import Batches as Batches
from fnnets.data.batches import batches as batches
from fnnets.data.bootstrap import bootstrap as bootstrap
from fnnets.data.examples import Examples as Examples
from fnnets.data.examples import take as take
from fnnets.data.holdout import holdout as holdout
from fnnets.data.kfold import kfold as kfold
from fnnets.data.scaling import Scale as Scale
from fnnets.data.scaling import Scaler as Scaler
from fnnets.data.scaling import min_max as min_max
from fnnets.data.scaling import standardise as standardise
from fnnets.data.split import Split as Split
from fnnets.data.vocabulary import Vocabulary as Vocabulary
from fnnets.data.vocabulary import vocabulary as vocabulary
from fnnets.data.windows import windows as windows
