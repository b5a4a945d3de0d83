"""Compare the ranks' wall clocks, which they read together: a rank whose clock is wrong is named at the first step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from otel_train.host_clock import COSTS, ClockOffset

logger = logging.getLogger(__name__)

MOST_NAMED = 4
"""Machines that one warning names at most."""


class RankClock(NamedTuple):
    """Reading of one rank's clock."""

    rank: int
    host: str
    time_ns: int
    """Time by its wall clock when all ranks had come together."""


def reference_of(readings: Sequence[RankClock]) -> RankClock:
    """Return the reading that the others are compared with: the median; of two, the one nearer to the first rank's.

    Examples:
        >>> from otel_train.step.clock_agreement import RankClock, reference_of
        >>> times = [7, 9, 1]
        >>> reference_of([RankClock(rank, "host", time_ns) for rank, time_ns in enumerate(times)]).rank
        0
    """
    ascending = sorted(readings, key=lambda reading: reading.time_ns)
    low, high = ascending[(len(ascending) - 1) // 2], ascending[len(ascending) // 2]
    first = readings[0].time_ns
    return min(low, high, key=lambda reading: abs(reading.time_ns - first))


def offset_of(reading: RankClock, readings: Sequence[RankClock], seconds: float) -> ClockOffset:
    """Return a rank's offset.

    Args:
        reading: The rank's.
        readings: All ranks'.
        seconds: How far apart the readings were taken at most.
    """
    return ClockOffset(round((reading.time_ns - reference_of(readings).time_ns) / 1e9, 3), round(seconds, 3))


def warn_of_wrong_clocks(readings: Sequence[RankClock], seconds: float) -> None:
    """Warn of each machine whose clock is wrong, once, with its ranks.

    Args:
        readings: All ranks'.
        seconds: How far apart they were taken at most.
    """
    by_host: dict[str, list[RankClock]] = {}
    for reading in readings:
        if offset_of(reading, readings, seconds).wrong:
            by_host.setdefault(reading.host, []).append(reading)
    if not by_host:
        return
    reference = reference_of(readings)
    others = f"those of {len(readings)} ranks (their median)"
    if len(readings) == 2:
        others = f"that of rank {reference.rank} on {reference.host}, or that one is wrong"
    named = [
        f"{host} ({_names(ranks)}) is {offset_of(ranks[0], readings, seconds)}"
        for host, ranks in list(by_host.items())[:MOST_NAMED]
    ]
    more = f", and {len(by_host) - MOST_NAMED} more" if len(by_host) > MOST_NAMED else ""
    logger.warning(
        "telemetry: the clock of %s%s, against %s, to %.3g s. Set it there: start chrony or systemd-timesyncd. %s",
        "; ".join(named),
        more,
        others,
        seconds,
        COSTS,
    )


def _names(ranks: Sequence[RankClock]) -> str:
    shown = ", ".join(str(reading.rank) for reading in ranks[:MOST_NAMED])
    more = ", ..." if len(ranks) > MOST_NAMED else ""
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}{more}"
