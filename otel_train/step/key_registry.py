"""Agree over the ranks on a number for each key that comes after the first step: without a collective, by the store.

A number is the key's slot in the reductions from then on. The rank that has the key claims the next free number in the
store that all ranks of the job share, or finds the number that another rank has claimed for it; so a value is in its
slot in the very reduction of its step, and whoever reads the slot finds the key in the store. No rank ever waits for
another one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist

from otel_train.log_once import OnceLogger
from otel_train.ring import MOST_LATE_KEYS
from otel_train.step.late_values import LateKey
from otel_train.step.rank_group import RankGroup

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that the training thread waits for the store at most: once for a new key, not at each step."""
_PAUSE = 60.0
"""Seconds until a store that did not answer is asked again."""


class KeyRegistry:
    """The numbers of one session's late keys, as far as this rank knows them.

    Args:
        group: The ranks. One that is alone numbers its keys itself.
    """

    def __init__(self, group: RankGroup) -> None:
        self._group = group
        self._keys: list[LateKey] = []
        """By number."""
        self._numbers: dict[LateKey, int] = {}
        self._thread: threading.Thread | None = None
        """Asks the store, while it does."""
        self._again_at = 0.0
        self._warnings = OnceLogger(logger)

    def number(self, key: LateKey) -> int | None:
        """Return a key's number; None where it was not claimed, or there are no more."""
        return self._numbers.get(key)

    def claim(self, keys: Sequence[LateKey]) -> None:
        """Claim a number for each key that has none; see `number` for what came of it."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        if missing and len(self._keys) < MOST_LATE_KEYS:
            self._ask(lambda store, prefix: self._claim(store, prefix, missing))
        if len(self._keys) >= MOST_LATE_KEYS and (refused := [key for key in missing if key not in self._numbers]):
            self._warnings.warn(
                "most",
                "telemetry: the ranks have more than %d keys that came after the first step: %r and others are not in "
                "the cluster's values. Give them at the first step, as None where they have no value yet",
                MOST_LATE_KEYS,
                refused[0].metric.name,
            )

    def key(self, number: int) -> LateKey | None:
        """Return the key of a number that some rank has used; None where the store does not tell."""
        if number >= len(self._keys):
            self._ask(lambda store, prefix: self._read(store, prefix, number))
        return self._keys[number] if number < len(self._keys) else None

    def _claim(self, store: Any, prefix: str, keys: Sequence[LateKey]) -> None:
        for key, text in [(key, key.encode()) for key in keys]:
            while key not in self._numbers and (number := len(self._keys)) < MOST_LATE_KEYS:
                self._note(text if store is None else store.compare_set(f"{prefix}/{number}", "", text).decode())

    def _read(self, store: Any, prefix: str, number: int) -> None:
        while store is not None and len(self._keys) <= number:
            self._note(store.get(f"{prefix}/{len(self._keys)}").decode())

    def _note(self, text: str) -> None:
        """Note the key of the next number."""
        key = LateKey.decode(text)
        self._numbers[key] = len(self._keys)
        self._keys.append(key)

    def _ask(self, task: Callable[[Any, str], object]) -> None:
        """Run a task on the store, for `PATIENCE` seconds at most; it goes on where it takes longer."""
        handle = self._group.handle
        if handle is None:
            task(None, "")
            return
        if time.monotonic() < self._again_at or (self._thread is not None and self._thread.is_alive()):
            return
        core = dist.distributed_c10d
        failures: list[Exception] = []

        def run() -> None:
            try:
                prefix = f"otel_train/keys/{core._get_process_group_name(handle)}"  # noqa: SLF001
                task(core._get_default_store(), prefix)  # noqa: SLF001
            except Exception as error:  # noqa: BLE001  # a store may lack an operation, or be gone; what it raises differs
                failures.append(error)

        self._thread = threading.Thread(target=run, name="otel_train keys", daemon=True)
        self._thread.start()
        self._thread.join(PATIENCE)
        if failures or self._thread.is_alive():
            self._again_at = time.monotonic() + _PAUSE
            self._warnings.warn(
                "store",
                "telemetry: the ranks can't agree on keys that come after the first step (%s): their values are in "
                "each rank's own records only. Give the keys at the first step, as None where they have no value yet",
                repr(failures[0]) if failures else f"the job's store does not answer within {PATIENCE:g} s",
            )
