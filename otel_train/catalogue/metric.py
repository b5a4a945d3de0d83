"""The vocabulary of the catalogue: the facts that a row can state about a metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from otel_train.exceptions import ConfigurationError


class Instrument(StrEnum):
    """The OpenTelemetry instrument that a metric is exported as."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Reduction(StrEnum):
    """Rule by which the ranks' measurements become one cluster-wide value.

    Examples:
        >>> import otel_train
        >>> otel_train.Scalar("train/peak", otel_train.Reduction.MAX) == otel_train.Scalar("train/peak", "max")
        True
    """

    SUM = "sum"
    MEAN = "mean"
    """SUM of numerators over SUM of denominators: never a mean of means."""
    MAX = "max"
    MIN = "min"
    NORM = "norm"
    """Root of the mean of the squares: a norm of which each rank has a part comes out whole."""
    DIVERGENCE = "divergence"
    """Jensen-Shannon divergence of the SUMmed counts against the SUMmed targets."""
    SHARE = "share"
    """Each modality's part of the SUMmed counts."""
    ALIKE = "alike"
    """Mean square of the SUMmed signs over the SUMmed count: how many ranks have the signs of a rank, on average."""
    REPEATS = "repeats"
    """Share of keys that are there more than once, from SUMmed counts and the SUM of the ranks' sketches."""
    HISTOGRAM = "histogram"
    """SUM of each bucket."""
    LOCAL = "local"
    """Not reduced: a fact about one rank or one pipeline."""


class Statistic(StrEnum):
    """Figure of a run's curve that a healthy range judges."""

    MEAN = "mean"
    MAX = "max"
    LAST = "last"


class Per(StrEnum):
    """Divisor of a judged value, so that a range holds for any world size."""

    CLUSTER = "cluster"
    RANK = "rank"
    PICK = "pick"


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthyRange:
    """The values of a metric that need nobody's attention; both ends belong to it."""

    low: float = 0.0
    """The smallest healthy value, in the metric's unit (divided by `per`)."""
    high: float = math.inf
    """The largest healthy value, in the metric's unit (divided by `per`)."""
    statistic: Statistic = Statistic.MEAN
    """The figure of the curve that is judged."""
    per: Per = Per.CLUSTER
    """Divisor of the figure, applied before it is compared."""
    worst: bool = True
    """Whether the worst rank's part is judged too, as if all ranks were like it. False where ranks may well differ:
    a fresh write falls on the rank that owns the key, and no rank is worse for owning many."""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ConfigurationError(
                f"health range: low must not exceed high, got [{self.low:g}, {self.high:g}]; swap or widen them"
            )

    def __contains__(self, value: float) -> bool:
        """Tell whether `value` (already divided by `per`) is healthy; NaN never is."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low == 0 and math.isinf(self.high):
            return "any"
        unit = "" if self.per is Per.CLUSTER else f"/{self.per}"
        if math.isinf(self.high):
            bounds = f">= {self.low:g}"
        elif self.low == self.high:
            bounds = f"{self.low:g}"
        else:
            bounds = f"<= {self.high:g}" if self.low == 0 else f"{self.low:g}..{self.high:g}"
        return f"{self.statistic} {bounds}{unit}"


class Measure(NamedTuple):
    """A measurement of one rank in an interval: one or more float64, added up over the ranks.

    A metric's value is computed from the sums of one or more measures, so that two metrics can share one
    (the number of active readers is a metric itself and the denominator of the mean age).
    """

    name: str
    per_modality: bool = False
    """Whether it has a value for each modality instead of one."""
    size: int = 1
    """Number of values when it is not per modality (a histogram's buckets and its sum)."""

    def width(self, modalities: int) -> int:
        """Return the number of float64 values for that many modalities."""
        return modalities if self.per_modality else self.size


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue, or a scalar of the user's own.

    A user needs it for a counter only; `Scalar` does the rest.

    Examples:
        >>> import otel_train
        >>> from otel_train.catalogue import Instrument
        >>> hits = otel_train.Metric("cache/hits", otel_train.Reduction.SUM, Instrument.COUNTER)
        >>> with otel_train.init(metrics=[hits], blocking=True) as telemetry:
        ...     values = telemetry.step(1, {"cache/hits": 5})
        >>> values["cache/hits"]
        5.0

    Args:
        name: The OTel name of a rank's instrument; for a user's scalar the key it is logged under.
        reduction: Rule by which the ranks' measurements become one value.
        instrument: The OTel instrument.
        unit: The unit as UCUM writes it; empty where it is not known, as for a user's scalar without one.
        measures: The measurements of a rank; empty for a user's scalar, whose measures follow from its reduction.
        description: Meaning of the number, one sentence.
        wandb_key: The key in wandb; empty when it is not sent there.
        attribute: The name of the data point attribute that distinguishes its series; empty for one series.
        with_max: Whether the largest rank's value, and that rank, are reported beside the SUM.
        bounds: A histogram's upper bucket bounds.
        healthy: The range that needs no attention; None where the number only informs.
        remedy: Advice for when it is out of range: one imperative sentence.
    """

    name: str
    reduction: Reduction = Reduction.MEAN
    instrument: Instrument = Instrument.GAUGE
    unit: str = ""
    measures: tuple[Measure, ...] = ()
    description: str = ""
    wandb_key: str = ""
    attribute: str = ""
    with_max: bool = False
    bounds: tuple[float, ...] = ()
    healthy: HealthyRange | None = None
    remedy: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or len(self.name) > 255 or not self.name.isprintable():
            raise ConfigurationError(
                f"metric name must be 1 to 255 printable characters, got {self.name!r}; shorten or rename it"
            )
        for field, kind in (("reduction", Reduction), ("instrument", Instrument)):
            value = getattr(self, field)
            try:
                object.__setattr__(self, field, kind(value))  # a plain text is as good as the member
            except ValueError:
                raise ConfigurationError(
                    f"metric {self.name!r}: {field} must be one of {', '.join(kind)}, got {value!r:.80}"
                ) from None
