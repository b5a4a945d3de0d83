"""LedgerMeter: a cache of the user's own is measured as the ledger measures itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.ledger import LedgerMeter, stable_hash
from tests.support.ledger_model import Model


@given(st.integers(1, 5), st.integers(1, 7), st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=20))
def test_equals_the_model(capacity: int, ring: int, batches: list[list[int]]) -> None:
    """Fresh writes, false evictions and reuse distances are those of the cache that was told about."""

    class CountedModel(Model):
        """A cache that tells a meter what it does, as a user's own would."""

        def __init__(self, meter: LedgerMeter, ring: int) -> None:
            super().__init__(meter.capacity, ring)
            self.meter = meter

        def use(self, key: Any, state: Any) -> None:
            """Tell of the store."""
            if state is not None:
                self.meter.store(key)
            super().use(key, state)

        def evict(self, key: Any) -> None:
            """Tell of the eviction."""
            self.meter.evict(key)
            super().evict(key)

    meter = LedgerMeter(capacity, recently_evicted=ring)
    model = CountedModel(meter, ring)
    for batch in batches:
        model.store([(key, True) for key in batch])
    assert meter.drain_measurements() == model.drain()


def test_resumes_from_saved_state() -> None:
    """A meter that loads a saved state knows what is held and what was evicted."""
    first, second = LedgerMeter(2), LedgerMeter(2)
    for key in ("a", "b", "c"):
        first.store(key)
    first.evict("a")
    first.end_step(7)
    second.load_state_dict(first.state_dict())
    for meter in (first, second):
        meter.store("a")
        meter.hit(2)
    assert first.drain_measurements() == second.drain_measurements()
    assert second.last_extra_metrics["ledger/false_evictions"] == 1


def test_discarded_keys_are_not_evicted() -> None:
    """A discarded key and a wiped one are fresh when they return, and nothing else."""
    meter = LedgerMeter(2)
    for key in ("a", "b"):
        meter.store(key)
    meter.discard("a")
    meter.evict("b", "stale")
    meter.wipe()
    meter.store("a")
    meter.store("b")
    assert meter.drain_measurements()[:5] == [0, 1, 4, 0, 2]


def test_cache_older_than_meter() -> None:
    """An entry that the meter never saw stored counts when it is evicted, each time from the new end of the ring."""
    meter = LedgerMeter(2)
    for key in ("a", "b", "a"):
        meter.evict(key)
    meter.store("b")
    values = meter.drain_measurements()
    assert values[:4] == [3, 0, 1, 1]
    assert values[-1] == 2


def test_sends_events() -> None:
    """Events have the form that the ledger's own have."""
    events: list[dict[str, object]] = []
    meter = LedgerMeter(1, events=events.append)
    meter.store("a")
    meter.end_step(1)
    meter.evict("a")
    meter.wipe()
    assert events == [
        {"event": "store", "step": 1, "key": stable_hash("a")},
        {"event": "evict", "step": 2, "key": stable_hash("a"), "why": "overflow"},
        {"event": "wipe", "step": 2},
    ]


def test_unknown_reason_raises() -> None:
    """An eviction is an overflow or stale; anything else is a mistake that is named."""
    with pytest.raises(ConfigurationError, match="'lru'"):
        LedgerMeter(1).evict("a", "lru")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda meter: meter.hit(-1), "entries must be a whole number that is not negative, got -1"),
        (lambda meter: meter.hit(float("nan")), "entries must be"),
        (lambda meter: meter.store(None), "a stream id must be a str or an int of 64 bits, got NoneType"),
        (lambda meter: meter.store(["a"]), "a stream id must be"),
        (lambda meter: meter.evict(1.5), "a stream id must be"),
    ],
)
def test_wrong_arguments_count_nothing(call: Any, error: str) -> None:
    """A mistake of the caller's is named, and the counts stay as they were."""
    meter = LedgerMeter(1)
    with pytest.raises(ValueError, match=error):
        call(meter)
    assert meter.drain_measurements() == LedgerMeter(1).drain_measurements()


def test_foreign_state_raises() -> None:
    """The state of another class is none of a meter's."""
    with pytest.raises(StateMismatchError, match=r"a state of LedgerMeter must have .* 'held' is missing"):
        LedgerMeter(1).load_state_dict({"step": 3})
