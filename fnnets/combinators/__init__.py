"""Layers made of other layers: forward and backward compose those of the children."""

from fnnets.combinators._bidirectional import bidirectional as bidirectional
from fnnets.combinators._branch import branch as branch
from fnnets.combinators._encoder_decoder import encoder_decoder as encoder_decoder
from fnnets.combinators._residual import residual as residual
from fnnets.combinators._serial import serial as serial
from fnnets.combinators._stack import stack as stack
