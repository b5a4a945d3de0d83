"""The receiver of single events, from which every value can be computed anew."""

from __future__ import annotations

from typing import Protocol


class EventSink(Protocol):
    """A callable that takes one event as a dict with `"event"` and `"step"`.

    A mixer sends `pick`, `open`, `restart` and `close` (with slot, stream, modality) and `weights`; a ledger `store`
    and `evict` (with key; an evict also with why) and `wipe`; a session `drain`, at the end of each interval.

    Examples:
        >>> import otel_train
        >>> events = []
        >>> meter = otel_train.LedgerMeter(capacity=8, events=events.append)
        >>> meter.store("doc-17")
        >>> events[0]["event"], events[0]["step"]
        ('store', 1)
    """

    def __call__(self, event: dict[str, object], /) -> object:
        """Take one event, on the training thread."""
