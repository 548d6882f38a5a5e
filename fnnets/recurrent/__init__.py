"""Recurrent layers: cells, and what runs them over time."""

from fnnets.recurrent.cell import Cell as Cell
from fnnets.recurrent.elman import Elman as Elman
from fnnets.recurrent.elman import elman as elman
from fnnets.recurrent.gates import gates as gates
from fnnets.recurrent.gru import GRU as GRU
from fnnets.recurrent.gru import gru as gru
from fnnets.recurrent.jordan import Jordan as Jordan
from fnnets.recurrent.jordan import jordan as jordan
from fnnets.recurrent.lstm import LSTM as LSTM
from fnnets.recurrent.lstm import CoupledLSTM as CoupledLSTM
from fnnets.recurrent.lstm import LSTMCarry as LSTMCarry
from fnnets.recurrent.lstm import lstm as lstm
from fnnets.recurrent.recurrence import recurrent as recurrent
