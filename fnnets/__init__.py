"""Functional neural networks in JAX, with gradients derived by hand and compared with autodiff.

`import fnnets as fn`.
"""

from fnnets import curvature as curvature
from fnnets import losses as losses
from fnnets import updaters as updaters
from fnnets.combinators import branch as branch
from fnnets.combinators import residual as residual
from fnnets.combinators import serial as serial
from fnnets.combinators import stack as stack
from fnnets.comparison import Report as Report
from fnnets.comparison import Row as Row
from fnnets.comparison import assert_grad_matches as assert_grad_matches
from fnnets.comparison import compare as compare
from fnnets.comparison import compare_grad as compare_grad
from fnnets.contract import Info as Info
from fnnets.contract import Layer as Layer
from fnnets.contract import Static as Static
from fnnets.contract import layer as layer
from fnnets.differentiate import Aux as Aux
from fnnets.differentiate import by_hand as by_hand
from fnnets.differentiate import value_and_grad_by_hand as value_and_grad_by_hand
from fnnets.layers import Dense as Dense
from fnnets.layers import Embedding as Embedding
from fnnets.layers import PReLU as PReLU
from fnnets.layers import dense as dense
from fnnets.layers import dropout as dropout
from fnnets.layers import elu as elu
from fnnets.layers import embedding as embedding
from fnnets.layers import flatten as flatten
from fnnets.layers import gelu as gelu
from fnnets.layers import hard_sigmoid as hard_sigmoid
from fnnets.layers import identity as identity
from fnnets.layers import leaky_relu as leaky_relu
from fnnets.layers import log_softmax as log_softmax
from fnnets.layers import prelu as prelu
from fnnets.layers import relu as relu
from fnnets.layers import reshape as reshape
from fnnets.layers import selu as selu
from fnnets.layers import sigmoid as sigmoid
from fnnets.layers import silu as silu
from fnnets.layers import softmax as softmax
from fnnets.layers import softplus as softplus
from fnnets.layers import tanh as tanh
from fnnets.observe import intermediates as intermediates
from fnnets.parameters import Stats as Stats
from fnnets.parameters import count_params as count_params
from fnnets.parameters import freeze as freeze
from fnnets.parameters import kernels as kernels
from fnnets.parameters import trainable as trainable
from fnnets.parameters import zero_carry as zero_carry
from fnnets.penalties import Penalty as Penalty
from fnnets.penalties import l1 as l1
from fnnets.penalties import l2 as l2
from fnnets.summarise import summary as summary
