"""NCCL and scalars that stay on a GPU; `make test-gpu` runs this where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from otel_train.ring import Kind, RingReader, ring_files
from tests.distributed.gpu_ranks import STEPS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a rank on each GPU once and return where they wrote."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(torch.cuda.device_count())]
    command += [str(Path(__file__).with_name("gpu_ranks.py")), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OTEL_TRAIN_SIDECAR": "external"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def said(out: Path) -> list[dict[str, Any]]:
    """Return what each rank wrote."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("rank*.json"))]


def test_a_step_never_waits_for_the_gpu(out: Path) -> None:
    """The profiler shows no synchronising call."""
    assert [(each["spans"], each["waits"]) for each in said(out)] == [(STEPS - 4, [])] * torch.cuda.device_count()


def test_values_that_came_from_gpus_are_right_at_every_step(out: Path) -> None:
    """The loss and the largest one, with its rank, recorded under their steps."""
    ranks = torch.cuda.device_count()
    reader = RingReader(ring_files(out / "rings")[0])
    layout = reader.layout
    found = {}
    for record in reader.read(0, 10_000)[0]:
        if record.kind is Kind.CLUSTER:
            sums, rest = record.values[: layout.sums], record.values[layout.sums :]
            values = layout.by_key(sums, rest[: layout.peaks], rest[layout.peaks :])
            found[record.step] = (values["loss"], values["peak"], values["peak_rank"])
    mean = (ranks - 1) / 2
    assert found == {step: (step + mean, step + ranks - 1, ranks - 1) for step in range(1, STEPS + 1)}
