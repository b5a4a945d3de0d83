"""Phases of a rank's training thread: the parts of a step that can wait for somebody else."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """The part of a step that a rank is in. The numbers are those in a ring.

    A source that waits for other ranks reports it; see `WatchedSource`.

    Examples:
        >>> import otel_train
        >>> otel_train.Phase.LEDGER.name
        'LEDGER'
    """

    COMPUTE = 0
    """The user's own code: forward, backward, collectives of the job's own."""
    DATA = 1
    """Waiting for a batch, in `Telemetry.timed`."""
    LEDGER = 2
    """A fetch or store of the ledger, which waits for all of its ranks."""
    REDUCTION = 3
    """Telemetry's own reduction: waiting for the oldest one under way, or for a blocking step."""
    ENDED = 4
    """The session was closed."""
