"""Ranks that SIGTERM ends, as a scheduler does, without a handler of the user's: nothing that was measured is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from otel_train.catalogue import rows
from otel_train.native import core
from otel_train.ring import End, RingReader, ring_files
from tests.support.on_ranks import cluster_values
from tests.support.torchrun import Rank, lone_ranks, script
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(core is None, reason="only the core watches signals")
STEPS = 25
PATIENCE = 20.0
"""Seconds that ranks get for the end of their sessions: what is lost must not be up to a busy machine."""


def train(out: Path, log_every: int, steps: Sequence[int], elsewhere: str, bound: float) -> None:
    """Make so many steps on each rank, each with a pick; then add a value to the next one, and do `elsewhere`."""
    import time

    import torch
    import torch.distributed as dist

    import otel_train
    from otel_train.step import signal_watch

    if bound:
        signal_watch.BOUND = bound
    dist.init_process_group("gloo")
    rank, ones = dist.get_rank(), torch.ones(1)
    meter = otel_train.MixingMeter(1, ["code"], {"code": 1.0})
    meter.open(0, "code")
    telemetry = otel_train.init(
        sources=[meter], log_every=log_every, ring_dir=out / "rings", close_timeout=bound or 2.0
    )
    for step in range(1, steps[rank] + 1):
        meter.pick(0)
        telemetry.step(step, {"loss": float(step)})
    if steps[0] == steps[1]:
        meter.pick(0)
        telemetry.add({"loss": 40.0})

    def reduce() -> None:
        """Take part in a collective of the job's own, which raises in the rank that is the last one to end."""
        try:
            dist.all_reduce(ones)
        except RuntimeError:
            time.sleep(120)

    (out / f"{rank}.ready").touch()
    exec(elsewhere, {**globals(), **locals()})


def end_all(ranks: Sequence[Rank], folder: Path, apart: float = 0.0) -> list[int]:
    """Terminate ranks that are ready, so many seconds apart, and return their codes."""
    for number in range(2):
        wait_until((folder / f"{number}.ready").exists, 120.0, f"rank {number}", log=folder / f"rank{number}.log")
    time.sleep(0.3)  # until what their main threads do has begun
    for rank in ranks:
        rank.process.send_signal(signal.SIGTERM)
        time.sleep(apart)
    return [rank.end() for rank in ranks]


@pytest.mark.parametrize(
    ("log_every", "apart", "elsewhere"),
    [
        (1, 0.0, "time.sleep(120)"),
        (10, 0.1, "time.sleep(120)"),
        (1000, 0.0, "while True: ones += 1"),
        (10, 0.0, "if rank: reduce()\ntime.sleep(120)"),
        (10, 0.0, "while True: reduce()"),
    ],
    ids=["each", "apart", "long", "stuck", "training"],
)
def test_terminated_ranks_lose_nothing(log_every: int, apart: float, elsewhere: str, tmp_path: Path) -> None:
    """Wherever their main threads are, the last row has all that was measured since the row before, of all ranks."""
    program = script(tmp_path, train, tmp_path, log_every, [STEPS, STEPS], elsewhere, PATIENCE)
    with lone_ranks(2, program) as ranks:
        codes = end_all(ranks, tmp_path, apart)
        logs = [rank.log.read_text() for rank in ranks]
    assert codes == [-signal.SIGTERM, -signal.SIGTERM], logs
    picks = cluster_values(tmp_path / "rings", rows.PICKS.wandb_key)
    assert sum(picks.values()) == 2 * (STEPS + 1), logs
    last, loss = cluster_values(tmp_path / "rings", "loss").popitem()
    assert last == (STEPS + 1 if log_every == 1 else STEPS)
    assert loss == pytest.approx({1: 40.0, 10: (115 + 40) / 6, 1000: (325 + 40) / 26}[log_every])
    for path in ring_files(tmp_path / "rings"):
        reader = RingReader(path)
        assert (reader.progress.end, reader.error, reader.progress.abandoned) == (End.SIGNAL, "SIGTERM", 0)
    assert [log.count("Traceback") for log in logs] == [0, 0]


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        ([25, 24], {25: 9.0}),
        ([30, 29], {30: 10.0, 31: 9.0}),
        ([29, 30], {30: 10.0, 31: 9.0}),
        ([31, 29], {30: 10.0, 31: 10.0}),
    ],
)
def test_ranks_apart_lose_nothing(steps: list[int], last: dict[int, float], tmp_path: Path) -> None:
    """A signal meets ranks at different steps, on both sides of a log step too: the rows have the picks of all."""
    program = script(tmp_path, train, tmp_path, 10, steps, "time.sleep(120)", PATIENCE)
    with lone_ranks(2, program) as ranks:
        codes = end_all(ranks, tmp_path)
        logs = [rank.log.read_text() for rank in ranks]
    picks = cluster_values(tmp_path / "rings", rows.PICKS.wandb_key)
    assert codes == [-signal.SIGTERM, -signal.SIGTERM], logs
    assert {step: count for step, count in picks.items() if step > 20} == last
    assert sum(picks.values()) == sum(steps), logs


def test_lone_terminated_rank_goes_in_time(tmp_path: Path) -> None:
    """A rank that a signal ends alone is dead soon; its peer trains on, and closes as ever."""
    elsewhere = """
if rank == 0:
    while not (out / "ended").exists():
        telemetry.step(step := step + 1, {"loss": 1.0})
        time.sleep(0.02)
    telemetry.close()
else:
    time.sleep(120)
"""
    program = script(tmp_path, train, tmp_path, 10, [STEPS, STEPS], elsewhere, 0.0)
    with lone_ranks(2, program) as ranks:
        codes = end_all(ranks[1:], tmp_path)
        (tmp_path / "ended").touch()
        codes.append(ranks[0].end())
        logs = [rank.log.read_text() for rank in ranks]
    assert codes == [-signal.SIGTERM, 0], logs
    reader = RingReader(ring_files(tmp_path / "rings")[0])
    assert (reader.progress.end, reader.error) == (End.CLOSED, ""), logs
    assert [log.count("Traceback") for log in logs] == [0, 0], logs
