"""The store that all ranks of a job share, asked within a bound of time.

A client of torch's TCP store does one thing at a time: whoever waits in it for a key keeps the whole process from it,
and so from making process groups. So nothing here waits for a key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from otel_train.step.rank_group import RankGroup

PATIENCE = 2.0
"""Seconds that the training thread waits for the store at most."""
_PAUSE = 60.0
"""Seconds until a store that did not answer is asked again."""


def existing(store: Any, key: str) -> bytes:
    """Return a key's value.

    Raises:
        LookupError: Nobody has set it.
    """
    if not store.check([key]):
        raise LookupError(f"no rank has set {key}")
    return bytes(store.get(key))


class JobStore:
    """The job's store, as one session asks it: for what is not asked at each step.

    Args:
        group: The session's ranks, more than one.
    """

    def __init__(self, group: RankGroup) -> None:
        assert group.handle is not None, "there are several ranks"
        # Later the group may be gone, and its name with it.
        self._prefix = f"otel_train/{dist.distributed_c10d._get_process_group_name(group.handle)}"  # noqa: SLF001
        self._thread: threading.Thread | None = None
        """Asks the store, while it does."""
        self._again_at = 0.0

    def ask(self, task: Callable[[Any, str], object], patience: float | None = None) -> str:
        """Run a task on the store, in a thread that goes on where it takes longer.

        Args:
            task: Takes the store, and how the session's keys begin. It reads a key by `existing` only.
            patience: Seconds that this takes at most; `PATIENCE` when None.

        Returns:
            Why the task is not done; empty where it is.
        """
        if time.monotonic() < self._again_at or (self._thread is not None and self._thread.is_alive()):
            return "the job's store did not answer"
        failures: list[Exception] = []

        def run() -> None:
            try:
                task(dist.distributed_c10d._get_default_store(), self._prefix)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001  # a store may lack an operation, or be gone; what it raises differs
                failures.append(error)

        bound = PATIENCE if patience is None else patience
        self._thread = threading.Thread(target=run, name="otel_train store", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread is to be had, as while a process ends from Python 3.12 on
            run()
        else:
            self._thread.join(bound)
        if not failures and not self._thread.is_alive():
            return ""
        self._again_at = time.monotonic() + _PAUSE
        return repr(failures[0]) if failures else f"the job's store does not answer within {bound:g} s"
