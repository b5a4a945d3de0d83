"""Read back from a store what it has kept of a receiver's check, whatever names it has given it."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from otel_train.catalogue import Instrument, Metric, rows
from otel_train.catalogue.series_names import prometheus_name
from otel_train.probe.probe_run import AGES, ProbeRun
from otel_train.read.history import SourceError
from otel_train.read.query_api import QueryApi, Sample

ARRIVAL, SETTLE = 15.0, 4.0
"""Seconds until the first point must be there, through a collector too, and then until the last."""
PAUSE = 0.25
QUERY_TIMEOUT = 10.0
_WINDOW = max(AGES) + 3600
_WORDS = re.compile(r"[^a-zA-Z0-9]+")


def underscored(name: str) -> str:
    """Return a name with an underscore for each separator, as Prometheus has it by default."""
    return _WORDS.sub("_", name)


@dataclass(frozen=True, slots=True)
class KeptSeries:
    """A series of the run, as the store has it."""

    labels: Mapping[str, str]
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """Name that the store gives it."""
        return self.labels.get("__name__", "")

    def belongs_to(self, row: Metric) -> bool:
        """Tell whether it is of a metric, with another separator or suffix than ours."""
        return underscored(self.name).startswith(underscored(row.name))


@dataclass(frozen=True, slots=True)
class Kept:
    """Series of a run that a store has."""

    series: tuple[KeptSeries, ...] = ()

    def of(self, row: Metric) -> list[KeptSeries]:
        """Return the series of a metric."""
        return [series for series in self.series if series.belongs_to(row)]

    def counts(self) -> dict[int, int]:
        """Return how often the store has a number of each time, in milliseconds since the epoch."""
        counts: dict[int, int] = {}
        for series in self.of(rows.PROBE_VALUE):
            for when, _ in series.samples:
                counts[when] = counts.get(when, 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class Store:
    """The query API of a store.

    Args:
        url: Its address, without `/api/v1`.
    """

    url: str
    _api: QueryApi = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_api", QueryApi(self.url, QUERY_TIMEOUT))

    def check(self) -> None:
        """Check that it answers.

        Raises:
            SourceError: It does not, or not as a Prometheus does.
        """
        self._api.get("query", query="1")

    def read(self, run_id: str) -> Kept:
        """Return what it has of a run: its id is in some label of each series, however labels are called."""
        name = _WORDS.split(rows.PROBE_VALUE.name)
        selector = f'{{__name__=~"{".".join(name[:2])}.+"}}'
        return Kept(
            tuple(
                KeptSeries(labels, tuple(samples))
                for labels, samples in self._api.raw_samples(selector, _WINDOW, time.time())
                if any(run_id in value for value in labels.values())
            )
        )

    def read_back(self, run: ProbeRun, times: Collection[int]) -> Kept:
        """Return what it has of a run once all these times are there, or it takes no more.

        Raises:
            SourceError: It does not answer any more.
        """
        began = time.monotonic()
        first = 0.0
        while True:
            kept = self.read(run.run_id)
            now = time.monotonic()
            first = first or (now if kept.series else 0.0)
            late = now - (first or began) > (SETTLE if first else ARRIVAL)
            if late or (first and set(times) <= kept.counts().keys()):
                return kept
            time.sleep(PAUSE)


def first_store(addresses: Collection[str]) -> Store | None:
    """Return the first address that answers queries; None where none does."""
    for address in addresses:
        store = Store(address)
        try:
            store.check()
        except SourceError:
            continue
        return store
    return None


def expected_names() -> dict[Metric, str]:
    """Return the names under which the dashboards would look for the metrics of the check."""
    return {row: prometheus_name(row.name, row.unit, Instrument(row.instrument)) for row in rows.PROBE}
