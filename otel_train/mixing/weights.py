"""Weights by modality: checked, normalised to target shares, and changed with the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from otel_train.exceptions import ConfigurationError

Weights = Mapping[str, float] | Callable[[int], Mapping[str, float]]
"""Weights by modality: one mapping for the whole run, or a function of the step (picklable, for worker processes)."""


def checked_weights(weights: Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """Return `weights` with a value for each modality; one that is not named gets 0.

    Raises:
        ConfigurationError: A modality is unknown, a weight is negative or not finite, or none is positive.
    """
    for modality, weight in weights.items():
        if modality not in modalities:
            raise ConfigurationError(
                f"mixing.weights names the modality {modality!r}, which no stream has; known: {', '.join(modalities)}"
            )
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
            raise ConfigurationError(
                f"mixing.weights.{modality} must be a finite number that is not negative, got {weight!r}"
            )
    complete = {modality: float(weights.get(modality, 0.0)) for modality in modalities}
    if not sum(complete.values()) > 0:
        raise ConfigurationError(
            f"mixing.weights must hold a positive number, got {dict(weights)!r}; raise one of them"
        )
    return complete


def target_shares(weights: Mapping[str, float]) -> list[float]:
    """Return the weights' shares of their sum, in the mapping's order."""
    total = math.fsum(weights.values())
    return [weight / total for weight in weights.values()]


@dataclass(frozen=True, slots=True)
class WeightSchedule:
    """Weights that change at given steps and stay until the next one.

    Args:
        changes: (first step, weights) pairs by ascending step, the first at step 1.
    """

    changes: tuple[tuple[int, Mapping[str, float]], ...]

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.changes]
        if not steps or steps[0] != 1 or steps != sorted(set(steps)):
            raise ConfigurationError(
                f"mixing.schedule must begin at step 1 and name each later step once, in order, got steps {steps}"
            )

    def __call__(self, step: int) -> Mapping[str, float]:
        """Return the weights in force at `step`."""
        current = self.changes[0][1]
        for first, weights in self.changes:
            if first > step:
                break
            current = weights
        return current
