"""Layers made of layers: their forward and backward are those of the children, composed."""

from fnnets.combinators.bidirectional import bidirectional as bidirectional
from fnnets.combinators.branch import branch as branch
from fnnets.combinators.encoder_decoder import encoder_decoder as encoder_decoder
from fnnets.combinators.residual import residual as residual
from fnnets.combinators.serial import serial as serial
from fnnets.combinators.stack import stack as stack
