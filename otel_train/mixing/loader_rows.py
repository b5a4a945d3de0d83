"""The rows that a DataLoader gets from the mixing dataset: those of one worker's batches, uncounted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import get_worker_info

from otel_train.exceptions import ConfigurationError
from otel_train.mixing.batch import MixedBatch
from otel_train.mixing.callers import Loader, Slices, check_collate
from otel_train.mixing.plan import MixPlan, Pick
from otel_train.mixing.progress import WorkerProgress


def check_loader(loader: Loader, rank: int, world_size: int, batch_size: int) -> None:
    """Check that a loader keeps the rows' picks, and divides the rows as the dataset deals its streams.

    Raises:
        ConfigurationError: It does not, so rows would be left out or not counted.
    """
    check_collate(loader.collate)
    slices = loader.slices
    if slices is None:
        return
    if (slices.process, slices.processes) != (rank, world_size):
        raise ConfigurationError(
            f"rank must be {slices.process} and world_size {slices.processes} as accelerate divides the rows, got "
            f"{rank} and {world_size}; make the dataset after the Accelerator, or give it rank and world_size"
        )
    if slices.rows != batch_size:
        raise ConfigurationError(
            f"batch_size must be {slices.rows} as accelerate takes so many rows for a batch of a process, got "
            f"{batch_size}; give the dataset the batch size of a process"
        )


class LoaderRows(Iterator[Any]):
    """Rows of a worker's batches, from where the training loop is; they count when the loop reads their batch.

    Where accelerate divides the rows by the processes once more, the rows of others, which it throws away, are None.

    Args:
        plan: A plan of its own, at the first pick that the loop has not consumed.
        next_pick: Makes the plan's next pick.
        read: Reads the row of a pick.
        token: The dataset's.
        batch_size: Rows of a batch.
        progress: Shared with the training process.
        slices: How accelerate divides the rows.
    """

    def __init__(
        self,
        plan: MixPlan,
        next_pick: Callable[[MixPlan], Pick | None],
        read: Callable[[Pick], dict[str, Any]],
        *,
        token: str,
        batch_size: int,
        progress: WorkerProgress,
        slices: Slices | None,
    ) -> None:
        self._plan, self._next_pick, self._read_row = plan, next_pick, read
        self._token, self._batch_size, self._progress, self._slices = token, batch_size, progress, slices
        worker = get_worker_info()
        self._worker, self._workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self._start = plan.index
        """The pick at which the first worker's first batch begins."""
        self._ready: deque[Any] = deque()
        self._repeats = 0
        """Rows to make that the loader has had before and throws away again."""

    def __next__(self) -> Any:
        """Return the next row.

        Raises:
            StopIteration: No slot has data left.
        """
        if self._ready:
            return self._ready.popleft()
        if self._slices is None and not self._repeats:
            return self._row()
        self._make_ready()
        return self._ready.popleft()

    def _row(self) -> MixedBatch:
        while (pick := self._next_pick(self._plan)) is not None:
            if (pick.index - self._start) // self._batch_size % self._workers == self._worker:
                values = self._read_row(pick)
                self._progress.read(pick.index + 1)
                return MixedBatch(values, self._token)
        raise StopIteration

    def _make_ready(self) -> None:
        """Make a batch of rows, with what belongs before and after them."""
        rows: list[Any] = []
        while len(rows) < self._batch_size:
            try:
                rows.append(self._row())
            except StopIteration:
                break
        slices = self._slices
        if not rows or (slices is not None and not slices.completes and len(rows) < slices.rows):
            raise StopIteration
        while self._repeats > 0:
            # What they hold does not matter, but a collate function wants to see the names that all rows have.
            self._ready += [MixedBatch({**dict(dict.items(row)), "pick": -1}, self._token) for row in rows if row]
            self._repeats -= len(rows)
        if slices is not None:
            # As accelerate does with the last batch; rows that a batch has twice count once.
            rows += [rows[index % len(rows)] for index in range(slices.rows - len(rows))]
            before = slices.process * slices.rows
            rows = [None] * before + rows + [None] * (slices.rows * slices.processes - before - len(rows))
        self._ready += rows

    def state_dict(self) -> dict[str, int]:
        """Return the worker's position; the training loop's is the dataset's."""
        return {"start": self._start, "next": self._plan.index}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on with the batch of the worker that follows those which a saved loader had handed out.

        The dataset's own state is the truth. Where that is at a later pick, as when the loader makes again what was
        consumed since its last snapshot, rows are made to be thrown away. Where the dataset has none, the plan goes
        on from its beginning to the loader's position.
        """
        self._start = state["start"]
        while self._plan.index < state["next"] and self._next_pick(self._plan) is not None:
            pass
        batches = range(state["next"], self._plan.index, self._batch_size)
        own = [pick for pick in batches if (pick - self._start) // self._batch_size % self._workers == self._worker]
        self._repeats = len(own) * self._batch_size
