"""Ranks that raise, are killed or end, and what the others have to do with it: nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from otel_train.ring import Kind, RingReader, ring_files
from tests.support.on_ranks import cluster_values
from tests.support.torchrun import lone_ranks, script
from tests.support.waiting import wait_until


class Lost(NamedTuple):
    """How the four ranks ended."""

    out: Path
    codes: list[int]
    logs: list[str]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """Run four ranks, without torchrun, which would end them all: rank 2 raises, rank 3 is killed, two train on."""

    def train(out: Path) -> None:
        """Train with a session for each group that this rank belongs to; the loss of step n is n times 10**rank."""
        import datetime as dt
        import logging
        import os
        import signal
        from contextlib import ExitStack

        import torch.distributed as dist

        import otel_train
        from otel_train.step.clock import wait_until

        logging.basicConfig(level=logging.WARNING)
        dist.init_process_group("gloo", timeout=dt.timedelta(seconds=60))
        rank = dist.get_rank()
        with ExitStack() as stack:
            sessions = []
            for name, ranks in {"raises": [0, 1, 2], "killed": [0, 1, 3]}.items():
                group = dist.new_group(ranks)
                if isinstance(group, dist.ProcessGroup):
                    session = otel_train.init(process_group=group, ring_dir=out / name, close_timeout=0.5)
                    sessions.append(stack.enter_context(session))
            for step in range(1, 21):
                for telemetry in sessions:
                    telemetry.step(step, {"loss": float(step * 10**rank)})
                    if step == 3:
                        assert (running := telemetry._running) is not None
                        assert wait_until(lambda reducer=running.reducer: reducer.settled, 30.0)  # type: ignore[misc]
                if step == 3:
                    dist.barrier()
                if step == 4 and rank == 2:
                    raise ValueError("the data is bad")
                if step == 4 and rank == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
        # No collective any more: two ranks are gone.

    out = tmp_path_factory.mktemp("lost")
    with lone_ranks(4, script(out, train, out), OTEL_TRAIN_RUN_ID="lost") as ranks:
        codes = [rank.end() for rank in ranks]
    return Lost(out, codes, [rank.log.read_text() for rank in ranks])


def test_others_train_to_their_end(lost: Lost) -> None:
    """They exit as ever; of a session they log once at most that values are lost, and nothing else raises in them.

    A rank that raises has closed its session, and takes part, without values, until its process has ended.
    """
    assert lost.codes == [0, 0, 1, -signal.SIGKILL], lost.logs
    for log in lost.logs[:2]:
        lost_at_once = log.count("no more cluster-wide values")
        lost_at_end = log.count("are not in the cluster's values")
        assert lost_at_once + lost_at_end in (1, 2)
        assert log.count("Traceback") == 0


@pytest.mark.parametrize(("name", "mean"), [("raises", 37.0), ("killed", 337.0)])
def test_reduced_steps_stay_right(name: str, mean: float, lost: Lost) -> None:
    """Steps 1 to 3 came back, later ones may have, without the lost rank, and none under another's number."""
    losses = cluster_values(lost.out / name, "loss")
    assert list(losses) == list(range(1, max(3, len(losses)) + 1))
    assert [losses[step] for step in (1, 2, 3)] == [mean * step for step in (1, 2, 3)]
    assert all(loss in (mean * step, 5.5 * step) for step, loss in losses.items())
    progress = RingReader(ring_files(lost.out / name)[0]).progress
    assert (progress.step, progress.closed, progress.abandoned) == (20, True, 20 - len(losses))


@pytest.mark.parametrize(("name", "rank", "closed"), [("raises", 2, True), ("killed", 3, False)])
def test_lost_rank_keeps_its_steps(name: str, rank: int, closed: bool, lost: Lost) -> None:
    """All four, the last one before the exception or the signal too; a raising rank closes its session."""
    reader = RingReader(ring_files(lost.out / name)[2])
    assert reader.identity.rank == rank
    assert [record.step for record in reader.read(0, 100)[0]] == [1, 2, 3, 4]
    assert (reader.progress.closed, reader.writer_lives) == (closed, False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_killed_rank_recorded_last_row(number: signal.Signals, tmp_path: Path) -> None:
    """Its peer came to the last step after it; launchers kill a rank a moment after another one has ended."""
    expected = {step: 5.5 * step for step in range(1, 6)}

    def train(out: Path, steps: int) -> None:
        """Train; rank 1 comes to its last step after rank 0, which makes no call of ours then."""
        import time

        import torch.distributed as dist

        import otel_train

        dist.init_process_group("gloo")
        rank, store = dist.get_rank(), dist.distributed_c10d._get_default_store()
        telemetry = otel_train.init(ring_dir=out / "rings", close_timeout=0.1)
        for step in range(1, steps + 1):
            if rank == 1 and step == steps:
                store.wait(["first"])
            telemetry.step(step, {"loss": float(step * 10**rank)})
        if rank == 0:
            store.set("first", "")
        (out / f"{rank}.waits").touch()
        time.sleep(240)  # until it is killed

    with lone_ranks(2, script(tmp_path, train, tmp_path, len(expected))) as ranks:
        for rank, (_, log) in enumerate(ranks):
            wait_until((tmp_path / f"{rank}.waits").exists, 120, f"last step of rank {rank}", log=log)
        wait_until(lambda: cluster_values(tmp_path / "rings", "loss") == expected, what="the last row")
        ranks[0].process.send_signal(number)
        assert ranks[0].end() == -number, ranks[0].log.read_text()
    assert cluster_values(tmp_path / "rings", "loss") == expected


def test_early_rank_ends_at_once(tmp_path: Path) -> None:
    """Gloo's destructor would wait for rank 0, which goes on long after, and records its own steps."""

    def train(out: Path) -> None:
        """Train; rank 0 makes no step until it is told that rank 1's process has ended.

        All names are local: the last reference to the process group goes when this returns.
        """
        import datetime as dt

        import torch.distributed as dist

        import otel_train
        from tests.support.waiting import wait_until

        dist.init_process_group("gloo", timeout=dt.timedelta(seconds=100))
        rank = dist.get_rank()
        with otel_train.init(ring_dir=out / "rings", close_timeout=0.5) as telemetry:
            for step in (1, 2, 3):
                telemetry.step(step, {"loss": float(step)})
            telemetry.flush(60.0)
            if rank == 0:
                wait_until((out / "ended").exists, 100.0, "the end of rank 1")
                telemetry.step(4, {"loss": 4.0})
        dist.destroy_process_group()

    # Nobody is to send, so that no flush waits for a sidecar.
    with lone_ranks(2, script(tmp_path, train, tmp_path), OTEL_TRAIN_SIDECAR="") as ranks:
        assert ranks[1].end() == 0, ranks[1].log.read_text()
        (tmp_path / "ended").touch()
        assert ranks[0].end() == 0, ranks[0].log.read_text()
    records = RingReader(ring_files(tmp_path / "rings")[0]).read(0, 100)[0]
    assert [record.step for record in records if record.kind is Kind.RANK] == [1, 2, 3, 4]
    assert [record.step for record in records if record.kind is Kind.CLUSTER] == [1, 2, 3]
