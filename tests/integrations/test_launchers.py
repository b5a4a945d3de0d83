"""Launchers: what all ranks have recorded arrives once, whoever ends them, and each job is a run of its own."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.integrations.jobs.launched_job import RANKS
from tests.integrations.support.launches import LAUNCHERS, Launched, run_launcher
from tests.support.torchrun import ROOT

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(1000)]
PAGE = ROOT / "docs" / "reliability.md"


@pytest.fixture(scope="module", params=[name for name, one in LAUNCHERS.items() if not one.by_hand])
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Launched]:
    """Run the jobs of a launcher, and return what each has left, by how it was ended."""
    name: str = request.param
    return run_launcher(name, tmp_path_factory.mktemp(name))


def test_launched_rows_arrive_once(launched: Mapping[str, Launched]) -> None:
    """However ranks or launcher end, the receiver gets each row of steps that all ranks made once, as the page says."""
    page = PAGE.read_text(encoding="utf-8")
    for way, job in launched.items():
        assert f"{job.row} `integrations/test_launchers.py` |" in page, f"{way}: {job.row}"
        assert job.counts()[2:] == (0, 0), way


def test_each_launch_is_run(launched: Mapping[str, Launched]) -> None:
    """Each job is one run of its own, with local ranks that are agreed on; a retry is another attempt of it."""
    for way, job in launched.items():
        assert (len(job.runs), len(job.attempts)) == (1, 2 if way == "retried" else 1), way
        assert {(ring.identity.rank, ring.identity.local_rank) for ring in job.rings} == {(r, r) for r in range(RANKS)}
    assert len({run for job in launched.values() for run in job.runs}) == len(launched)


def test_ray_runs_have_names(launched: Mapping[str, Launched]) -> None:
    """The id of a run of Ray Train begins with the name that its user gave."""
    if "retried" in launched:
        assert all(run.startswith("pilot-") for job in launched.values() for run in job.runs)
