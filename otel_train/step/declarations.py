"""Scalars of the user's own, as `init(metrics=…)` takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from otel_train.catalogue import Metric, Reduction
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

    Raises:
        ConfigurationError: The name, the reduction or the unit breaks a rule; the message says which.
    """

    name: str
    reduction: Reduction | Literal["mean", "sum", "max", "min", "norm"] = Reduction.MEAN
    unit: str = ""

    def __post_init__(self) -> None:
        if self.reduction not in PLAIN_REDUCTIONS:
            raise ConfigurationError(
                f"metric {self.name!r:.80}: reduction must be one of {', '.join(PLAIN_REDUCTIONS)}, "
                f"got {self.reduction!r:.80}"
            )
        check_row(self.as_metric())

    def as_metric(self) -> Metric:
        """Return the row that the schema has of it."""
        return Metric(self.name, Reduction(self.reduction), unit=self.unit)


def declared_metrics(declarations: Iterable[Any]) -> dict[str, Metric]:
    """Return the rows of what a user declares, by name.

    Args:
        declarations: Each a `Scalar`, or a `Metric`, which may be a counter or have a description besides.

    Raises:
        ConfigurationError: One is neither, or can't be carried, or is declared twice.
    """
    declared: dict[str, Metric] = {}
    for declaration in declarations:
        metric = declaration.as_metric() if isinstance(declaration, Scalar) else declaration
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
