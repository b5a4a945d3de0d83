"""The laws of a resume, over any sequence of reading, saving and going on with another configuration."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.resumed_job import ResumedJob


def test_resume_laws() -> None:
    """No stream is lost or read twice, and no pick is lost, whatever configuration the job goes on with."""
    run_state_machine_as_test(
        ResumedJob,
        settings=settings(
            max_examples=70, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
