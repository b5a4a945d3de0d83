"""The frame of `otel-train top`: its content, and its size."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from otel_train.catalogue import HEADLINE, Phase, rows
from otel_train.read.history import History, share_key, target_key
from otel_train.read.rings import RingJob
from otel_train.top.frame import Arrangement, frame, selected_ranks
from otel_train.top.snapshot import RANK_KEYS, ShareLine, Snapshot, take_snapshot
from tests.support.job_rings import ATTEMPT, SECOND, write_job

STEPS = 30
NOW = ATTEMPT * 10**6 + STEPS * SECOND + SECOND // 2
HOSTILE = "[red]\x1b[31m\x07\u202e\nn\xe4me\ud7ff"


Changes = dict[int, dict[str, Any]]
"""Fields of ranks' states, by rank."""


def snapshot_of(directory: Path, changes: Changes | None = None, *, now: int = NOW) -> Snapshot:
    """Return a snapshot of the rings, all of whose ranks live, with some states changed."""
    job = RingJob(directory, rank_keys=RANK_KEYS)
    live = [dataclasses.replace(state, phase_time_ns=state.step_time_ns, lives=True) for state in job.states()]
    states = [dataclasses.replace(state, **(changes or {}).get(state.identity.rank, {})) for state in live]
    return take_snapshot(job.history, states, now)


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return a snapshot of 64 ranks, of which rank 37 has a starved reader."""
    directory = tmp_path_factory.mktemp("rings")
    write_job(directory, 64, STEPS, starved=37)
    return snapshot_of(directory)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 23), (100, 30), (200, 60), (60, 12), (16, 24)])
@pytest.mark.parametrize("plain", [True, False])
def test_frame_fits_terminal(starved: Snapshot, width: int, height: int, plain: bool) -> None:
    """No line is longer than the terminal is wide, and there are not more of them than it is high."""
    lines = frame(starved, width=width, height=height, plain=plain)
    assert len(lines) <= height
    assert max(cell_len(line.plain) for line in lines) <= width
    assert all(line.plain.isascii() for line in lines) or not plain


@pytest.mark.parametrize("width", [40, 60])
def test_narrow_frame_keeps_verdicts(starved: Snapshot, width: int) -> None:
    """On a narrow terminal numbers make way for the verdict of each metric, and for the reason of a rank's mark."""
    text = [line.plain for line in frame(starved, width=width, height=None, plain=True)]
    assert [line[-7:] for line in text if line.startswith("staleness_max")] == ["OUT r37"]
    assert [line.endswith("staleness_max") for line in text if line.startswith("! 37")] == [True]


@pytest.mark.parametrize("width", [30, 40, 60, 80])
def test_narrow_frame_cuts_no_figure(starved: Snapshot, width: int) -> None:
    """On a narrow terminal some figures of the pace are left out, and none is cut."""
    pace = frame(starved, width=width, height=None, plain=True)[1].plain.split("  ")
    whole = frame(starved, width=200, height=None, plain=True)[1].plain.split("  ")
    assert (pace[0], pace[-1], set(pace) - set(whole)) == (whole[0], whole[-1], set())


@pytest.mark.parametrize("width", range(96, 140, 6))
@pytest.mark.parametrize("longest", [8, 20, 40])
def test_bars_cut_no_loss(starved: Snapshot, width: int, longest: int) -> None:
    """A modality's loss is whole or absent, however long its name is."""
    names = {"a" * longest: 1234.6, "b" * 8: 7654.3}
    shares = [ShareLine(modality=name, share=0.5, target=0.5, loss=loss) for name, loss in names.items()]
    text = "\n".join(line.plain for line in frame(replace(starved, shares=tuple(shares)), width=width, height=None))
    assert [word in text for word in ("loss  1234.6", "loss  7654.3")] == [" loss " in text] * 2


def test_small_frame_is_complete(starved: Snapshot) -> None:
    """80 by 24 cells without colour have the verdicts, the mix, and the worst rank, though it is far down."""
    text = [line.plain for line in frame(starved, width=80, height=23, plain=True)]
    for metric in HEADLINE:
        assert [line for line in text if line.startswith(metric.wandb_key.partition("/")[2])], metric.wandb_key
    assert [line[-7:] for line in text if line.startswith("staleness_max")] == ["OUT r37"]
    assert [line[-2:] for line in text if line.startswith("switch_rate")] == ["ok"]
    assert [line for line in text if line.startswith("code") and "75.0 of 75.0%" in line]
    assert [line.split()[:2] for line in text if line.startswith("!")] == [["!", "37"]]
    assert text[-1] == "  ... 59 more"


def test_large_frame_shows_ranks(starved: Snapshot) -> None:
    """All ranks are shown where they fit."""
    assert len(frame(starved, width=120, height=None)) > 64
    assert not [line for line in frame(starved, width=120, height=None) if line.plain.endswith("more")]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """The name of a run, a host or a modality is shown as text on its line, without markup or control characters."""
    write_job(tmp_path, 2, 3, name=HOSTILE)
    lines = frame(snapshot_of(tmp_path), Arrangement(filter="\x1b[2J"), width=140, height=40)
    assert all(line.plain.isprintable() for line in lines)
    assert sum("[red]?[31m" in line.plain for line in lines) == 2
    assert all(line.plain.isascii() for line in frame(snapshot_of(tmp_path), width=140, height=40, plain=True))
    lines = frame(snapshot_of(tmp_path), width=140, height=40)
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
def test_worst_rank_is_named(changes: Changes, state: str, worst: tuple[int, bool], why: str, tmp_path: Path) -> None:
    """A dead rank is named before one that is behind, and that before the stalest of healthy ones."""
    write_job(tmp_path, 6, STEPS)
    job = snapshot_of(tmp_path, changes)
    assert job.worst is not None
    assert (job.state, (job.worst.rank, job.worst.wrong), job.worst.why) == (state, worst, why)


def test_still_job_names_culprit(tmp_path: Path) -> None:
    """The rank that does not wait for the others is named, of those at the same step."""
    write_job(tmp_path, 3, STEPS)
    waits = {"phase": Phase.LEDGER}
    job = snapshot_of(tmp_path, {0: waits, 1: {"phase": Phase.DATA}, 2: waits}, now=NOW + 60 * SECOND)
    assert job.worst is not None
    assert (job.state, job.alarming, job.worst.rank, job.rate) == ("stands still", True, 1, 0.0)


def test_missing_metrics_are_neutral(tmp_path: Path) -> None:
    """Without rank 0's ring the cluster's metrics are not out of range, and a notice says where they are."""
    write_job(tmp_path, 2, 3)
    next(tmp_path.glob("rank00000-*")).unlink()
    job = snapshot_of(tmp_path)
    assert {line.healthy for line in job.metrics} == {None}
    assert "rank 0's ring" in job.notices[0]


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
    """Numbers, spans, or a part of a host, phase or state select ranks."""
    assert [rank.rank for rank in selected_ranks(starved.ranks, arrangement)] == ranks


def test_snapshot_sums_up_rings(starved: Snapshot) -> None:
    """Step, rate, data wait and each rank's newest staleness are those that were written."""
    assert (starved.step, starved.rate, starved.step_seconds, starved.wait_seconds) == (STEPS, 1.0, 0.1, 0.0)
    assert [starved.ranks[rank].staleness for rank in (0, 1, 37)] == [0.0, 0.01, STEPS]
    assert starved.ranks[1].seen == 0.5
    [line] = [line for line in starved.metrics if line.key == rows.STALENESS_MAX.wandb_key]
    assert (line.curve, line.judged, line.healthy) == (tuple(map(float, range(1, STEPS + 1))), STEPS, False)


def test_rate_survives_close() -> None:
    """Steps whose rows were written at a rank's close, a millisecond apart, count with the time that they took."""
    history, written = History("nowhere", "run"), NOW
    for step in range(1, 25):
        written += SECOND // 2 if step < 20 else SECOND // 1000
        history.cluster.add(step, written, {rows.STEP_DURATION.wandb_key: 0.5})
    assert take_snapshot(history, [], written).rate == pytest.approx(2.0)


@pytest.mark.parametrize(("width", "shown"), [(200, True), (100, True), (80, False), (60, True), (40, False)])
def test_shares_have_their_loss(starved: Snapshot, width: int, shown: bool) -> None:
    """A loss that the job gives by source stands beside the shares where there is room; "-" where a source has none."""
    history = History("nowhere", "run", modalities=("code", "prose"))
    values = {share_key("code"): 0.5, target_key("code"): 0.5, "loss": 3.0, "loss/code": 2.5}
    history.cluster.add(1, NOW, values)
    snapshot = dataclasses.replace(starved, shares=take_snapshot(history, [], NOW).shares)
    lines = [line.plain for line in frame(snapshot, width=width, height=None, plain=True)]
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert ("loss   2.500" in text) == shown
    assert ("loss       -" in text) == shown
