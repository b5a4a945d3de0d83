"""The progress of the training process and of its DataLoader workers, in memory that they share."""

from __future__ import annotations

import logging
import time
from multiprocessing import active_children
from typing import Any

import torch

from otel_train.exceptions import ConfigurationError
from otel_train.torch_modes import outside_modes

logger = logging.getLogger(__name__)

MOST_WORKERS = 256
START_TIMEOUT = 30.0
"""Seconds that the training process waits at most for a worker that has not begun while another one has."""

_PRODUCED, _CONSUMED, _WORKERS, _BEGUN = 0, 1, 2, 3


class WorkerProgress:
    """Counts of the picks that the workers have read and the loop has consumed, and of the starts of each worker.

    A worker that begins again (a persistent one, after the loop was left) must go on where the loop is, and all of
    them must see the same pick. So the training process counts no batch while some worker has begun more often than
    another.
    """

    @outside_modes
    def __init__(self) -> None:
        self._shared = torch.zeros(_BEGUN + MOST_WORKERS, dtype=torch.int64, device="cpu")
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._warned = False
        self._from = 0
        """The pick at which the training process began or went on."""

    @property
    @outside_modes
    def produced(self) -> int:
        """The largest number of picks that a worker has read."""
        return int(self._shared[_PRODUCED])

    @property
    @outside_modes
    def consumed(self) -> int:
        """The number of picks that the training loop has consumed."""
        return int(self._shared[_CONSUMED])

    @outside_modes
    def begin(self, worker: int, workers: int, times: int) -> None:
        """Note, in a worker that has looked where the loop is, that it begins for the `times`-th time.

        Raises:
            ConfigurationError: There are too many workers.
        """
        if workers > MOST_WORKERS:
            raise ConfigurationError(
                f"a DataLoader over this dataset has at most {MOST_WORKERS} workers, got {workers}"
            )
        self._shared[_WORKERS] = workers
        self._shared[_BEGUN + worker] = times

    @outside_modes
    def read(self, picks: int) -> None:
        """Note, where a DataLoader makes a batch, that it has read the row of the last of so many picks."""
        self._shared[_PRODUCED] = max(self.produced, picks)

    @outside_modes
    def consume(self, picks: int) -> None:
        """Note, in the training process, that so many picks are consumed."""
        self._shared[_CONSUMED] = picks

    @outside_modes
    def restart(self, picks: int) -> None:
        """Note, in the training process, that it goes on after so many picks."""
        self._from = picks
        self._shared[_PRODUCED] = self._shared[_CONSUMED] = picks

    @outside_modes
    def await_workers(self) -> None:
        """Wait, in the training process, until all workers have begun as often as the first one, or none is left.

        Of a loader that is gone, as after `next(iter(loader))`, a worker may have ended before it began.
        """
        begun = self._shared[_BEGUN : _BEGUN + int(self._shared[_WORKERS])]
        deadline = time.monotonic() + START_TIMEOUT
        while len(begun) and int(begun.min()) < int(begun.max()) and time.monotonic() < deadline:
            if not active_children():
                return
            time.sleep(0.001)

    def warn_of_lost_picks(self, picks: int) -> None:
        """Warn once, in the training process, where a DataLoader has made picks and none of them is among its own."""
        if not self._warned and picks == self._from and self.produced > picks:
            self._warned = True
            logger.warning(
                "the DataLoader has made %d picks, none was counted, and a resume would read the same rows again: its "
                "collate_fn, or what wraps the dataset, keeps no MixedBatch; put the collate_fn into MixedCollate, or "
                "hand the rows' 'pick' and 'length' to StreamMixingDataset.consume() in the training loop",
                self.produced - self._from,
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> WorkerProgress:
        # The copy of a shared tensor is not shared, and its workers are others.
        copied = WorkerProgress()
        copied.restart(self.consumed)
        return copied
