"""Scalars that are DTensors, over two real ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_parts_of_a_dtensor_make_the_whole(tmp_path: Path) -> None:
    """Without a collective of its own: sums, means, extremes, shards, and the norm that FSDP2's clipping gives."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(Path(__file__).with_name("dtensor_ranks.py")), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OTEL_TRAIN_SIDECAR": "external"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert said[0] == said[1]
    first = said[0]["first"]
    expected = {"whole": 5.0, "sum": 22.0, "avg": 11.0, "max": 12.0, "min": 10.0, "total": 22.0, "shard": 7.0}
    expected |= {"norm": 5.0, "clipped": 4.0}
    assert {key: first[key] for key in expected} == pytest.approx(expected)
    assert "product" not in first
    assert done.stderr.count("telemetry: 'product' is dropped: it is a DTensor of parts") == 2
    assert said[0]["losses"] == pytest.approx({"sum": 22.0, "whole": 5.0, "norm": 5.0, "clipped": 4.0})
    # A session that reduces over one rank only has one part of the sum.
    assert said[0]["lone"] == ["whole"]
    assert (
        done.stderr.count("telemetry: 'sum' is dropped: it is a DTensor with parts on ranks that telemetry does") == 2
    )
