"""The layers: each its equation, and beside it the gradient derived by hand."""

from fnnets.layers.dense import Dense as Dense
from fnnets.layers.dense import dense as dense
from fnnets.layers.dropout import dropout as dropout
from fnnets.layers.embedding import Embedding as Embedding
from fnnets.layers.embedding import embedding as embedding
from fnnets.layers.over_time import last as last
from fnnets.layers.over_time import max_over_time as max_over_time
from fnnets.layers.over_time import mean_over_time as mean_over_time
from fnnets.layers.rectifiers import PReLU as PReLU
from fnnets.layers.rectifiers import elu as elu
from fnnets.layers.rectifiers import gelu as gelu
from fnnets.layers.rectifiers import leaky_relu as leaky_relu
from fnnets.layers.rectifiers import prelu as prelu
from fnnets.layers.rectifiers import relu as relu
from fnnets.layers.rectifiers import selu as selu
from fnnets.layers.rectifiers import silu as silu
from fnnets.layers.rectifiers import softplus as softplus
from fnnets.layers.shapes import flatten as flatten
from fnnets.layers.shapes import identity as identity
from fnnets.layers.shapes import reshape as reshape
from fnnets.layers.squashing import hard_sigmoid as hard_sigmoid
from fnnets.layers.squashing import log_softmax as log_softmax
from fnnets.layers.squashing import sigmoid as sigmoid
from fnnets.layers.squashing import softmax as softmax
from fnnets.layers.squashing import tanh as tanh
