"""Sessions that are closed in the middle of one of their own calls: by a signal's handler, or by a `__del__`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otel_train.catalogue import Phase
from otel_train.ring import End, Kind, RingReader, ring_files
from tests.support.torchrun import lone_ranks, rank_environment, script
from tests.support.waiting import wait_until


def close_at_each_line(out: Path, call: str) -> None:
    """Close a session at the first line of ours in a call, another one at its second line, and so on."""
    import json
    import sys
    from itertools import count
    from pathlib import Path
    from typing import Any

    import otel_train
    from otel_train.ring import Kind, RingReader, ring_files
    from otel_train.sidecar.feed import RingFeed
    from otel_train.step import end_after_call

    end_after_call._MARGIN = 60.0  # a busy machine may stand still for longer
    package = Path(otel_train.__file__).parent
    folders = tuple(f"{package / name}/" for name in ("step", "ring"))
    ended, over = [], []
    for line in count(1):
        telemetry = otel_train.init(ring_dir=out / str(line), blocking=True, close_timeout=0.01, ring_records=16)
        for step in (1, 2):
            telemetry.step(step, {"loss": float(step)})
        telemetry.log({"eval/loss": 1.0})
        left = line

        def trace(frame: Any, event: str, _: object, telemetry: Any = telemetry, rings: Path = out / str(line)) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(folders):
                return None
            left -= event == "line"
            if not left:
                sys.settrace(None)
                left = -1
                telemetry.close()
                feed = RingFeed(ring_files(rings)[0], None)
                over.append((feed.ended, feed.reader.progress.end.name))
                feed.reader.close()
                return None
            return trace if left > 0 else None

        sys.settrace(trace)
        exec(call, {"telemetry": telemetry})
        sys.settrace(None)
        telemetry.close()  # waits for the one that was put off
        assert telemetry._running is not None
        assert telemetry._running.ring is not None
        assert telemetry._running.ring.released, line
        reader = RingReader(ring_files(out / str(line))[0])
        records = [
            (record.step, list(record.by_key().items())) if record.logged else (record.step, record.by_key()["loss"])
            for record in reader.read(0, 16)[0]
            if record.kind is Kind.RANK
        ]
        ended.append((reader.progress.end.name, records))
        assert RingFeed(reader.path, None).ended, line
        reader.close()
        if left > 0:
            break
    assert set(over) == {(False, "CLOSED")}, "a sidecar stays for the records that a closed session still writes"
    (out / "ended").write_text(json.dumps(ended))


@pytest.mark.parametrize(
    ("call", "record"),
    [
        ("telemetry.step(3, {'loss': 3.0})", [3, 3.0]),
        ("telemetry.log({'eval/loss': 0.5})", [2, [["eval/loss", 0.5]]]),
        ("telemetry.add({'loss': 3.0})", [3, 3.0]),
        ("telemetry.step(2, {'loss': 4.0})", [2, [["loss", 4.0]]]),
        ("telemetry.flush(0.01)", None),
    ],
    ids=["step", "log", "add", "again", "flush"],
)
def test_call_that_is_closed_is_whole(call: str, record: list[object] | None, tmp_path: Path) -> None:
    """Whichever line of a call a close interrupts, the call is recorded once and whole, or not at all, and the session
    is closed; the ring has the end at once, and a sidecar does not leave before the last record.
    """
    environment = rank_environment(OTEL_TRAIN_SIDECAR="external")
    program = script(tmp_path, close_at_each_line, tmp_path, call)
    subprocess.run([sys.executable, program], env=environment, timeout=100, check=True)
    ended = json.loads((tmp_path / "ended").read_text())
    assert len(ended) > 10, "it has lines"
    before: list[object] = [[1, 1.0], [2, 2.0], [2, [["eval/loss", 1.0]]]]
    assert [end for end, _ in ended if end != "CLOSED"] == []
    assert all(records in (before, [*before, record]) for _, records in ended), ended
    if record is not None:
        assert ended[-2][1] == [*before, record]


def wait_for_peer(out: Path, handler: str) -> None:
    """Have rank 0 wait for rank 1, which is elsewhere until it is told, in a step whose values rank 0 wants at once."""
    import os  # it is for the handler
    import signal
    import sys  # as above

    import torch.distributed as dist

    import otel_train
    from tests.support.waiting import wait_until

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    telemetry = otel_train.init(ring_dir=out / "rings", blocking=True, reduction_timeout=100.0, close_timeout=0.2)
    signal.signal(signal.SIGTERM, lambda *_: exec(handler, {**globals(), "telemetry": telemetry, "os": os, "sys": sys}))
    for step in (1, 2):
        telemetry.step(step, {"loss": float(step)})
    if rank:
        wait_until((out / "done").exists, 60.0)
    telemetry.step(3, {"loss": 3.0})
    os._exit(0)


@pytest.mark.parametrize(
    ("handler", "code"),
    [("telemetry.close()", 0), ("telemetry.close()\nsys.exit(5)", 5), ("telemetry.close()\nos._exit(6)", 6)],
    ids=["goes on", "exits", "exits at once"],
)
def test_handler_closes_waiting_session(handler: str, code: int, tmp_path: Path) -> None:
    """A handler that closes the session while its step waits for a peer returns, the step too, and the ring has the
    step and the end.
    """
    with lone_ranks(2, script(tmp_path, wait_for_peer, tmp_path, handler)) as ranks:
        wait_until(lambda: len(ring_files(tmp_path / "rings")) == 2, 60.0, "the rings", log=tmp_path / "rank0.log")
        reader = RingReader(ring_files(tmp_path / "rings")[0])
        wait_until(lambda: reader.progress.step == 3 and reader.phase[0] is Phase.REDUCTION, 60.0, "the wait")
        ranks[0].process.send_signal(signal.SIGTERM)
        assert ranks[0].end(30) == code
        (tmp_path / "done").touch()
    assert reader.progress.end is End.CLOSED
    assert [record.step for record in reader.read(0, 16)[0] if record.kind is Kind.RANK] == [1, 2, 3]


def close_beside_training(out: Path, no_thread: bool) -> None:
    """Have rank 0 close, while its thread that trains waits in a step for rank 1, which is elsewhere until then."""
    import os
    import threading

    import torch.distributed as dist

    import otel_train
    from otel_train.catalogue import Phase
    from otel_train.ring import RingReader, ring_files
    from otel_train.step import end_after_call
    from tests.support.waiting import wait_until

    end_after_call._MARGIN = 60.0  # a busy machine may stand still for longer

    def train() -> None:
        for step in range(1, 3 if rank else 9):
            telemetry.step(step, {"loss": float(step)})

    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    telemetry = otel_train.init(ring_dir=out / "rings", max_in_flight=1, reduction_timeout=100.0, close_timeout=0.2)
    trains = threading.Thread(target=train, daemon=True)
    trains.start()
    if rank:
        trains.join()
        wait_until((out / "done").exists, 60.0)
        os._exit(0)
    wait_until(lambda: telemetry._running is not None, 60.0)
    reader = RingReader(ring_files(out / "rings")[0])
    # Rank 1 takes no part in step 3, for which the next one has to wait.
    wait_until(lambda: reader.progress.step == 4 and reader.phase[0] is Phase.REDUCTION, 60.0)
    if no_thread:
        threading.Thread.start = refuse  # type: ignore[assignment,method-assign]
    telemetry.close()
    assert telemetry._running is not None
    assert telemetry._running.ring is not None
    released = telemetry._running.ring.released
    (out / "done").touch()
    os._exit(0 if released else 9)


@pytest.mark.parametrize("no_thread", [False, True], ids=["thread", "no thread"])
def test_close_awaits_training_thread(no_thread: bool, tmp_path: Path) -> None:
    """A close by another thread than the one that trains, which waits for a peer, has ended the session at its return,
    also where no thread is to be had.
    """
    with lone_ranks(2, script(tmp_path, close_beside_training, tmp_path, no_thread)) as ranks:
        codes = [rank.end(60) for rank in ranks]
    assert codes == [0, 0], ranks[0].log.read_text()
