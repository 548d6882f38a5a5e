"""The layers: each has its equation and, next to it, the gradient derived by hand."""

from fnnets.layers._dense import Dense as Dense
from fnnets.layers._dense import dense as dense
from fnnets.layers._dropout import dropout as dropout
from fnnets.layers._embedding import Embedding as Embedding
from fnnets.layers._embedding import embedding as embedding
from fnnets.layers.shapes import flatten as flatten
from fnnets.layers.shapes import identity as identity
from fnnets.layers.shapes import reshape as reshape
