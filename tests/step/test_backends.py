"""Process groups of other kinds than gloo's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.environment import clean_environment


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            """
            import torch
            import torch.distributed as dist
            from torch.testing._internal.distributed.fake_pg import FakeStore
            import otel_train
            from otel_train.ring import Kind, RingReader, ring_files
            dist.init_process_group("fake", rank=7, world_size=10_000, store=FakeStore())
            mesh = dist.init_device_mesh("cpu", (100, 100), mesh_dim_names=("data", "tensor"))
            ledger = otel_train.StateLedger((2,), capacity=4)
            for group in (None, mesh["data"]):
                options = {"process_group": group, "blocking": True, "close_timeout": 0.1}
                with otel_train.init(sources=[ledger], **options) as telemetry:
                    ledger.store(["a", "b"], torch.ones(2, 2))
                    assert ledger.fetch(["a", "b"]).found.all()
                    values = telemetry.step(1, {"loss": 3.0})
                    assert (values["loss"], telemetry.identity.world_size) == (3.0, 10_000)
                    assert (telemetry.identity.rank, values["train/ranks"]) == (7, 1.0)
                attempt = str(telemetry.identity.attempt)
                (path,) = (path for path in ring_files(telemetry.ring_dir) if attempt in path.name)
                assert [record.kind for record in RingReader(path).read(0, 10)[0]] == [Kind.RANK, Kind.CLUSTER]
            assert otel_train.reduce_loss_metrics({"x": 2.0}) == {"x": 2.0}
            """,
            id="fake",
        ),
        pytest.param(
            """
            import os, threading
            import torch, torch.distributed as dist
            from torch.testing._internal.distributed.multi_threaded_pg import _install_threaded_pg
            import otel_train
            torch._C._distributed_c10d._set_thread_isolation_mode(True)
            _install_threaded_pg()
            store, losses = dist.HashStore(), []
            def train(rank):
                dist.init_process_group("threaded", rank=rank, world_size=2, store=store)
                with otel_train.init(blocking=True, close_timeout=0.1) as telemetry:
                    losses.append((telemetry.step(1, {"loss": float(rank)})["loss"], telemetry.identity.local_rank))
            threads = [threading.Thread(target=train, args=(rank,), daemon=True) for rank in range(2)]
            for thread in threads: thread.start()
            for thread in threads: thread.join(60)
            assert sorted(losses) == [(0.5, 0), (0.5, 1)], losses
            os._exit(0)
            """,
            id="threads",
        ),
        pytest.param(
            """
            import torch.distributed as dist
            import otel_train
            dist.init_process_group(rank=0, world_size=1, store=dist.HashStore())
            with otel_train.init(blocking=True, close_timeout=0.1) as telemetry:
                assert telemetry.step(1, {"loss": 3.0})["loss"] == 3.0
            """,
            id="no name",
        ),
    ],
)
def test_session_works_over_backend(code: str, tmp_path: Path) -> None:
    """A session gives the cluster's values over each backend, and this rank's own over a dry run's fake one."""
    environment = clean_environment(OTEL_TRAIN_SIDECAR="external", OTEL_TRAIN_RING_DIR=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
