"""Functional neural networks in JAX, with gradients derived by hand and compared with autodiff.

`import fnnets as fn`. Contents:

layers: dense, dropout, embedding, flatten, identity, reshape
activations: elu, gelu, hard_sigmoid, leaky_relu, log_softmax, mish, prelu, relu, selu, sigmoid, silu,
  softmax, softplus, tanh
recurrent: elman, gates, gru, jordan, lstm, mgu, recurrent
over time: generate, last, length_mask, max_over_time, mean_over_time, pad_sequences, shift_right,
  truncated_bptt
trees: nodes, pad_trees, recursive, tree_lstm
images: avg_pool, conv, conv_transpose, global_avg_pool, global_max_pool, max_pool, out_size, upsample
normalisation: batch_norm, group_norm, layer_norm, rms_norm
networks: bidirectional, branch, encoder_decoder, residual, serial, stack
losses, in fn.losses: binary_cross_entropy, cross_entropy, half_squared_error, hinge, huber, kl_divergence,
  mae, mse, nll, poisson, sigmoid_cross_entropy, softmax_cross_entropy, squared_error
penalties: l1, l2
updaters, in fn.updaters: adadelta, adagrad, adam, adamax, adamw, momentum, nesterov, newton, rmsprop, sgd
curvature, in fn.curvature: empirical_fisher, empirical_fisher_diagonal, ggn, hvp
gradients: by_hand, gradient_noise_scale, per_example_gradients, value_and_grad_by_hand
forward mode by hand: rtrl
comparison: assert_grad_matches, compare, compare_grad
your own: Cell, Info, Layer, Static, layer
params: count_params, freeze, kernels, load, save, trainable, zero_carry
data, in fn.data: batches, bootstrap, holdout, kfold, min_max, oversample, standardise, take, undersample,
  vocabulary, windows
training, in fn.train: accuracy, checkpoints, cross_validate, early_stopping, ensemble, evaluate, fit,
  make_step, predict, start, sweep
insight: gradient_flow, intermediates, locate_nan, summary, trace_backward
plots, in fn.plots: gradient_flow, heat_map, plot_history, trace
types: GRU, LSTM, MGU, RTRL, Aux, BatchNorm, BinaryTreeLSTM, ChildSumTreeLSTM, Conv, CoupledLSTM, Dense,
  Elman, Embedding, GradientFlow, GradientNoise, GroupNorm, Jordan, LSTMCarry, LayerNorm, NonFinite, PReLU,
  Penalty, RMSNorm, RTRLState, Recursive, Report, Row, Stats, Trees, TruncatedBPTT, Window
"""

# Written by `python tests/support/contents.py`. To add a name, add it to its package's list.

from fnnets import data as data
from fnnets import losses as losses
from fnnets import plots as plots
from fnnets import train as train
from fnnets import updaters as updaters
from fnnets.combinators import bidirectional as bidirectional
from fnnets.combinators import branch as branch
from fnnets.combinators import encoder_decoder as encoder_decoder
from fnnets.combinators import residual as residual
from fnnets.combinators import serial as serial
from fnnets.combinators import stack as stack
from fnnets.comparison import Report as Report
from fnnets.comparison import Row as Row
from fnnets.comparison import assert_grad_matches as assert_grad_matches
from fnnets.comparison import compare as compare
from fnnets.comparison import compare_grad as compare_grad
from fnnets.core.layer import Info as Info
from fnnets.core.layer import Layer as Layer
from fnnets.core.layer import Static as Static
from fnnets.core.layer import layer as layer
from fnnets.core.parameters import Stats as Stats
from fnnets.core.parameters import count_params as count_params
from fnnets.core.parameters import freeze as freeze
from fnnets.core.parameters import kernels as kernels
from fnnets.core.parameters import trainable as trainable
from fnnets.core.parameters import zero_carry as zero_carry
from fnnets.core.version import __version__ as __version__
from fnnets.gradients import RTRL as RTRL
from fnnets.gradients import Aux as Aux
from fnnets.gradients import GradientNoise as GradientNoise
from fnnets.gradients import RTRLState as RTRLState
from fnnets.gradients import TruncatedBPTT as TruncatedBPTT
from fnnets.gradients import Window as Window
from fnnets.gradients import by_hand as by_hand
from fnnets.gradients import curvature as curvature
from fnnets.gradients import gradient_noise_scale as gradient_noise_scale
from fnnets.gradients import per_example_gradients as per_example_gradients
from fnnets.gradients import rtrl as rtrl
from fnnets.gradients import truncated_bptt as truncated_bptt
from fnnets.gradients import value_and_grad_by_hand as value_and_grad_by_hand
from fnnets.insight import GradientFlow as GradientFlow
from fnnets.insight import NonFinite as NonFinite
from fnnets.insight import gradient_flow as gradient_flow
from fnnets.insight import intermediates as intermediates
from fnnets.insight import locate_nan as locate_nan
from fnnets.insight import summary as summary
from fnnets.insight import trace_backward as trace_backward
from fnnets.layers import Dense as Dense
from fnnets.layers import Embedding as Embedding
from fnnets.layers import dense as dense
from fnnets.layers import dropout as dropout
from fnnets.layers import embedding as embedding
from fnnets.layers import flatten as flatten
from fnnets.layers import identity as identity
from fnnets.layers import reshape as reshape
from fnnets.layers.activations import PReLU as PReLU
from fnnets.layers.activations import elu as elu
from fnnets.layers.activations import gelu as gelu
from fnnets.layers.activations import hard_sigmoid as hard_sigmoid
from fnnets.layers.activations import leaky_relu as leaky_relu
from fnnets.layers.activations import log_softmax as log_softmax
from fnnets.layers.activations import mish as mish
from fnnets.layers.activations import prelu as prelu
from fnnets.layers.activations import relu as relu
from fnnets.layers.activations import selu as selu
from fnnets.layers.activations import sigmoid as sigmoid
from fnnets.layers.activations import silu as silu
from fnnets.layers.activations import softmax as softmax
from fnnets.layers.activations import softplus as softplus
from fnnets.layers.activations import tanh as tanh
from fnnets.layers.convolution import Conv as Conv
from fnnets.layers.convolution import conv as conv
from fnnets.layers.convolution import conv_transpose as conv_transpose
from fnnets.layers.convolution import out_size as out_size
from fnnets.layers.convolution import upsample as upsample
from fnnets.layers.normalisation import BatchNorm as BatchNorm
from fnnets.layers.normalisation import GroupNorm as GroupNorm
from fnnets.layers.normalisation import LayerNorm as LayerNorm
from fnnets.layers.normalisation import RMSNorm as RMSNorm
from fnnets.layers.normalisation import batch_norm as batch_norm
from fnnets.layers.normalisation import group_norm as group_norm
from fnnets.layers.normalisation import layer_norm as layer_norm
from fnnets.layers.normalisation import rms_norm as rms_norm
from fnnets.layers.pooling import avg_pool as avg_pool
from fnnets.layers.pooling import global_avg_pool as global_avg_pool
from fnnets.layers.pooling import global_max_pool as global_max_pool
from fnnets.layers.pooling import last as last
from fnnets.layers.pooling import max_over_time as max_over_time
from fnnets.layers.pooling import max_pool as max_pool
from fnnets.layers.pooling import mean_over_time as mean_over_time
from fnnets.losses.penalties import Penalty as Penalty
from fnnets.losses.penalties import l1 as l1
from fnnets.losses.penalties import l2 as l2
from fnnets.rnn import GRU as GRU
from fnnets.rnn import LSTM as LSTM
from fnnets.rnn import MGU as MGU
from fnnets.rnn import Cell as Cell
from fnnets.rnn import CoupledLSTM as CoupledLSTM
from fnnets.rnn import Elman as Elman
from fnnets.rnn import Jordan as Jordan
from fnnets.rnn import LSTMCarry as LSTMCarry
from fnnets.rnn import elman as elman
from fnnets.rnn import gates as gates
from fnnets.rnn import generate as generate
from fnnets.rnn import gru as gru
from fnnets.rnn import jordan as jordan
from fnnets.rnn import length_mask as length_mask
from fnnets.rnn import lstm as lstm
from fnnets.rnn import mgu as mgu
from fnnets.rnn import pad_sequences as pad_sequences
from fnnets.rnn import recurrent as recurrent
from fnnets.rnn import shift_right as shift_right
from fnnets.saving import load as load
from fnnets.saving import save as save
from fnnets.trees import BinaryTreeLSTM as BinaryTreeLSTM
from fnnets.trees import ChildSumTreeLSTM as ChildSumTreeLSTM
from fnnets.trees import Recursive as Recursive
from fnnets.trees import Trees as Trees
from fnnets.trees import nodes as nodes
from fnnets.trees import pad_trees as pad_trees
from fnnets.trees import recursive as recursive
from fnnets.trees import tree_lstm as tree_lstm

__all__ = [
    "GRU", "LSTM", "MGU", "RTRL", "Aux", "BatchNorm", "BinaryTreeLSTM", "Cell", "ChildSumTreeLSTM", "Conv",
    "CoupledLSTM", "Dense", "Elman", "Embedding", "GradientFlow", "GradientNoise", "GroupNorm", "Info",
    "Jordan", "LSTMCarry", "Layer", "LayerNorm", "NonFinite", "PReLU", "Penalty", "RMSNorm", "RTRLState",
    "Recursive", "Report", "Row", "Static", "Stats", "Trees", "TruncatedBPTT", "Window", "__version__",
    "assert_grad_matches", "avg_pool", "batch_norm", "bidirectional", "branch", "by_hand", "compare",
    "compare_grad", "conv", "conv_transpose", "count_params", "curvature", "data", "dense", "dropout",
    "elman", "elu", "embedding", "encoder_decoder", "flatten", "freeze", "gates", "gelu", "generate",
    "global_avg_pool", "global_max_pool", "gradient_flow", "gradient_noise_scale", "group_norm", "gru",
    "hard_sigmoid", "identity", "intermediates", "jordan", "kernels", "l1", "l2", "last", "layer",
    "layer_norm", "leaky_relu", "length_mask", "load", "locate_nan", "log_softmax", "losses", "lstm",
    "max_over_time", "max_pool", "mean_over_time", "mgu", "mish", "nodes", "out_size", "pad_sequences",
    "pad_trees", "per_example_gradients", "plots", "prelu", "recurrent", "recursive", "relu", "reshape",
    "residual", "rms_norm", "rtrl", "save", "selu", "serial", "shift_right", "sigmoid", "silu", "softmax",
    "softplus", "stack", "summary", "tanh", "trace_backward", "train", "trainable", "tree_lstm",
    "truncated_bptt", "updaters", "upsample", "value_and_grad_by_hand", "zero_carry",
]  # fmt: skip
