"""One training with everything that its epochs need."""

from __future__ import annotations

from typing import Any, NamedTuple

from fnnets.train.epoch import History, Training
from fnnets.train.placement import Data, Placement
from fnnets.train.settings import Settings


class Job(NamedTuple):
    """The settings of a training, the devices it runs on, its data and its compiled epoch."""

    settings: Settings
    placement: Placement
    data: Data
    epoch: Any  # of `compiled_epoch`

    def run_epoch(self, training: Training) -> tuple[Training, History]:
        """Runs the next epoch; the buffers of `training` are donated."""
        with self.placement.active():
            return self.epoch(training, self.data.examples, self.data.validation)

    def trace(self, training: Training) -> Any:
        """Traces the program of an epoch."""
        return self.epoch.trace(training, self.data.examples, self.data.validation)
