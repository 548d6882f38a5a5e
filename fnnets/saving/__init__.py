"""Saves and loads params and the state of a training, bit for bit."""

from fnnets.saving.checkpoint_folder import Checkpoints as Checkpoints
from fnnets.saving.checkpoint_folder import checkpoints as checkpoints
from fnnets.saving.params_file import load as load
from fnnets.saving.params_file import save as save
from fnnets.saving.storage import CheckpointError as CheckpointError
