"""Layers that normalise their input to mean 0 and variance 1, then apply a learned scale and bias."""

from fnnets.layers.normalisation._batch_norm import BatchNorm as BatchNorm
from fnnets.layers.normalisation._batch_norm import batch_norm as batch_norm
from fnnets.layers.normalisation._group_norm import GroupNorm as GroupNorm
from fnnets.layers.normalisation._group_norm import group_norm as group_norm
from fnnets.layers.normalisation._layer_norm import LayerNorm as LayerNorm
from fnnets.layers.normalisation._layer_norm import layer_norm as layer_norm
from fnnets.layers.normalisation._rms_norm import RMSNorm as RMSNorm
from fnnets.layers.normalisation._rms_norm import rms_norm as rms_norm
