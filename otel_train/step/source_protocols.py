"""Protocols of a source: what it must have, and what it may have besides.

A class need not inherit from any of these: the names are what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from otel_train.catalogue import Metric, Phase
from otel_train.step.declarations import Scalar

if TYPE_CHECKING:
    from otel_train.ring import Fact

FlatDrain = Callable[[int], Sequence[float]]
EndStep = Callable[[int], None]


@runtime_checkable
class Source(Protocol):
    """Anything that measures something each step: our dataset, ledger and meters, or a class of the user's own.

    It may also be a `ModalSource`, a `RowSource`, a `SteppedSource`, a `ClockedSource`, a `FlatSource`, a
    `DescribedSource` and a `WatchedSource`.

    Examples:
        >>> import otel_train
        >>> class Cache:
        ...     metrics = (otel_train.Scalar("cache/hits", "sum"), otel_train.Scalar("cache/depth", "max"))
        ...     hits = 0
        ...     def drain_step_metrics(self, step=None):
        ...         hits, self.hits = self.hits, 0
        ...         return {"cache/hits": hits, "cache/depth": 3}
        >>> cache = Cache()
        >>> isinstance(cache, otel_train.Source)
        True
        >>> with otel_train.init(sources=[cache], blocking=True) as telemetry:
        ...     cache.hits += 5
        ...     values = telemetry.step(1)
        >>> values["cache/hits"], values["cache/depth"]
        (5.0, 3.0)
    """

    @property
    def metrics(self) -> Sequence[Scalar | Metric]:
        """Declarations of what it measures, the same on each rank; read once."""

    def drain_step_metrics(self, step: int | None = None) -> Mapping[str, Any]:
        """End the interval with `step` and return its values by metric name (or wandb key).

        A sum, max or min is a number; a mean a number, or a pair (numerator, denominator). What it leaves out, or gives
        as None, is absent.
        """


class ModalSource(Source, Protocol):
    """A source of metrics with a series for each modality, as those of the catalogue's mixing part are.

    Examples:
        >>> import otel_train
        >>> source: otel_train.ModalSource = otel_train.MixingMeter(2, ["code", "prose"], {"code": 1, "prose": 3})
        >>> source.modalities
        ('code', 'prose')
    """

    @property
    def modalities(self) -> Sequence[str]:
        """Names of the modalities, the same on each rank and of each source."""


class SteppedSource(Source, Protocol):
    """A source that hears of each step, also of one that is not a log step and drains nothing.

    Examples:
        >>> import otel_train
        >>> source: otel_train.SteppedSource = otel_train.LedgerMeter(capacity=8)
        >>> source.end_step(1)
    """

    def end_step(self, step: int) -> None:
        """Note the end of a step that is not a log step."""


class ClockedSource(SteppedSource, Protocol):
    """A source of which training itself depends on `end_step`: it is called with telemetry disabled, too.

    Examples:
        >>> import otel_train
        >>> source: otel_train.ClockedSource = otel_train.StateLedger([4], capacity=8, max_idle_steps=100)
        >>> source.needs_clock
        True
    """

    @property
    def needs_clock(self) -> bool:
        """Whether `end_step` matters to training; read in `init`."""


class FlatSource(Source, Protocol):
    """A source that gives the same values flat, without a mapping, for speed.

    Examples:
        >>> import otel_train
        >>> class Cache:
        ...     metrics = (otel_train.Scalar("cache/depth", "max"), otel_train.Scalar("cache/hits", "sum"))
        ...     def drain_step_metrics(self, step=None):
        ...         return {"cache/hits": 5, "cache/depth": 3}
        ...     def drain_measurements(self, step=None):
        ...         return [5.0, 3.0]                          # sums first
        >>> source: otel_train.FlatSource = Cache()
        >>> with otel_train.init(sources=[source], blocking=True) as telemetry:
        ...     values = telemetry.step(1)
        >>> values["cache/hits"], values["cache/depth"]
        (5.0, 3.0)
    """

    def drain_measurements(self, step: int | None = None) -> Sequence[float]:
        """End the interval with `step` and return its values.

        Returns:
            The sums in the order of `metrics` (of a mean its numerator and its denominator), then the maxima and
            minima in that order, a minimum with the other sign.
        """


class DescribedSource(Source, Protocol):
    """A source that says how it is set up, for people who look at a ring.

    Examples:
        >>> import otel_train
        >>> source: otel_train.DescribedSource = otel_train.MixingMeter(2, ["code"], {"code": 1})
        >>> source.facts["mixing.readers"]
        2
    """

    @property
    def facts(self) -> Mapping[str, Fact]:
        """Texts and numbers by name; read at the first step."""


class WatchedSource(Source, Protocol):
    """A source that says when it waits for other ranks, so that `otel-train top` can say where a rank hangs.

    Examples:
        >>> import otel_train
        >>> class Cache:
        ...     metrics = (otel_train.Scalar("cache/hits", "sum"),)
        ...     def drain_step_metrics(self, step=None):
        ...         return {"cache/hits": 0}
        ...     def watch(self, enter):
        ...         self.enter = enter
        ...     def exchange(self):
        ...         self.enter(otel_train.Phase.LEDGER)
        ...         try:
        ...             pass                                   # an all-to-all, say
        ...         finally:
        ...             self.enter(otel_train.Phase.COMPUTE)
        >>> source: otel_train.WatchedSource = Cache()
    """

    def watch(self, enter: Callable[[Phase], None]) -> None:
        """Take what is to be called with a `Phase` before and after a wait; called once, at the first step."""


class RowSource(ModalSource, Protocol):
    """A source that can tell the modality of each row of the batch that the training loop has, for losses by source.

    Examples:
        >>> import otel_train
        >>> meter: otel_train.RowSource = otel_train.SourceMeter({"code": 1, "prose": 3})
        >>> tags = [meter.tag(source)({"x": 1}) for source in ("prose", "code", "prose")]
        >>> bare = [meter.count(row) for row in tags]          # batches of one row
        >>> meter.row_sources()
        tensor([1])
    """

    def row_sources(self) -> Any:
        """Return the index of each row's modality in the batch that was counted last: int64 [rows], on any device.

        -1 stands for none of them, -2 for padding, which is no row; None for a batch that is not known.
        """


def modalities_of(source: Source) -> tuple[str, ...]:
    """Return a source's modalities, none where it is not a `ModalSource`."""
    return tuple(getattr(source, "modalities", ()))


def end_step_of(source: Source) -> EndStep | None:
    """Return a source's `end_step`; None where it is not a `SteppedSource`."""
    end_step: EndStep | None = getattr(source, "end_step", None)
    return end_step


def clock_of(source: Source) -> EndStep | None:
    """Return a source's `end_step` where training depends on it; None where it is not such a `ClockedSource`."""
    return end_step_of(source) if getattr(source, "needs_clock", False) else None


def flat_drain_of(source: Source) -> FlatDrain | None:
    """Return a source's faster drain; None where it is not a `FlatSource`."""
    drain: FlatDrain | None = getattr(source, "drain_measurements", None)
    return drain


def facts_of(source: Source) -> dict[str, Fact]:
    """Return how a source is set up; nothing where it is not a `DescribedSource`."""
    return dict(getattr(source, "facts", {}))


def row_sources_of(source: Source) -> Callable[[], Any] | None:
    """Return a source's `row_sources`; None where it is not a `RowSource`."""
    row_sources: Callable[[], Any] | None = getattr(source, "row_sources", None)
    return row_sources


def watch_source(source: Source, enter: Callable[[Phase], None]) -> None:
    """Have a `WatchedSource` call `enter` with what it waits for; any other is left alone."""
    watch = getattr(source, "watch", None)
    if watch is not None:
        watch(enter)
