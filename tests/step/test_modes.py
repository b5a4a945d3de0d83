"""A whole session inside the modes that a training process may have set in torch: the same values as in none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import otel_train
from otel_train import Scalar
from otel_train.mixing import StreamMixingDataset
from otel_train.ring import Kind, RingReader, ring_files
from tests.support.torch_modes import MODES, run_in, set_mode

TIMES = ("train/step_duration", "train/data_wait")


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    """Make a process group of one rank: values are packed and reduced as among many."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("mode", MODES)
def test_modes_change_no_session(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session measures the same in each of torch's modes, whatever is made or called inside it, and used outside."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")

    class Numbers:
        """A stream of numbered rows."""

        def __init__(self, name: str, modality: str) -> None:
            self.id, self.modality = name, modality

        def __len__(self) -> int:
            return 5

        def read(self, row: int) -> tuple[dict[str, Any], int]:
            """Return a row and its tokens."""
            return {"row": row}, row + 1

    metrics = [Scalar("total", "sum"), Scalar("largest", "max")]

    def train(directory: Path) -> list[dict[str, float]]:
        """Train with a dataset, a ledger and scalars, save, resume, and return the cluster's values of each step."""
        streams = [Numbers(f"s{number}", "ab"[number % 2]) for number in range(4)]
        dataset = StreamMixingDataset(streams, {"a": 1.0, "b": 2.0}, readers=3, batch_size=2)
        ledger = otel_train.StateLedger((2,), capacity=3, max_idle_steps=4)
        with otel_train.init(
            sources=[dataset, ledger], metrics=metrics, ring_dir=directory, blocking=True, close_timeout=0.01
        ) as telemetry:
            rows = iter(dataset)
            for step in range(1, 9):
                batch = [next(rows) for _ in range(2)]
                ids = [row["stream"] for row in batch]
                states, _ = ledger.fetch(ids)
                ledger.store(ids, states + 1)
                if step == 3:
                    ledger.wipe()
                if step == 5:
                    ledger.load_state_dict(ledger.state_dict())
                    dataset.load_state_dict(dataset.state_dict())
                    rows = iter(dataset)
                loss = torch.tensor(0.1 * step, dtype=torch.float32, device="cpu", requires_grad=True)
                telemetry.add({"loss": loss.detach() + 1, "total": step}, weight=2.0)
                telemetry.step(step, {"loss": loss, "largest": loss})
            assert telemetry.latest is not None
            assert telemetry.latest[0] == 8
        reader = RingReader(ring_files(directory)[0])
        values = [
            reader.layout.by_key(*reader.layout.split(record.values))
            for record in reader.read(0, 100)[0]
            if record.kind is Kind.CLUSTER
        ]
        assert len(values) == 8
        return [{key: value for key, value in row.items() if key not in TIMES} for row in values]

    expected = train(tmp_path / "plain")
    with monkeypatch.context() as patch:
        set_mode(mode, patch)
        measured = train(tmp_path / "mode")
    assert measured == expected
    assert expected[-1]["stream_mixing/picks"] == 2


@pytest.mark.parametrize("mode", MODES)
def test_modes_change_no_reduction(mode: str) -> None:
    """Reductions that wait give the same in each of torch's modes, and no times, which only a session takes."""
    meter = otel_train.MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    loss = torch.ones(())
    for step in (1, 2):
        meter.pick(0)
        values = run_in(mode, lambda: otel_train.aggregate_step_metrics([meter], step))  # noqa: B023  # called at once
        assert (values["stream_mixing/picks"], values.keys() & set(TIMES)) == (1, set())
        losses = run_in(mode, lambda: otel_train.reduce_loss_metrics({"x": loss}, sum_keys=["x"]))
        assert losses == {"x": 1.0, "x_max": 1.0}
