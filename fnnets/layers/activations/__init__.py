"""Activations: functions of each value or of each row."""

from fnnets.layers.activations._mish import mish as mish
from fnnets.layers.activations.rectifiers import PReLU as PReLU
from fnnets.layers.activations.rectifiers import elu as elu
from fnnets.layers.activations.rectifiers import gelu as gelu
from fnnets.layers.activations.rectifiers import leaky_relu as leaky_relu
from fnnets.layers.activations.rectifiers import prelu as prelu
from fnnets.layers.activations.rectifiers import relu as relu
from fnnets.layers.activations.rectifiers import selu as selu
from fnnets.layers.activations.rectifiers import silu as silu
from fnnets.layers.activations.rectifiers import softplus as softplus
from fnnets.layers.activations.squashing import hard_sigmoid as hard_sigmoid
from fnnets.layers.activations.squashing import log_softmax as log_softmax
from fnnets.layers.activations.squashing import sigmoid as sigmoid
from fnnets.layers.activations.squashing import softmax as softmax
from fnnets.layers.activations.squashing import tanh as tanh
