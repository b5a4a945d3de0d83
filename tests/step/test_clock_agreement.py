"""Clocks of ranks beside each other: which one is named as wrong."""

from __future__ import annotations

import pytest

from otel_train.step.clock_agreement import RankClock, offset_of, warn_of_wrong_clocks

SECOND = 10**9


@pytest.mark.parametrize(
    ("times", "hosts", "named"),
    [
        ([0, 3600, 0, 0], "abcd", "b (rank 1) is 3600.0 s ahead"),
        ([-90, 0, 0], "abc", "a (rank 0) is 90.0 s behind"),
        ([0, 0, 60, 60, 0, 0], "aabbcc", "b (ranks 2, 3) is 60.0 s ahead"),
        ([0, 60], "ab", "b (rank 1) is 60.0 s ahead, against that of rank 0 on a, or that one is wrong"),
        (
            [60, 0, 0, 60, 0, -60],
            "abcdef",
            "a (rank 0) is 60.0 s ahead; d (rank 3) is 60.0 s ahead; f (rank 5) is",
        ),
        ([0, 5, 0], "abc", ""),
    ],
)
def test_wrong_clock_is_named(times: list[int], hosts: str, named: str, caplog: pytest.LogCaptureFixture) -> None:
    """The machine whose clock is off the median is named once, with its ranks; of two either may be the wrong one."""
    clocks = [
        RankClock(rank, host, 10**18 + seconds * SECOND)
        for rank, (seconds, host) in enumerate(zip(times, hosts, strict=True))
    ]
    warn_of_wrong_clocks(clocks, 0.2)
    assert len(caplog.records) == bool(named)
    assert named in caplog.text
    assert offset_of(clocks[0], clocks, 0.2).uncertainty == 0.2


def test_slow_agreement_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Readings that may be a minute apart do not show that a clock is a minute off."""
    warn_of_wrong_clocks([RankClock(rank, "a", rank * 60 * SECOND) for rank in range(2)], 60.0)
    assert not caplog.records
