"""Scalars of the user's own, as `init(metrics=…)` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from otel_train.catalogue import BY_SOURCE, MAX_TEXT, Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.step.user_metrics import PLAIN_REDUCTIONS, check_names, check_row


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number that the training loop gives to `Telemetry.step`, declared with more than its name.

    A mean without a unit needs no declaration.

        >>> import otel_train
        >>> tokens = otel_train.Scalar("train/tokens", "sum", unit="{token}")
        >>> with otel_train.init(metrics=[tokens], blocking=True) as telemetry:
        ...     values = telemetry.step(1, {"train/tokens": 512, "train/loss": 2.5})
        >>> values["train/tokens"], values["train/loss"]
        (512.0, 2.5)

    Args:
        name: The key that it is logged under.
        reduction: How the values of an interval's steps, and those of the ranks, become one: `"mean"`, `"sum"`,
            `"max"`, `"min"` or `"norm"` (of a norm of which each rank has a part), or the member of `Reduction`.
        unit: The unit as UCUM writes it, such as `"s"`, `"By"` or `"{token}"`; empty where it has none.
        by: `"modality"` for a mean that is also given for each source of the job: `train/loss` and `train/loss/code`.
            Its values are those of the rows of a batch, a `PerRow`, or a mapping of source to mean or to a pair (sum,
            count). The names of the sources where no source of the session has them.

    Raises:
        ConfigurationError: The name, the reduction, the unit or `by` breaks a rule; the message says which.
    """

    name: str
    reduction: Reduction | Literal["mean", "sum", "max", "min", "norm"] = Reduction.MEAN
    unit: str = ""
    by: str | Sequence[str] = ""

    def __post_init__(self) -> None:
        if self.reduction not in PLAIN_REDUCTIONS:
            raise ConfigurationError(
                f"metric {self.name!r:.80}: reduction must be one of {', '.join(PLAIN_REDUCTIONS)}, "
                f"got {self.reduction!r:.80}"
            )
        if not isinstance(self.by, str):
            object.__setattr__(self, "by", _checked_names(self.name, self.by))
        elif self.by not in ("", BY_SOURCE):
            raise ConfigurationError(
                f"metric {self.name!r:.80}: by must be {BY_SOURCE!r} or a sequence of the sources' names, got "
                f"{self.by!r:.80}"
            )
        check_row(self.as_metric())

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources as `by` has them; none where those of the session's sources hold."""
        return () if isinstance(self.by, str) else tuple(self.by)

    def as_metric(self) -> Metric:
        """Return the row that the schema has of it."""
        attribute = BY_SOURCE if self.by else ""
        return Metric(self.name, Reduction(self.reduction), unit=self.unit, attribute=attribute)


def _checked_names(name: str, by: Any) -> tuple[str, ...]:
    try:
        names = tuple(by)
    except TypeError:
        names = ()
    fit = all(isinstance(one, str) and 0 < len(one) <= MAX_TEXT and one.isprintable() for one in names)
    if not names or not fit or len(set(names)) < len(names):
        raise ConfigurationError(
            f"metric {name!r:.80}: by must be {BY_SOURCE!r} or a sequence of the sources' names, different texts of 1 "
            f"to {MAX_TEXT} printable characters, got {by!r:.80}"
        )
    return names


def declared_sources(declarations: Iterable[Any], modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the job's sources.

    Args:
        declarations: What a user declares.
        modalities: Those of the session's sources; none where these have none.

    Raises:
        ConfigurationError: A scalar is by source and no source is named, or others than elsewhere.
    """
    names = tuple(modalities)
    lacking = ""
    for declaration in declarations:
        if isinstance(declaration, Scalar) and declaration.source_names:
            if names and names != declaration.source_names:
                raise ConfigurationError(
                    f"metric {declaration.name!r}: by must be {BY_SOURCE!r} where the session has the sources "
                    f"{', '.join(names)}, got {declaration.source_names!r:.200}"
                )
            names = declaration.source_names
        elif isinstance(declaration, Scalar | Metric) and _row_of(declaration).attribute:
            lacking = declaration.name
    if lacking and not names:
        raise ConfigurationError(
            f"metric {lacking!r} is by {BY_SOURCE!r}, and no source of the session has any; give the meter in "
            'sources=, or name them: by=("code", "prose")'
        )
    return names


def _row_of(declaration: Any) -> Any:
    return declaration.as_metric() if isinstance(declaration, Scalar) else declaration


def declared_metrics(declarations: Iterable[Any]) -> dict[str, Metric]:
    """Return the rows of what a user declares, by name.

    Args:
        declarations: Each a `Scalar`, or a `Metric`, which may be a counter or have a description besides.

    Raises:
        ConfigurationError: One is neither, or can't be carried, or is declared twice.
    """
    declared: dict[str, Metric] = {}
    for declaration in declarations:
        metric = _row_of(declaration)
        if not isinstance(metric, Metric):
            raise ConfigurationError(
                f"metrics must be otel_train.Scalar, got {metric!r:.80}; a mean needs no declaration"
            )
        check_row(metric)
        if metric.name in declared:
            raise ConfigurationError(f"metric {metric.name!r} is declared twice; leave one of them out")
        declared[metric.name] = metric
    check_names(declared.values())
    return declared
