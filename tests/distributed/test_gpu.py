"""NCCL and scalars that stay on a GPU; `make test-gpu` runs this where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import otel_train
from otel_train import Scalar
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import SourceMeter, pack_tag
from otel_train.ring import Kind, RingReader, ring_files
from tests.support.torchrun import run_torchrun, script

pytestmark = pytest.mark.gpu


def test_step_never_waits_for_gpu(tmp_path: Path) -> None:
    """The profiler shows no synchronising call, and the loss and the largest one are right at every step."""
    steps, ranks = 40, torch.cuda.device_count()

    def train(out: Path, steps: int) -> None:
        """Train with a loss that stays on the GPU, under the profiler; no call of ours may wait for it."""
        import os

        import torch
        import torch.distributed as dist
        from torch.profiler import ProfilerActivity, profile, record_function

        import otel_train
        from otel_train.ledger import StateLedger

        mark = "otel_train::step"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device("cuda", torch.cuda.current_device()))
        rank = dist.get_rank()
        ledger = StateLedger((4,), capacity=8, device=torch.device("cuda", torch.cuda.current_device()))
        work = torch.randn(512, 512, device="cuda")
        peak = otel_train.Metric("peak", otel_train.Reduction.MAX)
        with otel_train.init(sources=[ledger], metrics=[peak], ring_dir=out / "rings", close_timeout=20.0) as telemetry:
            # The first steps make the schema, streams and NCCL's communicator.
            for step in range(1, steps + 1):
                states, _ = ledger.fetch([step])
                ledger.store([step], states + rank)
                if step == 5:
                    torch.cuda.synchronize()
                    recording = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
                    recording.start()
                for _ in range(20):
                    work = torch.tanh(work @ work)
                loss = work.abs().sum() * 0 + step + rank
                # Beside the profiler: whatever waits for the GPU raises here, and costs the step's values.
                torch.cuda.set_sync_debug_mode("error")
                with record_function(mark):
                    telemetry.step(step, {"loss": loss, "peak": loss})
                torch.cuda.set_sync_debug_mode("default")
            recording.stop()
        events = recording.events()  # type: ignore[no-untyped-call]
        spans = [event.time_range for event in events if event.name == mark]
        assert len(spans) == steps - 4
        calls = [event for event in events if "Synchronize" in event.name]
        assert not [c.name for c in calls if any(s.start <= c.time_range.start <= s.end for s in spans)]
        dist.destroy_process_group()

    run_torchrun(ranks, script(tmp_path, train, tmp_path, steps), seconds=250)
    reader, values = RingReader(ring_files(tmp_path / "rings")[0]), {}
    for record in reader.read(0, 10_000)[0]:
        if record.kind is Kind.RANK:
            assert "loss" not in record.by_key()
        else:
            row = reader.layout.by_key(*reader.layout.split(record.values))
            values[record.step] = (row["loss"], row["peak"], row["peak_rank"])
    mean = (ranks - 1) / 2
    assert values == {step: (step + mean, step + ranks - 1, ranks - 1) for step in range(1, steps + 1)}


def test_count_never_waits_for_gpu() -> None:
    """Tags that are on the GPU with their batch are counted in the step that read it, and the loop does not wait."""
    meter = SourceMeter({"a": 1, "b": 1})
    work = torch.randn(2048, 2048, device="cuda")
    for step in range(1, 21):
        words = torch.tensor([pack_tag("a", 3)] * step + [pack_tag("b", 5)] * 200, device="cuda")
        for _ in range(20):
            work = torch.tanh(work @ work)
        torch.cuda.set_sync_debug_mode("error")
        meter.count({"x": work, "otel_train": words, "otel_train_sample": words})
        torch.cuda.set_sync_debug_mode("default")
        values = meter.drain_step_metrics(step)
        assert (values["stream_mixing/tokens/a"], values["stream_mixing/tokens/b"]) == (3 * step, 1000)
    with pytest.raises(ConfigurationError, match="int64"):
        meter.count({"otel_train": torch.ones(2, device="cuda")})


def test_rows_never_wait_for_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses on the GPU are reduced there by sources on either side, tags too, and no call waits for the GPU."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    names, steps = ("code", "prose", "math"), 20
    meter = SourceMeter(dict.fromkeys(names, 1))
    declared = [Scalar(f"loss/{form}", by="modality") for form in ("tags", "device", "host", "tokens", "sums")]
    expected: dict[int, dict[str, float]] = {}
    work, generator = torch.randn(2048, 2048, device="cuda"), torch.Generator().manual_seed(0)
    with otel_train.init(sources=[meter], metrics=declared, ring_dir=tmp_path, close_timeout=20.0) as telemetry:
        for step in range(1, steps + 1):
            sources = torch.randint(0, 3 if step > 4 else 2, (10 + step,), generator=generator)
            losses, tokens = torch.rand(10 + step, generator=generator), torch.randint(0, 9, (10 + step,))
            words = torch.tensor([pack_tag(names[source], 1) for source in sources.tolist()])
            on_gpu = {
                "otel_train": words.cuda(),
                "losses": losses.cuda(),
                "of": sources.cuda(),
                "tokens": tokens.cuda(),
            }
            for _ in range(20):
                work = torch.tanh(work @ work)
            rows = on_gpu["losses"] + work.sum() * 0
            total = torch.zeros(3, device="cuda").index_add_(0, on_gpu["of"], rows)
            if step > 2:  # the first ones make pinned memory, and copy the meter's tables
                torch.cuda.set_sync_debug_mode("error")
            meter.count(on_gpu)
            telemetry.add({"loss/tags": rows})
            telemetry.add({"loss/device": rows}, by=on_gpu["of"])
            telemetry.add({"loss/host": rows.to(torch.float64)}, by=sources)
            telemetry.add({"loss/tokens": otel_train.PerRow(rows, on_gpu["tokens"], sources)})
            telemetry.add({"loss/sums": {name: (total[index], 1) for index, name in enumerate(names)}})
            torch.cuda.set_sync_debug_mode("default")
            telemetry.step(step)
            expected[step] = {}
            for index, name in [*enumerate(names), (None, "")]:
                chosen = sources == index if index is not None else torch.ones_like(sources, dtype=torch.bool)
                key = f"/{name}" if name else ""
                if chosen.any():
                    mean = losses.double()[chosen].mean().item()
                    expected[step] |= {f"loss/{form}{key}": mean for form in ("tags", "device", "host")}
                if (weights := tokens[chosen].double()).sum():
                    expected[step][f"loss/tokens{key}"] = float(
                        (losses.double()[chosen] * weights).sum() / weights.sum()
                    )
                expected[step][f"loss/sums{key}"] = losses.double()[chosen].sum().item() / (1 if name else 3)
    reader = RingReader(ring_files(tmp_path)[0])
    records = [record for record in reader.read(0, 10_000)[0] if record.kind is Kind.CLUSTER]
    assert [record.step for record in records] == list(expected)
    for record in records:
        row = reader.layout.by_key(*reader.layout.split(record.values))
        assert {key: row[key] for key in row if key.startswith("loss/")} == pytest.approx(
            expected[record.step], rel=1e-5, abs=1e-6
        )
