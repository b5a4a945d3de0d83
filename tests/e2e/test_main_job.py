"""The main job, whole: torchrun, ring, sidecar, bridge, wandb, on real files, against a replay of the ranks' events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import otel_train, wandb_history
from tests.support.replay import replay

WRONG = {
    "healthy": set(),
    "starved_reader": {"stream_mixing/staleness_mean", "stream_mixing/staleness_max"},
    "collapsed_mix": {"stream_mixing/restarts", "stream_mixing/switch_rate", "stream_mixing/mix_divergence"},
    "undersized_ledger": {
        "ledger/evictions",
        "ledger/evictions_max",
        "ledger/false_evictions",
        "ledger/false_evictions_max",
    },
}
QUICK = {("healthy", 2), ("starved_reader", 4), ("collapsed_mix", 1), ("undersized_ledger", 2)}
"""What `make test` runs of each configuration on each number of ranks; CI runs the rest of the matrix too."""
SETTINGS = {
    "workers": (
        "[mixing]\nworkers = 2\nreaders = 5\nrows = 3\nhorizon = 50.0\nweights = { code = 3.0, prose = 1.0 }\n"
        "schedule = [{ step = 15, weights = { code = 1.0, prose = 4.0 } }]\n"
    ),
    "stale": "[ledger]\ncapacity = 5\nmax_idle_steps = 2\nrecently_evicted = 3\n[mixing]\nat_end = 'next'\n",
    "interval": "[telemetry]\nlog_every = 4\nblocking = true\n",
}


def assert_rows_equal_replay(out: Path) -> None:
    """Compare what wandb reads from its file with the replay: integers exactly, the others to 1e-9."""
    result = json.loads((out / "result.json").read_text())
    rows, replayed = wandb_history(out / result["wandb_file"]), replay(out)
    assert [row["train/step"] for row in rows] == [expected["train/step"] for expected in replayed]
    assert {row["train/ranks"] for row in rows} == {result["world_size"]}
    for row, expected in zip(rows, replayed, strict=True):
        for key, value in expected.items():
            exact = isinstance(value, int) or float(value).is_integer()
            assert row[key] == (value if exact else pytest.approx(value, rel=1e-9, abs=0)), (
                expected["train/step"],
                key,
            )


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        pytest.param(name, ranks, marks=() if (name, ranks) in QUICK else pytest.mark.matrix)
        for name in WRONG
        for ranks in (1, 2, 4)
    ],
)
def test_shipped_configuration_equals_replay(name: str, ranks: int, tmp_path: Path) -> None:
    """A smoke run passes, just the stated metrics are out of range, as its report says, and each of wandb's 15 keys is
    right at every step.
    """
    run = otel_train("smoke", name, "--nproc", str(ranks), "--out", str(tmp_path), "--events")
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["unhealthy"]) == WRONG[name]
    assert len(result["metrics"]) == 15
    assert len(replay(tmp_path)) == result["steps"]
    assert_rows_equal_replay(tmp_path)
    page = otel_train("report", str(tmp_path), "-o", "-")
    assert page.returncode == 0, page.stderr
    assert (f"{len(WRONG[name])} of 15 figures out of range" if WRONG[name] else "All 15 figures") in page.stdout


@pytest.mark.e2e
@pytest.mark.parametrize("name", SETTINGS)
def test_other_settings_equal_replay(name: str, tmp_path: Path) -> None:
    """Workers, stale entries, streams that end for good and longer intervals change nothing about being right."""
    (tmp_path / "page.txt").write_text("a page of prose, again and again. " * 40)
    data = "[data]\nmin_bytes = 600\nmax_bytes = 1500\n[data.modalities]\ncode = ['{stdlib}/*.py']\nprose = ['*.txt']\n"
    config = tmp_path / "job.toml"
    config.write_text(f"[job]\nsteps = 40\n{data}{SETTINGS[name]}")
    run = otel_train("smoke", str(config), "--out", str(tmp_path / "out"), "--events")
    assert "rows are in the wandb file" not in run.stdout, run.stdout
    assert run.returncode in (0, 1), run.stderr
    assert_rows_equal_replay(tmp_path / "out")


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
    """A wrong value is named, with the rule and what to do."""
    config = tmp_path / "job.toml"
    config.write_text(f"{text}\n[data.modalities]\ncode = ['{{stdlib}}/*.py']\n")
    run = otel_train("smoke", str(config), "--out", str(tmp_path / "out"))
    assert (run.returncode, run.stdout) == (2, "")
    assert complaint in run.stderr
    assert len(run.stderr.splitlines()) == 1
