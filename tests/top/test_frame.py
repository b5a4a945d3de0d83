"""What a frame of `otel-train top` shows, and how it fits a terminal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from otel_train.catalogue import HEADLINE, Phase, rows
from otel_train.read.rings import RingJob
from otel_train.top.frame import Arrangement, chosen, frame
from otel_train.top.snapshot import RANK_KEYS, Snapshot, take_snapshot
from tests.support.job_rings import ATTEMPT, SECOND, write_job

STEPS = 30
NOW = ATTEMPT * 10**6 + STEPS * SECOND + SECOND // 2
HOSTILE = "[red]\x1b[31m\x07\u202e\nn\xe4me\ud7ff"


Changes = dict[int, dict[str, Any]]
"""Fields of ranks' states, by rank."""


def looked_at(directory: Path, changes: Changes | None = None, *, now: int = NOW) -> Snapshot:
    """Return a look at the rings, all of whose ranks live, with some states changed."""
    job = RingJob(directory, rank_keys=RANK_KEYS)
    live = [dataclasses.replace(state, phase_time_ns=state.step_time_ns, lives=True) for state in job.states()]
    states = [dataclasses.replace(state, **(changes or {}).get(state.identity.rank, {})) for state in live]
    return take_snapshot(job.history, states, now)


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return a look at 64 ranks, of which rank 37 has a starved reader."""
    directory = tmp_path_factory.mktemp("rings")
    write_job(directory, 64, STEPS, starved=37)
    return looked_at(directory)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 23), (100, 30), (200, 60), (60, 12)])
@pytest.mark.parametrize("plain", [True, False])
def test_a_frame_fits_its_terminal(starved: Snapshot, width: int, height: int, plain: bool) -> None:
    """No line is longer than the terminal is wide, and none is too many."""
    lines = frame(starved, width=width, height=height, plain=plain)
    assert len(lines) <= height
    assert max(cell_len(line.plain) for line in lines) <= width
    assert all(line.plain.isascii() for line in lines) or not plain


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_frame_keeps_the_verdicts(starved: Snapshot, width: int) -> None:
    """Figures make way for the verdict of each metric, and for why a rank is marked."""
    text = [line.plain for line in frame(starved, width=width, height=None, plain=True)]
    assert [line[-7:] for line in text if line.startswith("staleness_max")] == ["OUT r37"]
    assert [line.endswith("staleness_max") for line in text if line.startswith("! 37")] == [True]


def test_80_by_24_without_colour_says_all_that_matters(starved: Snapshot) -> None:
    """The metrics with their verdicts, the mix, and the worst rank although it is far down, in letters and marks."""
    text = [line.plain for line in frame(starved, width=80, height=23, plain=True)]
    for metric in HEADLINE:
        assert [line for line in text if line.startswith(metric.wandb_key.partition("/")[2])], metric.wandb_key
    assert [line[-7:] for line in text if line.startswith("staleness_max")] == ["OUT r37"]
    assert [line[-2:] for line in text if line.startswith("switch_rate")] == ["ok"]
    assert [line for line in text if line.startswith("code") and "75.0 of 75.0%" in line]
    assert [line.split()[:2] for line in text if line.startswith("!")] == [["!", "37"]]
    assert text[-1] == "  ... 59 more"


def test_more_room_is_used(starved: Snapshot) -> None:
    """All ranks are shown where they fit."""
    assert len(frame(starved, width=120, height=None)) > 64
    assert not [line for line in frame(starved, width=120, height=None) if line.plain.endswith("more")]


def test_names_from_outside_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    """A run, a host or a modality may be called anything: it is shown as text, on its line, without markup."""
    write_job(tmp_path, 2, 3, name=HOSTILE)
    lines = frame(looked_at(tmp_path), Arrangement(filter="\x1b[2J"), width=140, height=40)
    assert all(line.plain.isprintable() for line in lines)
    assert sum("[red]?[31m" in line.plain for line in lines) == 2
    assert all(line.plain.isascii() for line in frame(looked_at(tmp_path), width=140, height=40, plain=True))
    lines = frame(looked_at(tmp_path), width=140, height=40)
    assert sum("[red]?[31m" in line.plain for line in lines) == 4
    assert {str(span.style) for line in lines for span in line.spans} <= {
        "bold", "not bold", "cyan", "red", "bold red", "bold green", "bold yellow", "green", "dim",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "state", "worst", "why"),
    [
        ({}, "live", (5, False), "staleness"),
        ({2: {"step": 12}}, "live", (2, True), "18 behind"),
        ({2: {"lives": False, "phase": Phase.DATA}}, "live, a rank died", (2, True), "in data at 30"),
        ({2: {"closed": True, "error": "a.OSError"}}, "live, a rank failed", (2, True), "OSError"),
        ({rank: {"closed": True, "error": "a.OSError"} for rank in range(6)}, "failed", (0, True), "OSError"),
        ({rank: {"closed": True, "lives": rank > 2} for rank in range(6)}, "ended", (5, False), "staleness"),
    ],
)
def test_the_worst_rank_is_named_with_the_reason(
    changes: Changes, state: str, worst: tuple[int, bool], why: str, tmp_path: Path
) -> None:
    """A dead rank before one that is behind, before the stalest of healthy ones."""
    write_job(tmp_path, 6, STEPS)
    found = looked_at(tmp_path, changes)
    assert found.worst is not None
    assert (found.state, (found.worst.rank, found.worst.wrong), found.worst.why) == (state, worst, why)


def test_a_job_that_stands_still_shows_who_holds_it_up(tmp_path: Path) -> None:
    """Of the ranks at the same step it is not one that waits for the others."""
    write_job(tmp_path, 3, STEPS)
    waits = {"phase": Phase.LEDGER}
    found = looked_at(tmp_path, {0: waits, 1: {"phase": Phase.DATA}, 2: waits}, now=NOW + 60 * SECOND)
    assert found.worst is not None
    assert (found.state, found.alarming, found.worst.rank, found.rate) == ("stands still", True, 1, 0.0)


def test_metrics_that_a_job_does_not_have_are_not_out_of_range(tmp_path: Path) -> None:
    """A node without rank 0 has no values of the cluster, and says so."""
    write_job(tmp_path, 2, 3)
    next(tmp_path.glob("rank00000-*")).unlink()
    found = looked_at(tmp_path)
    assert {line.healthy for line in found.metrics} == {None}
    assert "rank 0's ring" in found.notices[0]


@pytest.mark.parametrize(
    ("arrangement", "ranks"),
    [
        (Arrangement(filter="3,8-10, 62-"), [3, 8, 9, 10, 62]),
        (Arrangement(filter="NODE7", reverse=True), [63, 62, 61, 60, 59, 58, 57, 56]),
        (Arrangement(sort="staleness", filter="1-3,37"), [37, 3, 2, 1]),
        (Arrangement(filter="nowhere"), []),
    ],
)
def test_ranks_are_filtered_and_sorted(starved: Snapshot, arrangement: Arrangement, ranks: list[int]) -> None:
    """By numbers and spans, or a part of a host, phase or state."""
    assert [rank.rank for rank in chosen(starved.ranks, arrangement)] == ranks


def test_a_look_sums_up_what_the_rings_say(starved: Snapshot) -> None:
    """Step, rate, data wait, and each rank's newest staleness, are those that were written."""
    assert (starved.step, starved.rate, starved.step_seconds, starved.wait_seconds) == (STEPS, 1.0, 0.1, 0.0)
    assert [starved.ranks[rank].staleness for rank in (0, 1, 37)] == [0.0, 0.01, STEPS]
    assert starved.ranks[1].seen == 0.5
    [line] = [line for line in starved.metrics if line.key == rows.STALENESS_MAX.wandb_key]
    assert (line.curve, line.judged, line.healthy) == (tuple(map(float, range(1, STEPS + 1))), STEPS, False)
