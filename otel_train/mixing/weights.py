"""Weights by modality: checked, normalised to target shares, and changed with the step."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from otel_train.arguments import MAX_SHOWN, finite_number
from otel_train.exceptions import ConfigurationError

Weights = Mapping[str, float] | Callable[[int], Mapping[str, float]]
"""Weights by modality: one mapping for the whole run, or a function of the step (picklable, for worker processes)."""


def checked_weights(weights: Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """Return `weights` with a value for each modality; one that is not named gets 0.

    Raises:
        ConfigurationError: A modality is unknown, a weight is negative or not finite, or none is positive.
    """
    if not isinstance(weights, Mapping):
        raise ConfigurationError(
            f"weights must map each modality to a number, got {type(weights).__name__} {weights!r:.{MAX_SHOWN}}"
        )
    complete = dict.fromkeys(modalities, 0.0)
    for modality, weight in weights.items():
        if modality not in complete:
            raise ConfigurationError(
                f"weights names the modality {modality!r}, which no stream has; known: {', '.join(modalities)}"
            )
        complete[modality] = finite_number(f"weights[{modality!r}]", weight, remedy="0 never picks the modality")
    if not 0 < sum(complete.values()) < math.inf:
        raise ConfigurationError(
            f"weights must hold a positive number and have a finite sum, got {dict(weights)!r}; raise one of them"
        )
    return complete


def checked_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the modalities as a tuple.

    Raises:
        ConfigurationError: There is none, two are equal, or one is not a string.
    """
    # A lone string is a sequence of strings to Python; nobody means its letters.
    names = () if isinstance(modalities, str | bytes) or not isinstance(modalities, Iterable) else tuple(modalities)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ConfigurationError(
            f"modalities must be names, distinct and at least one, got {modalities!r:.{MAX_SHOWN}}"
        )
    return tuple(map(str.__str__, names))  # plain ones: those of enums and of NumPy are shown and pickled otherwise


def target_shares(weights: Mapping[str, float]) -> list[float]:
    """Return the weights' shares of their sum, in the mapping's order."""
    total = math.fsum(weights.values())
    return [weight / total for weight in weights.values()]


@dataclass(frozen=True, slots=True)
class WeightSchedule:
    """Weights that change at given steps and stay until the next one.

    Examples:
        >>> from otel_train.mixing import WeightSchedule
        >>> schedule = WeightSchedule(((1, {"code": 1, "prose": 3}), (1000, {"code": 1, "prose": 1})))
        >>> schedule(999), schedule(1000)
        ({'code': 1, 'prose': 3}, {'code': 1, 'prose': 1})

    Args:
        changes: (first step, weights) pairs by ascending step, the first at step 1.
    """

    changes: tuple[tuple[int, Mapping[str, float]], ...]

    def __post_init__(self) -> None:
        try:
            steps = [operator.index(step) for step, _ in self.changes]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"changes must be pairs of a step and its weights, got {self.changes!r:.{MAX_SHOWN}}"
            ) from error
        if not steps or steps[0] != 1 or steps != sorted(set(steps)):
            raise ConfigurationError(
                f"changes must begin at step 1 and name each later step once, in order, got steps {steps}"
            )

    @property
    def steps(self) -> list[int]:
        """The steps at which the weights change."""
        return [step for step, _ in self.changes]

    def __call__(self, step: int) -> Mapping[str, float]:
        """Return the weights in force at `step`."""
        current = self.changes[0][1]
        for first, weights in self.changes:
            if first > step:
                break
            current = weights
        return current
