"""Sequences: their masks and padding, what a network writes on its own, and training on long streams."""

from fnnets.sequences.generate import generate as generate
from fnnets.sequences.padding import length_mask as length_mask
from fnnets.sequences.padding import pad_sequences as pad_sequences
from fnnets.sequences.rtrl import RTRL as RTRL
from fnnets.sequences.rtrl import RTRLState as RTRLState
from fnnets.sequences.rtrl import rtrl as rtrl
from fnnets.sequences.shift import shift_right as shift_right
from fnnets.sequences.truncated import TruncatedBPTT as TruncatedBPTT
from fnnets.sequences.truncated import Window as Window
from fnnets.sequences.truncated import truncated_bptt as truncated_bptt
