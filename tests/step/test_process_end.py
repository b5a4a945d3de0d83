"""How a session ended is in its ring: who ended it, and after which exception."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import otel_train
from otel_train.exceptions import SessionCopyError
from otel_train.native import core
from otel_train.ring import End, Kind, RingReader, ring_files
from otel_train.step.process_end import error_name
from tests.support.torchrun import lone_ranks, script
from tests.support.waiting import wait_until


def test_ring_records_session_end(tmp_path: Path) -> None:
    """The ring has how a session ended: by its user, with its process, after which exception, or not at all; every
    step is recorded.
    """
    # Each case ends a process of its own, all of which one has forked: torch is imported once. Frozen, its objects are
    # not looked through, and so not copied, at the end of each.
    program = """
        import gc, multiprocessing, os, sys
        import torch
        import otel_train
        from otel_train.step import signal_watch
        signal_watch.BOUND = 60.0  # a busy machine may stand still for longer than a signal's process may take
        gc.freeze()
        directory, *cases = sys.argv[1:]
        children = []
        for number, case in enumerate(cases):
            children.append(os.fork())
            if not children[-1]:
                break
        else:
            for child in children:
                os.waitpid(child, 0)
            os._exit(0)

        def begin():
            telemetry = otel_train.init(ring_dir=f"{directory}/{number}", close_timeout=0.01)
            telemetry.step(1)
            telemetry.step(2)
            return telemetry

        def fail():
            telemetry = begin()
            raise OSError("no")

        def spawned(_):
            fail()

        exec(case)
    """
    in_block = "with begin(): "
    in_try = "telemetry = begin()\ntry: 1 / 0\n"
    expected = {
        "begin().close()": (End.CLOSED, ""),
        "telemetry = begin()": (End.PROCESS, ""),
        "fail()": (End.PROCESS, "OSError"),
        "telemetry = begin()\nraise KeyboardInterrupt": (End.PROCESS, "KeyboardInterrupt"),
        in_block + "pass": (End.CLOSED, ""),
        in_block + "sys.exit(0)": (End.CLOSED, ""),
        in_block + "sys.exit(3)": (End.CLOSED, "SystemExit(3)"),
        in_block + "raise torch.OutOfMemoryError": (End.CLOSED, "torch.OutOfMemoryError"),
        in_try + "finally: telemetry.close()": (End.CLOSED, "ZeroDivisionError"),
        in_try + "except ZeroDivisionError: pass\ntelemetry.close()": (End.CLOSED, ""),
        "try: 1 / 0\nexcept ZeroDivisionError: begin().close()": (End.CLOSED, ""),
        "telemetry = begin()\nos.kill(os.getpid(), 15)": (End.OPEN, "") if core is None else (End.SIGNAL, "SIGTERM"),
        "telemetry = begin()\nos._exit(1)": (End.OPEN, ""),
        "multiprocessing.get_context('fork').Process(target=begin).start()": (End.PROCESS, ""),
        "multiprocessing.get_context('fork').Process(target=fail).start()": (End.PROCESS, "OSError"),
        "torch.multiprocessing.start_processes(spawned, start_method='fork')": (End.PROCESS, "OSError"),
    }
    environment = {**os.environ, "OTEL_TRAIN_SIDECAR": "external"}
    subprocess.run(
        [sys.executable, "-c", dedent(program), tmp_path, *expected], env=environment, timeout=120, check=True
    )
    ends = {}
    for number, case in enumerate(expected):
        reader = RingReader(ring_files(tmp_path / str(number))[0])
        ends[case] = (reader.progress.end, reader.error)
        assert [record.step for record in reader.read(0, 9)[0] if record.kind is Kind.RANK] == [1, 2], case
    assert ends == expected


class Terminated(SystemExit):
    """What a trainer raises at a signal."""


def raised(error: BaseException, context: BaseException | None = None) -> BaseException:
    """Return an exception as it is when it has been raised while another one was handled."""
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (None, ""),
        (StopIteration(), ""),
        (GeneratorExit(), ""),
        (SystemExit(), ""),
        (SystemExit(0), ""),
        (SystemExit("no data"), "SystemExit('no data')"),
        (raised(SystemExit(1), ValueError()), "ValueError"),
        (Terminated(), f"{__name__}.Terminated"),
        (type("Stopped", (Exception,), {"__module__": "trainers." * 5})(), "Stopped"),
        (SessionCopyError(), "otel_train.exceptions.SessionCopyError"),
    ],
)
def test_error_name_finds_cause(error: BaseException | None, name: str) -> None:
    """An exception gives its name, a good end none, and an exit code that a launcher made of an exception gives that
    one's.
    """
    assert error_name(error) == name


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_session_refuses_copies(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is pickled or copied, as launchers do, is refused with the remedy."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with pytest.raises(SessionCopyError, match=r"call otel_train.init\(\) in the function that each process runs"):
        copied(otel_train.init())


@pytest.mark.usefixtures("external_sidecar")
def test_session_lives_in_thread(tmp_path: Path) -> None:
    """A session works in a thread that is not the main one, as Ray, dask and monarch use it."""

    def train() -> None:
        with otel_train.init(ring_dir=tmp_path, close_timeout=0.01) as telemetry:
            for step in (1, 2):
                telemetry.step(step, {"loss": 1.0})

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(60)
    progress = RingReader(ring_files(tmp_path)[0]).progress
    assert (progress.step, progress.end) == (2, End.CLOSED)


def test_ending_process_makes_no_step(tmp_path: Path) -> None:
    """While a process ends, a thread that still trains, as in a pool that is stopped, makes no step that is lost."""
    program = """
        import atexit, os, sys, threading, time
        import otel_train
        from otel_train.step import session_end

        session_end.BOUND = 100.0  # a busy machine may take longer to end a process than threads are held
        begun = threading.Event()

        def train():
            telemetry = otel_train.init(ring_dir=sys.argv[1], close_timeout=0.01)
            for step in range(1, 1_000_000):
                telemetry.step(step)
                os.write(1, b"%d\\n" % step)
                if step == 3:
                    begun.set()

        atexit.register(time.sleep, 0.5)  # the pool's own end takes a while
        threading.Thread(target=train, daemon=True).start()
        begun.wait()
    """
    environment = os.environ | {"OTEL_TRAIN_SIDECAR": "external"}
    command = [sys.executable, "-c", dedent(program), str(tmp_path)]
    made = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True).stdout.split()
    reader = RingReader(ring_files(tmp_path)[0])
    assert reader.progress.end == End.PROCESS
    assert int(made[-1]) in (reader.progress.step, reader.progress.step - 1)  # it may have ended before the word of it


def log_until_end(out: Path) -> None:
    """Make steps on a rank that ends without a close, in a process that starts no thread any more."""
    import threading

    import torch.distributed as dist

    import otel_train

    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    dist.init_process_group("gloo")
    rings = out / "rings"
    telemetry = otel_train.init(ring_dir=rings, log_every=10, reduction_timeout=60.0, close_timeout=60.0)
    for step in range(1, 26):
        telemetry.step(step, {"loss": 1.0})
    telemetry.log({"eval/loss": 4.0 + 2 * dist.get_rank()})
    dist.barrier()
    threading.Thread.start = refuse  # type: ignore[assignment,method-assign]


def test_no_thread_ends_ranks(tmp_path: Path) -> None:
    """Ranks that end without a close where no thread starts any more, as from Python 3.12 on, record their rest, over
    the ranks too.
    """
    with lone_ranks(2, script(tmp_path, log_until_end, tmp_path)) as ranks:
        wait_until(lambda: len(ring_files(tmp_path / "rings")) == 2, 90.0, "the rings", log=ranks[0].log)
        readers = [RingReader(path, writable=True) for path in ring_files(tmp_path / "rings")]
        for reader in readers:
            wait_until(lambda reader=reader: reader.progress.closed, 90.0, "the end", log=ranks[0].log)  # type: ignore[misc]
            # As a sidecar does, for which they wait.
            reader.move_cursor(reader.cursor._replace(position=reader.progress.written))
        assert [rank.end() for rank in ranks] == [0, 0], ranks[0].log.read_text()
    assert [reader.progress.end for reader in readers] == [End.PROCESS] * 2
    cluster = [record for record in readers[0].read(0, 1000)[0] if record.kind is Kind.CLUSTER]
    assert [(record.step, record.by_key()["loss"]) for record in cluster if not record.logged][-1] == (25, 1.0)
    assert [(record.step, record.by_key()) for record in cluster if record.logged] == [(25, {"eval/loss": 5.0})]
