"""Layers that move a window over the input, channels last."""

from fnnets.layers.convolution._conv import conv as conv
from fnnets.layers.convolution._conv_transpose import conv_transpose as conv_transpose
from fnnets.layers.convolution._upsample import upsample as upsample
from fnnets.layers.convolution.geometry import out_size as out_size
from fnnets.layers.convolution.kernels import Conv as Conv
