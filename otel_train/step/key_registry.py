"""Agree over the ranks on a number for each key that comes after the first step: without a collective, by the store.

A number is the key's slot in the reductions from then on. The rank that has the key claims the next free number in the
store that all ranks of the job share, or finds the number that another rank has claimed for it; so a value is in its
slot in the very reduction of its step, and whoever reads the slot finds the key in the store. No rank ever waits for
another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from otel_train.exceptions import ConfigurationError
from otel_train.log_once import OnceLogger
from otel_train.ring import MOST_LATE_KEYS
from otel_train.step.job_store import JobStore, existing
from otel_train.step.late_values import LateKey
from otel_train.step.rank_group import RankGroup
from otel_train.step.user_metrics import check_names

logger = logging.getLogger(__name__)


class KeyRegistry:
    """The numbers of one session's late keys, as far as this rank knows them.

    Args:
        group: The ranks. One that is alone numbers its keys itself.
    """

    def __init__(self, group: RankGroup) -> None:
        self._store = None if group.handle is None else JobStore(group)
        self._keys: list[LateKey | None] = []
        """By number; None for one that can't be recorded beside those before it."""
        self._numbers: dict[LateKey, int | None] = {}
        self._warnings = OnceLogger(logger)

    def number(self, key: LateKey) -> int | None:
        """Return a key's number; None where it was not claimed, there are no more, or it can't have one."""
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
            self._note(existing(store, f"{prefix}/{len(self._keys)}").decode())

    def _note(self, text: str) -> None:
        """Note the key of the next number: all ranks note the same keys in the same order, and refuse the same."""
        key = LateKey.decode(text)
        refusal = self._refusal(key)
        self._numbers[key] = None if refusal else len(self._keys)
        self._keys.append(None if refusal else key)
        if refusal:
            self._warnings.warn(
                f"key {key.metric.name}",
                "telemetry: the values of %r are in the own records of the ranks that have it only: %s",
                key.metric.name,
                refusal,
            )

    def _refusal(self, key: LateKey) -> str:
        """Return why a key can't be recorded beside those before it, which other ranks may have brought."""
        before = [other.metric for other in self._keys if other is not None]
        if any(other.name == key.metric.name for other in before):
            return "ranks give it to be reduced in different ways, such as a DTensor's part and a number"
        try:
            check_names([*before, key.metric])
        except ConfigurationError as error:
            return str(error)
        return ""

    def _ask(self, task: Callable[[Any, str], object]) -> None:
        if self._store is None:
            task(None, "")
            return
        failure = self._store.ask(lambda store, prefix: task(store, f"{prefix}/keys"))
        if failure:
            self._warnings.warn(
                "store",
                "telemetry: the ranks can't agree on keys that come after the first step (%s): their values are in "
                "each rank's own records only. Give the keys at the first step, as None where they have no value yet",
                failure,
            )
