"""A run as any source gives it: its values by step, the cluster's and each rank's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass, field

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError
from otel_train.read.curve_points import Points, are_within, exact_sum, span_of
from otel_train.ring import Fact

LARGEST = 1e300
"""Bound of values that are added up; sums of larger ones overflow."""
MOST_NAMED = 10
"""Runs that an error names at most."""


class SourceError(ConfigurationError):
    """A source of a run is wrongly given or can't be read; the message is one line."""


class LazyValues(MutableMapping[str, MutableSequence[float]], ABC):
    """Columns that are read when they are asked for, and not kept."""

    @abstractmethod
    def finite_sum(self, key: str) -> tuple[float, int]:
        """Return the sum of a key's finite values, and their number; read once."""

    @abstractmethod
    def newest(self, key: str) -> float:
        """Return the newest value of a key, NaN where there is none, without reading all of them."""


@dataclass(slots=True)
class Track:
    """Values by step, of the cluster or of one rank. Steps grow; a step that an attempt made again counts once."""

    steps: MutableSequence[int] = field(default_factory=list)
    times_ns: MutableSequence[int] = field(default_factory=list)
    """Time at which each step ended, nanoseconds since the epoch."""
    values: MutableMapping[str, MutableSequence[float]] = field(default_factory=dict)
    """By wandb key, as long as `steps`; NaN where a step has no such value."""
    _ahead: set[int] = field(default_factory=set, repr=False, compare=False)
    """Steps that have nothing but merged values, and are newer than all others."""
    merged: set[int] = field(default_factory=set, repr=False, compare=False)
    """Steps that have nothing but merged values."""

    def add(self, step: int, time_ns: int, values: Mapping[str, float]) -> None:
        """Add a step after the others; an older one replaces those from there on, but for what was merged ahead."""
        ahead: list[tuple[int, int, dict[str, float]]] = []
        while self.steps and self.steps[-1] >= step:
            if self.steps[-1] in self._ahead:
                ahead.append(self._row(-1))
            self.steps.pop()
            self.times_ns.pop()
            for column in self.values.values():
                column.pop()
        self._ahead.clear()
        self.merged.discard(step)
        self._insert(len(self.steps), step, time_ns, values)
        for row in ahead:
            self.merge(*row)

    def merge(self, step: int, time_ns: int, values: Mapping[str, float]) -> None:
        """Add values to a step, without replacing others: a step that is not there is inserted in its order."""
        index = bisect_left(self.steps, step)
        if index == len(self.steps) or self.steps[index] != step:
            if index == len(self.steps) or self.steps[index] in self._ahead:
                self._ahead.add(step)
            self.merged.add(step)
            if index < len(self.steps):
                time_ns = min(time_ns, self.times_ns[index])
            self._insert(index, step, max(time_ns, self.times_ns[index - 1]) if index else time_ns, {})
        self._add_columns(values)
        for key, value in values.items():
            self.values[key][index] = value

    def first_own(self) -> float:
        """Return the first step that has values of its own, not only merged ones; infinite where there is none."""
        return next((step for step in self.steps if step not in self.merged), math.inf)

    def extend(self, later: Track) -> None:
        """Add the steps of a track that comes after this one, and merge what was merged there."""
        for step, time_ns, values in later.rows():
            (self.merge if step in later.merged else self.add)(step, time_ns, values)

    def begin_attempt(self) -> None:
        """Note that what follows is another attempt's: what was merged ahead is replaced with the rest."""
        self._ahead.clear()

    def _insert(self, index: int, step: int, time_ns: int, values: Mapping[str, float]) -> None:
        self._add_columns(values)
        self.steps.insert(index, step)
        self.times_ns.insert(index, time_ns)
        for key, column in self.values.items():
            column.insert(index, values.get(key, math.nan))

    def _add_columns(self, values: Mapping[str, float]) -> None:
        for key in values.keys() - self.values.keys():
            self.values[key] = [math.nan] * len(self.steps)

    def _row(self, index: int) -> tuple[int, int, dict[str, float]]:
        values = {key: column[index] for key, column in self.values.items()}
        present = {key: value for key, value in values.items() if not math.isnan(value)}
        return self.steps[index], self.times_ns[index], present

    def rows(self) -> Iterator[tuple[int, int, dict[str, float]]]:
        """Yield (step, time, values) of each step, without the values that it lacks."""
        columns = dict(self.values)  # each is read once
        for index, (step, time_ns) in enumerate(zip(self.steps, self.times_ns, strict=True)):
            row = ((key, column[index]) for key, column in columns.items())
            yield step, time_ns, {key: value for key, value in row if not math.isnan(value)}

    def keep(self, newest: int) -> None:
        """Forget all but so many of the newest steps."""
        if len(self.steps) > newest:
            del self.steps[:-newest], self.times_ns[:-newest]
            for column in self.values.values():
                del column[:-newest]

    def column(self, key: str) -> MutableSequence[float]:
        """Return the values of a key, NaN for each step where it is not known at all."""
        return self.values.get(key) or [math.nan] * len(self.steps)

    def points(self, key: str) -> Iterator[tuple[int, float]]:
        """Yield (step, value) where there is one."""
        for step, value in zip(self.steps, self.column(key), strict=True):
            if not math.isnan(value):
                yield step, value

    def finite(self, key: str) -> Iterator[tuple[int, float]]:
        """Yield (step, value) where there is one that can be added up: not an infinity, and not near to it."""
        return ((step, value) for step, value in self.points(key) if abs(value) < LARGEST)

    def finite_values(self, key: str) -> Sequence[float]:
        """Return the values of `finite` without their steps."""
        return finite_column(self.column(key))

    def finite_sum(self, key: str) -> tuple[float, int]:
        """Return the sum of `finite_values`, and their number."""
        return self.values.finite_sum(key) if isinstance(self.values, LazyValues) else sum_of(self.finite_values(key))

    def finite_mean(self, key: str, empty: float = 0.0) -> float:
        """Return the mean of `finite_values`, or `empty` where there are none."""
        total, number = self.finite_sum(key)
        return total / number if number else empty

    def curve(self, key: str) -> Points:
        """Return the points of a key as columns."""
        points = Points(self.steps, self.column(key))
        if points.values and span_of(points.values) is None:
            return points.where(lambda value: value == value)  # noqa: PLR0124
        return points

    def finite_curve(self, key: str) -> Points:
        """Return the points of `finite` as columns."""
        points = Points(self.steps, self.column(key))
        if are_within(points.values, LARGEST):
            return points
        return points.where(lambda value: -LARGEST < value < LARGEST)

    def last(self, key: str) -> float:
        """Return the newest value of a key, NaN where there is none."""
        if isinstance(self.values, LazyValues):
            return self.values.newest(key)
        return next((value for value in reversed(self.column(key)) if not math.isnan(value)), math.nan)


@dataclass(frozen=True, slots=True)
class MixInterval:
    """The exact picks of one interval, over the ranks that the source has and that draw for themselves."""

    step: int
    """The step that ends the interval."""
    picks: tuple[float, ...]
    """Picks of each modality."""
    shares: tuple[float, ...]
    """Target share of each modality, in force at these picks."""
    rows: float = 1.0
    """Picks that were drawn at once, on average: those of a batch of one modality, or of workers that draw alike."""


@dataclass(slots=True)
class History:
    """A run as far as a source tells of it; fields that the source lacks are empty."""

    source: str
    """Name of the source, in words for people."""
    run_id: str
    world_size: int = 0
    """Ranks of the job; 0 where it is not known."""
    modalities: tuple[str, ...] = ()
    """Those of the mix; none where the job does not measure one."""
    sources: tuple[str, ...] = ()
    """Sources that scalars are given by, where those are not the mix's."""
    cluster: Track = field(default_factory=Track)
    ranks: dict[int, Track] = field(default_factory=dict)
    """Each rank's own values; `_rank` keys are not among them."""
    mix: Sequence[MixInterval] = field(default_factory=list)
    """The picks of each interval, where the source has them exactly; of ranks that draw in one order those of one."""
    order_groups: tuple[tuple[int, ...], ...] = ()
    """The ranks that the source has, grouped by the order in which they draw; empty where it does not tell."""
    reuse: tuple[float, ...] = ()
    """False evictions by reuse distance, over the ranks and steps that the source has: a count for each of
    `REUSE_BOUNDS`, one for larger distances, and the sum of the distances; empty where the source has none."""
    facts: dict[str, Fact] = field(default_factory=dict)
    """The job's settings."""
    dropped: float = math.nan
    """Records that were overwritten before they were sent."""
    refused: float = math.nan
    """Points that the receiver refused for good."""
    refusals: dict[str, float] = field(default_factory=dict)
    """The same by reason, without those of which there are none."""
    wrong_clocks: dict[str, float] = field(default_factory=dict)
    """Seconds that a clock is ahead, or behind where negative, by its rank and host in words: those that are wrong."""
    abandoned: float = math.nan
    """Reductions that were thrown away."""
    exit_code: int | None = None
    """Exit code of the job's newest attempt, 128 and the number of a signal; None where the source tells of no end."""
    failed_rank: int | None = None
    """The rank that had it first, where the source tells."""

    def infer_from_cluster(self) -> None:
        """Set the modalities and the world size by the cluster's values, for a source that has nothing else."""
        prefix = target_key("")
        self.modalities = tuple(key.removeprefix(prefix) for key in self.cluster.values if key.startswith(prefix))
        ranks = self.cluster.last(rows.RANKS.wandb_key)
        self.world_size = 0 if math.isnan(ranks) else round(ranks)

    def by_source(self) -> dict[str, list[str]]:
        """Return the keys of each scalar that is given by source, a source each, by the key of the whole."""
        keys: dict[str, list[str]] = {}
        for source in self.sources or self.modalities:
            for key in self.cluster.values:
                whole = key.removesuffix(f"/{source}")
                if whole != key and whole in self.cluster.values:
                    keys.setdefault(whole, []).append(key)
        return keys


def clock_name(rank: int | str, host: str) -> str:
    """Return how people are told of a rank's clock."""
    return f"rank {rank} on {host}"


def share_key(modality: str) -> str:
    """Return the key of a modality's realised share of the picks."""
    return f"{rows.MODALITY_SHARE.wandb_key}/{modality}"


def target_key(modality: str) -> str:
    """Return the key of a modality's target share of the picks."""
    return f"{rows.MODALITY_TARGET.wandb_key}/{modality}"


def finite_column(values: Sequence[float]) -> Sequence[float]:
    """Return those of some values that can be added up."""
    return values if are_within(values, LARGEST) else [value for value in values if -LARGEST < value < LARGEST]


def sum_of(values: Sequence[float]) -> tuple[float, int]:
    """Return the sum of some values, and their number."""
    return exact_sum(values), len(values)


def mean(values: Sequence[float], empty: float = 0.0) -> float:
    """Return the mean of some values, or `empty` where there are none."""
    return exact_sum(values) / len(values) if values else empty


def first_names(names: Sequence[str]) -> str:
    """Return the first names of a list for an error message; dots tell of more."""
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
