"""Decide what wandb is told of a run's end, by what is known of its job."""

from __future__ import annotations

from typing import Any, NamedTuple

from otel_train.bridge.jobs import Job
from otel_train.bridge.outcome import DIED, is_preempted, state_of

STATE_KEY, EXIT_KEY, ATTEMPTS_KEY = "job/state", "job/exit_code", "job/attempts"
"""Keys of a run's summary, beside the last values of its rows."""
RESERVED = frozenset({STATE_KEY, EXIT_KEY, ATTEMPTS_KEY})


class RunEnd(NamedTuple):
    """End of a run, or of the time that a bridge has it open."""

    exit_code: int
    """Exit code that wandb records."""
    summary: dict[str, Any]
    """Additions to the run's summary."""
    is_preempted: bool = False
    """Whether the job is expected to go on."""
    is_final: bool = True
    """Whether the job has ended, as far as it can be known."""
    revision: int = 0
    """Revision of the job that this follows from."""


NO_END = RunEnd(0, {}, is_final=False)
RUNS = {STATE_KEY: "running"}
"""Summary of a job that goes on, or of which nothing tells that it has ended."""


def run_end(job: Job, *, silent: bool) -> RunEnd:
    """Return what wandb is told when a run is finished.

    Args:
        job: Its job. One that tells its settings tells its end too, unless its machine is gone.
        silent: Whether it got nothing for so long that a job that tells no end has none to tell any more.
    """
    code = job.exit_code
    if code is None and not job.settings:
        return NO_END._replace(is_final=True, revision=job.revision)
    if code is None:
        if not silent:
            return NO_END._replace(summary=RUNS)
        code = DIED
    attempts = {ATTEMPTS_KEY: job.attempts} if job.attempts else {}
    summary = {STATE_KEY: state_of(code), EXIT_KEY: code, **attempts}
    return RunEnd(code, summary, is_preempted(code), revision=job.revision)
