"""Recurrent layers: cells, and the code that runs them over time."""

from fnnets.rnn._elman import Elman as Elman
from fnnets.rnn._elman import elman as elman
from fnnets.rnn._gates import gates as gates
from fnnets.rnn._gru import GRU as GRU
from fnnets.rnn._gru import gru as gru
from fnnets.rnn._jordan import Jordan as Jordan
from fnnets.rnn._jordan import jordan as jordan
from fnnets.rnn._lstm import LSTM as LSTM
from fnnets.rnn._lstm import CoupledLSTM as CoupledLSTM
from fnnets.rnn._lstm import LSTMCarry as LSTMCarry
from fnnets.rnn._lstm import lstm as lstm
from fnnets.rnn._mgu import MGU as MGU
from fnnets.rnn._mgu import mgu as mgu
from fnnets.rnn.cell import Cell as Cell
from fnnets.rnn.generation import generate as generate
from fnnets.rnn.padding import length_mask as length_mask
from fnnets.rnn.padding import pad_sequences as pad_sequences
from fnnets.rnn.recurrence import recurrent as recurrent
from fnnets.rnn.shift import shift_right as shift_right
