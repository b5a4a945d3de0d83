"""Bring to the emitting rank, by the job's store, what ranks logged beside the steps and no reduction has taken."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from otel_train.step.job_store import JobStore, existing
from otel_train.step.late_values import LateKey, LateValue, joined
from otel_train.step.rank_group import RankGroup

_PAUSE = 0.005
"""Seconds between two looks at how many ranks have closed."""


class LastLogs:
    """Values that ranks leave in the job's store when they close their session.

    A collective can't do it: a rank may have nothing, close much earlier, or have more than a vector holds.

    Args:
        group: The ranks. One that is alone leaves nothing.
    """

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._store = None if group.handle is None else JobStore(group)

    def give(self, values: Sequence[LateValue], timeout: float) -> str:
        """Leave this rank's values, and say that it has closed; return why that failed, empty where it did not.

        Args:
            values: The values; what of them is on a GPU is waited for.
            timeout: Seconds that it takes at most.
        """
        assert self._store is not None, "there are several ranks"

        def task(store: Any, prefix: str) -> None:
            if values:
                text = json.dumps([_dump(value) for value in values])
                store.set(f"{prefix}/logs/{store.add(f'{prefix}/logs', 1)}", text)
            store.add(f"{prefix}/closed", 1)

        return self._store.ask(task, timeout)

    def take(self, timeout: float, *, waits: bool) -> tuple[list[LateValue], str]:
        """Return the values of all ranks, those of one key and step as one, and why some are missing.

        Args:
            timeout: Seconds that it takes at most.
            waits: Whether ranks that have not closed yet are waited for.
        """
        assert self._store is not None, "there are several ranks"
        deadline = time.monotonic() + timeout
        taken: dict[tuple[int | None, LateKey], LateValue] = {}

        def task(store: Any, prefix: str) -> None:
            while store.add(f"{prefix}/closed", 0) < self._group.world_size:
                if not waits or time.monotonic() > deadline - _PAUSE:
                    break
                time.sleep(_PAUSE)
            for number in range(1, store.add(f"{prefix}/logs", 0) + 1):
                key = f"{prefix}/logs/{number}"
                while not store.check([key]) and time.monotonic() < deadline:  # its rank has only taken the number
                    time.sleep(_PAUSE)
                for value in map(_load, json.loads(existing(store, key))):
                    before = taken.get((value.step, value.key))
                    taken[value.step, value.key] = value if before is None else joined(before, value)

        failure = self._store.ask(task, timeout)
        return ([] if failure else list(taken.values())), failure


def _dump(value: LateValue) -> list[Any]:
    device = 0.0 if value.device is None else value.device.item()
    return [value.key.encode(), value.total + device, value.weight, value.step]


def _load(dumped: list[Any]) -> LateValue:
    key, total, weight, step = dumped
    return LateValue(LateKey.decode(key).metric, total, weight, step)
