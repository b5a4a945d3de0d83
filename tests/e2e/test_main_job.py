"""The main job, whole: torchrun, ring, sidecar, bridge, wandb, on real files, against a replay of the ranks' events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import run_otel_train, wandb_history
from tests.support.replay import assert_rows_equal_replay, replay


def assert_losses_make_whole(folder: Path) -> None:
    """Check that each row's losses by source, by the tokens of the sources, make its loss; none without tokens."""
    rows = wandb_history(folder / json.loads((folder / "result.json").read_text())["wandb_file"])
    for row in rows:
        prefix = "stream_mixing/tokens/"
        tokens = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
        losses = {key.removeprefix("train/loss/"): row[key] for key in row if key.startswith("train/loss/")}
        assert losses.keys() == {source for source, count in tokens.items() if count}
        whole = sum(losses[source] * tokens[source] for source in losses) / sum(tokens.values())
        assert row["train/loss"] == pytest.approx(whole, rel=1e-9)
    assert rows


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "ranks", "unhealthy"),
    [  # `make test` runs one number of ranks of each configuration; CI runs the rest of the matrix too
        pytest.param(name, ranks, unhealthy, marks=() if ranks == quick else pytest.mark.matrix)
        for name, quick, unhealthy in (
            ("healthy", 2, set()),
            ("starved_reader", 2, {"stream_mixing/staleness_mean", "stream_mixing/staleness_max"}),
            (
                "collapsed_mix",
                1,
                {"stream_mixing/restarts", "stream_mixing/switch_rate", "stream_mixing/mix_divergence"},
            ),
            (
                "undersized_ledger",
                2,
                {
                    "ledger/evictions",
                    "ledger/evictions_max",
                    "ledger/false_evictions",
                    "ledger/false_evictions_max",
                },
            ),
        )
        for ranks in (1, 2, 4)
    ],
)
def test_shipped_configuration_equals_replay(name: str, ranks: int, unhealthy: set[str], tmp_path: Path) -> None:
    """A smoke run passes, only the stated metrics are out of range, and wandb's 15 keys are right at every step."""
    run = run_otel_train("smoke", name, "--nproc", ranks, "--out", tmp_path, "--events")
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["unhealthy"]) == unhealthy
    assert len(result["metrics"]) == 15
    assert len(replay(tmp_path)) == result["steps"]
    assert_rows_equal_replay(tmp_path)
    assert_losses_make_whole(tmp_path)
    page = run_otel_train("report", tmp_path, "-o", "-")
    assert page.returncode == 0, page.stderr
    assert (f"{len(unhealthy)} of 15 figures out of range" if unhealthy else "All 15 figures") in page.stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    "settings",
    [
        (
            "[mixing]\nworkers = 2\nreaders = 5\nrows = 3\nhorizon = 50.0\nweights = { code = 3.0, prose = 1.0 }\n"
            "schedule = [{ step = 15, weights = { code = 1.0, prose = 4.0 } }]\n"
        ),
        "[ledger]\ncapacity = 5\nmax_idle_steps = 2\nrecently_evicted = 3\n[mixing]\nat_end = 'next'\n",
        "[telemetry]\nlog_every = 4\nblocking = true\n",
    ],
    ids=["workers", "stale", "interval"],
)
def test_other_settings_equal_replay(settings: str, tmp_path: Path) -> None:
    """Workers, stale entries, streams that end for good and longer intervals change nothing about being right."""
    (tmp_path / "page.txt").write_text("a page of prose, again and again. " * 40)
    data = "[data]\nmin_bytes = 600\nmax_bytes = 1500\n[data.modalities]\ncode = ['{stdlib}/*.py']\nprose = ['*.txt']\n"
    config = tmp_path / "job.toml"
    config.write_text(f"[job]\nsteps = 40\n{data}{settings}")
    run = run_otel_train("smoke", config, "--out", tmp_path / "out", "--events")
    assert "rows are in the wandb file" not in run.stdout, run.stdout
    assert run.returncode in (0, 1), run.stderr
    assert_rows_equal_replay(tmp_path / "out")
    assert_losses_make_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[ledgr]\ncapacity = 4", "ledgr is not a setting; did you mean 'ledger'?"),
        ("[ledger]\ncapacity = 0", "ledger.capacity must be positive, got 0; set it to"),
        ("[job]\nsteps = 'many'", "job.steps must be a whole number, got 'many'"),
        ("[expect]\nunhealthy = ['picks']", "expect.unhealthy must name headline keys, got 'picks'"),
        ("[job", "is not TOML"),
    ],
)
def test_wrong_configuration_exits_with_2(text: str, complaint: str, tmp_path: Path) -> None:
    """The message names the wrong value, its rule and the remedy."""
    config = tmp_path / "job.toml"
    config.write_text(f"{text}\n[data.modalities]\ncode = ['{{stdlib}}/*.py']\n")
    run = run_otel_train("smoke", config, "--out", tmp_path / "out", COLUMNS="120")
    assert (run.returncode, run.stdout) == (2, "")
    assert complaint in run.stderr
    assert len(run.stderr.splitlines()) == 1
