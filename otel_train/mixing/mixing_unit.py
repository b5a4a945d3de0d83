"""Options of a mixer that its counts don't tell: the unit of a draw, and the rows that are meant to hold the mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from otel_train.arguments import MAX_SHOWN
from otel_train.exceptions import ConfigurationError

Unit = Literal["row", "batch"]
"""Unit of a draw: a row, or all rows of a rank's batch, of one source then."""
Scope = Literal["rank", "cluster"]
"""Rows that hold the mix: each rank's by themselves, or the batches of all ranks together only."""


@dataclass(frozen=True, slots=True)
class MixingUnit:
    """The unit and the scope of a mixer.

    Args:
        unit: Unit of a draw.
        scope: Rows that hold the mix.

    Raises:
        ConfigurationError: One of them is none that there is.
    """

    unit: Unit
    scope: Scope

    def __post_init__(self) -> None:
        for name, value, choices in (("unit", self.unit, get_args(Unit)), ("scope", self.scope, get_args(Scope))):
            if value not in choices:
                raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, got {value!r:.{MAX_SHOWN}}")

    @property
    def by_batch(self) -> bool:
        """Whether one source is drawn for all rows of a batch."""
        return self.unit == "batch"

    @property
    def by_rank(self) -> bool:
        """Whether each rank by itself holds the mix, so that its own waits mean something."""
        return self.scope == "rank"

    def facts(self, picks: float, draws: float) -> dict[str, str | float]:
        """Return how the mixer draws, for people who look at a ring and for the verdicts.

        Args:
            picks: Picks so far.
            draws: Draws so far.
        """
        return {
            "mixing.unit": self.unit,
            "mixing.scope": self.scope,
            "mixing.unit_rows": picks / draws if draws else 1.0,
        }
