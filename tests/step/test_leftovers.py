"""What closed sessions leave in a process: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import otel_train
from otel_train.catalogue import cluster_name
from otel_train.testing import OtlpReceiver
from tests.support.waiting import wait_until


def test_sessions_leave_nothing_behind(tmp_path: Path) -> None:
    """Six sessions leave no more than one: descriptors, threads, children, process groups, rings and sidecars."""

    def sidecars(directory: Path) -> list[str]:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_text())
            except OSError:
                continue
        return [line for line in lines if "otel_train.sidecar" in line and str(directory) in line]

    program = """
        import gc, json, os, sys, threading, time
        import torch.distributed as dist
        import otel_train

        def counts():
            gc.collect()
            return {
                "descriptors": len(os.listdir("/proc/self/fd")),
                "threads": len(os.listdir("/proc/self/task")),
                "children": len(open(f"/proc/self/task/{os.getpid()}/children").read().split()),
                "groups": len(dist.distributed_c10d._world.pg_map),
                "maps": sum(".ring" in line for line in open("/proc/self/maps")),
            }

        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        seen = []
        for number in range(6):
            directory = f"{sys.argv[1]}/{number}"
            with otel_train.init(ring_dir=directory, run_id=str(number), close_timeout=60.0) as telemetry:
                for step in (1, 2, 3):
                    telemetry.step(step, {"loss": 2.0})
                begun = {str(thread.native_id) for thread in threading.enumerate()} - {str(os.getpid())}
            for _ in range(3000):  # a busy machine may be late to end a thread
                if begun.isdisjoint(os.listdir("/proc/self/task")):
                    break
                time.sleep(0.01)
            seen.append(counts())
        print(json.dumps([seen[0], seen[-1]]))
        sys.stdin.read()
    """
    with OtlpReceiver() as receiver:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(otel_train.__file__).parents[1]),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", dedent(program), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        first, last = json.loads(process.stdout.readline())
        wait_until(lambda: not sidecars(tmp_path), what="the sidecars' end")
        process.communicate("")
        assert len(receiver.values(cluster_name("loss"))) == 18
    assert last == first
    assert (first["maps"], first["groups"]) == (0, 1)
