"""What a session refuses at its first step, and what it survives later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import otel_train
from otel_train.catalogue import Measure, Metric, Reduction, rows
from otel_train.exceptions import ConfigurationError
from otel_train.ring import RingReader, ring_files
from otel_train.step.environment import Environment
from otel_train.step.packing import PackingPlan

pytestmark = pytest.mark.usefixtures("external_sidecar")


class Source:
    """A source of a user's own with one metric."""

    def __init__(self, metric: Metric) -> None:
        self.metrics = (metric,)

    def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
        """Return one interval, and fail at step 2."""
        if step == 2:
            raise OSError("gone")
        return {self.metrics[0].name: 1}


@pytest.mark.parametrize(
    "key",
    [
        rows.EVICTIONS.wandb_key + "_max",
        rows.EVICTIONS.name + "_max",
        rows.EVICTIONS.wandb_key + "_max_rank",
        rows.STALENESS_MAX.wandb_key + "_rank",
        rows.TOKENS.wandb_key + "/code",
    ],
)
def test_keys_of_siblings_are_refused(key: str, tmp_path: Path) -> None:
    """A key that is a sibling's or a modality's of a catalogue metric is refused: two values would go under one wandb
    key.
    """
    with otel_train.init(ring_dir=tmp_path) as telemetry, pytest.raises(ConfigurationError, match="is one of otel_tr"):
        telemetry.step(1, {key: 1.0})


@pytest.mark.parametrize(
    "metric",
    [
        Metric("n", Reduction.SUM, with_max=True),
        Metric("n", Reduction.MEAN, measures=(Measure("top"), Measure("bottom", size=2))),
        Metric("n", Reduction.SUM, attribute="modality"),
        Metric("n", Reduction.HISTOGRAM),
        Metric(rows.LEDGER_HITS.name, Reduction.MAX),
    ],
    ids=["with_max", "measures", "attribute", "histogram", "another row"],
)
def test_uncarried_metric_is_refused(metric: Metric, tmp_path: Path) -> None:
    """A source's metric that a ring can't carry is refused with its name, since no reader could open the ring."""
    with pytest.raises(ConfigurationError, match=repr(metric.name)):
        otel_train.init(sources=[Source(metric)], ring_dir=tmp_path).step(1)


@pytest.mark.parametrize("other_first", [True, False])
def test_failing_source_costs_itself(other_first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A source that raises costs its own values of that step: others are recorded, and it is counted and warned of
    once.
    """
    other = otel_train.MixingMeter(1, ["a"], {"a": 1})
    other.open(0, "a")
    sources: list[Any] = [Source(Metric("n", Reduction.SUM)), other]
    rows_of_steps = []
    ordered = sources[:: -1 if other_first else 1]
    with otel_train.init(sources=ordered, ring_dir=tmp_path, blocking=True, close_timeout=0.01) as telemetry:
        for step in (1, 2, 3):
            other.pick(0)
            values = telemetry.step(step, {"loss": 2.0}) or {}
            keys = ("n", "loss", "stream_mixing/picks", "telemetry/values_dropped")
            rows_of_steps.append([values.get(key) for key in keys])
    assert rows_of_steps == [[1.0, 2.0, 1.0, 0.0], [None, 2.0, 1.0, 1.0], [1.0, 2.0, 1.0, 0.0]]
    assert ["raised OSError('gone')" in message for message in caplog.messages] == [True]


def test_unrecorded_step_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that can't be recorded counts as an abandoned reduction, in the ring too, and while the job runs."""
    with otel_train.init(ring_dir=tmp_path, blocking=True, close_timeout=0.01) as telemetry:
        telemetry.step(1)
        assert telemetry._running is not None
        with monkeypatch.context() as patched:
            patched.setattr(telemetry._running.recorder, "complete", None)
            assert telemetry.step(2) is None
            assert RingReader(ring_files(tmp_path)[0]).progress.step == 2  # nobody is paged: training goes on
        assert telemetry.step(3) is not None
        assert telemetry._running.ring is not None
        assert (telemetry._running.reducer.abandoned, telemetry._running.ring.abandoned) == (1, 1)


@pytest.mark.parametrize("records", [0, (1 << 24) + 1])
def test_init_refuses_unreadable_ring(records: int, tmp_path: Path) -> None:
    """A number of records that no reader would take is refused in init with the field's name."""
    with pytest.raises(ConfigurationError, match=r"^ring_records must be"):
        otel_train.init(ring_dir=tmp_path, ring_records=records)


@pytest.mark.parametrize("chosen", [True, False])
def test_shared_directory_gets_no_ring(
    chosen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that others may write gets no ring: a warning says so, and the session goes on without records."""
    monkeypatch.setattr(Environment, "ring_directory", lambda _, run_id: tmp_path / run_id)
    (tmp_path / "results.csv").touch()
    tmp_path.chmod(0o777)
    with otel_train.init(ring_dir=tmp_path if chosen else None, run_id="r", blocking=True) as telemetry:
        assert (telemetry.step(1, {"loss": 2.0}) or {})["loss"] == 2.0
    assert [path.name for path in tmp_path.rglob("*")] == ["results.csv"]
    assert [message.count("nothing is recorded on this rank") for message in caplog.messages] == [1]


def test_wrong_number_costs_one_step(tmp_path: Path) -> None:
    """A source's value that is not a number costs one step, also without a ring: the ranks' later reductions meet."""

    class Text(Source):
        """A source whose metric is a text at step 2."""

        def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
            """Return one interval."""
            return {self.metrics[0].name: "high" if step == 2 else 1}

    (tmp_path / "file").touch()
    source = Text(Metric("n", Reduction.MAX))
    with otel_train.init(sources=[source], ring_dir=tmp_path / "file", blocking=True) as telemetry:
        assert [(telemetry.step(step) or {}).get("n") for step in (1, 2, 3)] == [1.0, None, 1.0]


def test_flush_survives_lost_ring(tmp_path: Path) -> None:
    """A flush raises nothing when somebody has removed the ring from /dev/shm."""
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.01) as telemetry:
        telemetry.step(1)
        for path in tmp_path.iterdir():
            path.unlink()
        assert telemetry.flush(0.01) is False


@pytest.mark.parametrize("steps", [(5, 4, 6), (5, 7, 3), (1000, 999, 1001)])
def test_compensating_steps_are_refused(steps: tuple[int, ...]) -> None:
    """Steps that differ while their sum is right give no values."""
    plan = PackingPlan(1, 0, 3)
    packed = [plan.pack(step, [1.0], rank) for rank, step in enumerate(steps)]
    packed[0].vector.copy_(torch.stack([one.vector for one in packed]).sum(0))
    assert plan.unpack(packed[0], steps[0]) is None


def test_rank_suffix_is_allowed() -> None:
    """A key that ends like a sibling's, such as the effective rank of a matrix, is the user's own."""
    assert otel_train.reduce_loss_metrics({"effective_rank": 3.0}) == {"effective_rank": 3.0}


def test_wrong_modality_is_refused(tmp_path: Path) -> None:
    """A modality that no receiver would take is refused at the first step."""
    meter = otel_train.MixingMeter(1, ["m" * 513], {"m" * 513: 1.0})
    telemetry = otel_train.init(sources=[meter], ring_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="modalities must have 1 to"):
        telemetry.step(1)
