"""Say so where a meter counts in a process whose counts reach nobody: a loader's workers have copies of it.

A copy is told by what made it, so that the original pays nothing: a fork marks all meters of the child, and a meter
that is unpickled sees that another process has pickled it. A mark replaces the methods of that one object.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)

TAG_ROWS = " where the loop reads a batch, or tag the rows: see otel_train.SourceMeter"
"""Advice for what counts rows."""
MOST_CALLS = 10_000
"""Calls in a process that no loader has started before they are suspected: it may be a rank, whose first step ends."""
_STEPPING = ("end_step", "drain_measurements", "drain_step_metrics")
"""Methods that the training process calls, and no other."""
_PROCESS = "__process__"


class _Process:
    """State of this process; a forked child begins anew."""

    name = os.urandom(8)
    told = False
    counters: ClassVar[WeakValueDictionary[int, TrainingCounter]] = WeakValueDictionary()


class TrainingCounter:
    """A meter that counts in the training process only; a copy in a DataLoader's worker warns, once a process.

    The worker's copy counts nothing. A copy in another child of the training process counts, since it may be a rank
    itself; it warns where no step ends in `MOST_CALLS` calls.

    Args:
        counting: Names of the methods that count.
        instead: What to do, as the end of "call it in the training process".
    """

    _counting: ClassVar[tuple[str, ...]] = ()
    _instead: ClassVar[str] = ""

    def __init_subclass__(cls, *, counting: str = "", instead: str = "", **others: Any) -> None:
        super().__init_subclass__(**others)
        if counting:
            cls._counting, cls._instead = tuple(counting.split()), instead

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Return a meter, made here or unpickled, of which a fork will know."""
        counter = super().__new__(cls)
        _Process.counters[id(counter)] = counter
        if get_worker_info() is not None:
            counter._mark()
        return counter

    def __getstate__(self) -> dict[str, Any]:
        marked = (*self._counting, *_STEPPING)
        return {name: value for name, value in vars(self).items() if name not in marked} | {_PROCESS: _Process.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if vars(self).pop(_PROCESS, None) != _Process.name:
            self._mark()

    def _mark(self) -> None:
        """Look at each call from now on, until a step ends in this process."""
        calls = [0]
        for name in self._counting:
            vars(self)[name] = partial(self._count, calls, name)
        for name in _STEPPING:
            vars(self)[name] = partial(self._end_step, name)

    def _count(self, calls: list[int], name: str, /, *arguments: Any, **options: Any) -> Any:
        if get_worker_info() is not None:
            self._warn(name, "in a DataLoader's worker process, whose copy reaches nobody: none of it is counted")
            return None
        calls[0] += 1
        if calls[0] == MOST_CALLS:
            self._warn(
                name,
                f"{MOST_CALLS} times in a process that the meter was not made in, before a step has ended there: if it "
                "is not a rank's training process, its counts reach nobody",
            )
        return getattr(type(self), name)(self, *arguments, **options)

    def _end_step(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        if get_worker_info() is None:  # it is a rank
            for marked in (*self._counting, *_STEPPING):
                vars(self).pop(marked, None)
        return getattr(type(self), name)(self, *arguments, **options)

    def _warn(self, name: str, how: str) -> None:
        if not _Process.told:
            _Process.told = True
            logger.warning(
                "%s.%s was called %s; call it in the training process%s", type(self).__name__, name, how, self._instead
            )


def _begin_child() -> None:
    _Process.name, _Process.told = os.urandom(8), False
    for counter in list(_Process.counters.values()):
        mark: Callable[[], None] = counter._mark  # noqa: SLF001  # this module's own
        mark()


os.register_at_fork(after_in_child=_begin_child)
