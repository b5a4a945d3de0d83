"""NCCL and scalars that stay on a GPU; `make test-gpu` runs this where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
