"""Weights that change with the step."""

from __future__ import annotations

from typing import Any

import pytest

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import StreamMixingDataset, WeightSchedule
from tests.support.number_streams import Numbers


def test_weights_hold_until_next_change() -> None:
    """The change is in force at its own step."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (5, {"a": 2.0})))
    assert [schedule(step)["a"] for step in (1, 4, 5, 99)] == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize("changes", [((2, {"a": 1.0}),), (), ((1, {}), (1, {})), (("1", {}),), (1,), ((1.5, {}),)])
def test_wrong_schedule_raises(changes: Any) -> None:
    """It begins at step 1 and goes on in the order of steps."""
    with pytest.raises(ConfigurationError, match=r"^changes must (begin at step 1|be pairs of a step and its weights)"):
        WeightSchedule(changes)


def test_later_weights_are_checked_early() -> None:
    """A modality that no stream has would otherwise raise at its step."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (500, {"b": 1.0})))
    with pytest.raises(ConfigurationError, match="weights names the modality 'b', which no stream has"):
        StreamMixingDataset([Numbers("s", "a")], schedule, readers=1)
