"""Run by torchrun on ranks with a GPU each: a training loop whose loss stays on the GPU, under the profiler."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

import otel_train
from otel_train.ledger import StateLedger

STEPS = 40
MARK = "otel_train::step"


def main() -> None:
    """Train, and write what telemetry gave and what CUDA was asked for while it was at work."""
    out = Path(sys.argv[1])
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device("cuda", torch.cuda.current_device()))
    rank = dist.get_rank()
    ledger = StateLedger((4,), capacity=8, device=torch.device("cuda", torch.cuda.current_device()))
    work = torch.randn(512, 512, device="cuda")
    peak = otel_train.Metric("peak", otel_train.Reduction.MAX)
    with otel_train.init(sources=[ledger], metrics=[peak], ring_dir=out / "rings", close_timeout=20.0) as telemetry:
        # The first steps make the schema, streams and NCCL's communicator.
        for step in range(1, STEPS + 1):
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
            with record_function(MARK):
                telemetry.step(step, {"loss": loss, "peak": loss})
            torch.cuda.set_sync_debug_mode("default")
        recording.stop()
    events = recording.events()  # type: ignore[no-untyped-call]
    spans = [event.time_range for event in events if event.name == MARK]
    waits = sorted(
        {
            event.name
            for event in events
            if "Synchronize" in event.name
            for span in spans
            if span.start <= event.time_range.start <= span.end
        }
    )
    (out / f"rank{rank}.json").write_text(json.dumps({"spans": len(spans), "waits": waits}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
