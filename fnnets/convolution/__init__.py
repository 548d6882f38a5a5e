"""Layers that move a window over their input, channels last."""

from fnnets.convolution.conv import conv as conv
from fnnets.convolution.conv_transpose import conv_transpose as conv_transpose
from fnnets.convolution.kernel import Conv as Conv
from fnnets.convolution.upsample import upsample as upsample
from fnnets.convolution.window import out_size as out_size
