"""Tell the user what is wrong with the reductions, each thing once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from otel_train.log_once import OnceLogger
from otel_train.step.packing import RankSign

logger = logging.getLogger(__name__)


class ReductionWarnings:
    """The warnings of one rank's reductions."""

    def __init__(self) -> None:
        self._named: set[int] = set()
        """Ranks that were warned of as missing, by their rank in the job."""
        self.lacked = False
        """Whether a rank was missing in a reduction that has landed: a wait for that one says nothing of the others."""
        self._once = OnceLogger(logger)

    def slow(self) -> None:
        """Warn that the training thread waits for reductions."""
        self._once.warn(
            "slow",
            "telemetry: a step is shorter than its reduction; the training thread waits for it. Raise log_every",
        )

    def full(self, most: int) -> None:
        """Warn that no more steps wait for peers that are away.

        Args:
            most: Steps that wait.
        """
        self._once.warn(
            "full",
            "telemetry: other ranks have been away for longer than the %d log steps that wait for them; until they are "
            "back, what further ones measure is in this rank's own records only",
            most,
        )

    def mismatch(self, ranks: Sequence[int], signs: Sequence[RankSign]) -> None:
        """Warn that ranks are at different steps.

        Args:
            ranks: By their number in the job.
            signs: Of each of them; a rank that has closed is at none.
        """
        at = [f"rank {rank}: {sign.step}" for rank, sign in zip(ranks, signs, strict=True) if not sign.closed]
        self._once.warn(
            "mismatch",
            "telemetry: the ranks are not at the same step (%s); what does not belong together is thrown away. "
            "Give all ranks the same steps",
            ", ".join(at[:8]),
        )

    def missing(self, ranks: Collection[int], step: int, *, come_back: bool = True) -> None:
        """Warn, once of each rank, that it takes no part.

        Args:
            ranks: By their number in the job.
            step: The first step that it was seen at.
            come_back: Whether one of them has not closed, so that a wait may have been for it alone.
        """
        self.lacked |= come_back
        fresh = sorted(set(ranks) - self._named)
        if fresh:
            self._named.update(fresh)
            logger.warning(
                "telemetry: %s %s no part in the reduction of step %d (it has no values, ended its loop earlier, or is "
                "late); the others' values stay, train/ranks counts whose they are",
                "rank" if len(fresh) == 1 else "ranks",
                f"{', '.join(map(str, fresh[:8]))}{' and others' if len(fresh) > 8 else ''} "
                f"{'takes' if len(fresh) == 1 else 'take'}",
                step,
            )

    def lost_logs(self, why: str) -> None:
        """Warn that what was logged beside the steps did not come together at the end."""
        self._once.warn(
            "logs",
            "telemetry: what ranks logged last, beside the steps, is in their own records only: %s",
            why,
        )

    def stopped(self, why: str) -> None:
        """Warn that nothing is reduced any more."""
        logger.warning("telemetry: no more cluster-wide values, a reduction is lost: %s. Training goes on", why)

    def unfinished(self, count: int) -> None:
        """Warn that so many log steps were not reduced in time at the end."""
        logger.warning(
            "telemetry: %d log steps up to the end are not in the cluster's values: not all ranks came to them, or "
            "closed at the same step, within close_timeout",
            count,
        )

    def left_behind(self, step: int) -> None:
        """Warn that other ranks went on after this one's last step, so that its last interval has no row.

        Args:
            step: Its last step.
        """
        logger.warning(
            "telemetry: what this rank measured after its last log step, up to step %d, is not in the cluster's "
            "values, but in its own records: other ranks closed at a later step",
            step,
        )
