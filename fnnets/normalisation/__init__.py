"""Layers that give their input a mean of 0 and a variance of 1, and then a scale and a bias of their own."""

from fnnets.normalisation.batch_norm import BatchNorm as BatchNorm
from fnnets.normalisation.batch_norm import batch_norm as batch_norm
from fnnets.normalisation.group_norm import GroupNorm as GroupNorm
from fnnets.normalisation.group_norm import group_norm as group_norm
from fnnets.normalisation.layer_norm import LayerNorm as LayerNorm
from fnnets.normalisation.layer_norm import layer_norm as layer_norm
from fnnets.normalisation.rms_norm import RMSNorm as RMSNorm
from fnnets.normalisation.rms_norm import rms_norm as rms_norm
