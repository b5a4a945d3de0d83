"""Processes that a signal ends: what is recorded then, and whose the signal is where somebody handles it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from otel_train.native import core
from otel_train.ring import End, Kind, RingReader, ring_files
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(core is None, reason="only the core watches signals")
PROGRAM = """
    import asyncio, ctypes, faulthandler, gc, itertools, multiprocessing, os, signal, sys, threading, time
    import torch
    import otel_train
    from otel_train.step import signal_watch
    gc.freeze()

    def begin(bound=60.0, close_timeout=60.0, **options):  # so that no stall of the machine decides how a session ends
        signal_watch.BOUND = bound
        options |= {"log_every": 10, "close_timeout": close_timeout}
        telemetry = otel_train.init(ring_dir=f"{folder}/rings", **options)
        for step in range(1, 26):
            telemetry.step(step, {"loss": 1.0})
        return telemetry

    def ready():
        open(f"{folder}/ready", "w").close()

    def rest():
        ready()
        for _ in range(1200):  # a signal that comes just before one is seen after it
            time.sleep(0.05)

    def await_signal():  # one that this process does not see
        ready()
        while not os.path.exists(f"{folder}/signalled"):
            time.sleep(0.01)

    def hold():  # the interpreter's lock in a C call; no other thread has it between the word of that and the call
        library, reader, path = ctypes.PyDLL(None), os.pipe()[0], os.fsencode(f"{folder}/ready")
        read, create = library.read, library.creat
        sys.setswitchinterval(1000.0)
        time.sleep(0.05)  # who has waited for the lock since before that gets it now
        create(path, 0o600)
        read(reader, b"", 1)

    for line in sys.stdin:
        folder = line.strip()
        child = os.fork()
        if not child:
            code = open(f"{folder}/code").read()
            os.dup2(os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT), 2)
            break
        open(f"{folder}/pid.new", "w").write(str(child))
        os.rename(f"{folder}/pid.new", f"{folder}/pid")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        open(f"{folder}/code.new", "w").write(str(code))
        os.rename(f"{folder}/code.new", f"{folder}/code_of_end")
        print(flush=True)
    else:
        sys.exit()
    exec(code)
"""


class Ended(NamedTuple):
    """How a process has ended."""

    code: int
    log: str
    rings: list[RingReader]

    def ends(self) -> list[tuple[End, str, int]]:
        """Return how the sessions ended, and the last step that each has recorded."""
        return [
            (ring.progress.end, ring.error, max(record.step for record in ring.read(0, 1000)[0])) for ring in self.rings
        ]


class Parent:
    """A process whose forks run code of a test's: torch is imported once."""

    def __init__(self) -> None:
        environment = {**os.environ, "OTEL_TRAIN_SIDECAR": "external"}
        command = [sys.executable, "-c", dedent(PROGRAM)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, folder: Path, code: str, number: int = signal.SIGTERM, after: float = 0.0) -> Ended:
        """Run code until it is ready, send it a signal so many seconds later, and wait for its end."""
        (folder / "code").write_text(dedent(code))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        wait_until((folder / "pid").exists, 90.0, "the fork")
        pid, ended, log = int((folder / "pid").read_text()), folder / "code_of_end", folder / "log"
        try:
            wait_until(lambda: (folder / "ready").exists() or ended.exists(), 30.0, "the code", log=log, pause=0.001)
            time.sleep(after)
            with suppress(ProcessLookupError):  # it has failed: its log is shown
                if number and not ended.exists():
                    os.kill(pid, number)
            (folder / "signalled").touch()
            wait_until(ended.exists, 30.0, "the end", log=log)
        finally:
            with suppress(ProcessLookupError):
                if not ended.exists():
                    os.kill(pid, signal.SIGKILL)
            self.process.stdout.readline()
        rings = folder / "rings"
        readers = [RingReader(path) for path in ring_files(rings)] if rings.exists() else []
        return Ended(int(ended.read_text()), log.read_text(), readers)


@pytest.fixture(scope="module")
def parent() -> Iterator[Parent]:
    """A parent of all that this module runs."""
    started = Parent()
    yield started
    started.process.communicate("")


LATER = "begin(); rest()"
HANDLED = "def handle(*_):\n    {}\n{}"
EXITED = (End.PROCESS, "SystemExit(5)", 25)
"""End of a session whose process ends with code 5 in a handler."""


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (LATER, signal.SIGTERM),
        (LATER, signal.SIGHUP),
        ("begin(); ready()\nwhile True: pass", signal.SIGTERM),
        ("begin(); ready(); ctypes.CDLL(None).read(os.pipe()[0], b'', 1)", signal.SIGTERM),
        ("threading.Thread(target=lambda: begin() and rest()).start()", signal.SIGTERM),
        ("begin(); signal.pthread_sigmask(signal.SIG_BLOCK, {15}); rest()", signal.SIGTERM),
        ("begin(); faulthandler.register(15, chain=True); rest()", signal.SIGTERM),
        ("begin().timed([]); asyncio.run(asyncio.sleep(0, rest()))", signal.SIGTERM),
        ("begin(); os.kill(os.getpid(), 15)", 0),
    ],
    ids=["python", "hangup", "busy", "c", "thread", "other thread", "faulthandler", "loop", "itself"],
)
def test_signal_ends_session_first(code: str, number: int, parent: Parent, tmp_path: Path) -> None:
    """The row of the interval so far is recorded, and the process is dead by the signal, as without telemetry."""
    ended = parent.run(tmp_path, code, number)
    name = signal.Signals(number or signal.SIGTERM).name
    assert (ended.code, ended.ends()) == (-(number or signal.SIGTERM), [(End.SIGNAL, name, 25)]), ended.log
    assert "Traceback" not in ended.log


@pytest.mark.parametrize(
    ("code", "expected", "end"),
    [
        (HANDLED.format("sys.exit(5)", "signal.signal(15, handle); begin(close_timeout=0.01); rest()"), 5, EXITED),
        (HANDLED.format("sys.exit(5)", "begin(close_timeout=0.01); signal.signal(15, handle); rest()"), 5, EXITED),
        (HANDLED.format("telemetry.close(); os._exit(6)", "signal.signal(15, handle)\n"
                        "telemetry = begin(close_timeout=0.01); rest()"), 6, (End.CLOSED, "", 25)),
        (HANDLED.format("came.append(1)", "came = []; telemetry = begin(close_timeout=0.01)\n"
                        "signal.signal(15, handle); ready()\nwhile not came: time.sleep(0.01)\n"
                        "telemetry.step(26); telemetry.close()"), 0,
         (End.CLOSED, "", 26)),
        (HANDLED.format("os._exit(7)", "begin(); signal.signal(15, handle); rest()"), 7, (End.OPEN, "", 20)),
        ("signal.signal(15, signal.SIG_IGN); telemetry = begin(close_timeout=0.01); await_signal(); telemetry.close()",
         0, (End.CLOSED, "", 25)),
        ("begin(close_timeout=0.01).close(); rest()", -15, (End.CLOSED, "", 25)),
    ],
    ids=["exit before", "exit after", "close", "flag", "hard exit", "ignored", "closed"],
)  # fmt: skip
def test_handlers_keep_their_signal(
    code: str, expected: int, end: tuple[End, str, int], parent: Parent, tmp_path: Path
) -> None:
    """Who handles or ignores a signal, before or after `init`, decides how the process and its session end."""
    ended = parent.run(tmp_path, code)
    assert (ended.code, ended.ends()) == (expected, [end]), ended.log


def test_python_sees_no_handler(parent: Parent, tmp_path: Path) -> None:
    """What `signal` tells of the signals, and takes for the one before, is what was there without a session."""
    code = """
        plain = [signal.SIG_DFL] * 2
        telemetry = begin(close_timeout=0.01)
        assert [signal.getsignal(number) for number in (15, 1)] == plain
        assert [signal.signal(number, signal.SIG_DFL) for number in (15, 1)] == plain
        telemetry.close()
        assert "otel_train signals" not in [thread.name for thread in threading.enumerate()]
        os._exit(9)
    """
    ended = parent.run(tmp_path, code, 0)
    assert ended.code == 9, ended.log


def test_held_interpreter_ends_in_time(parent: Parent, tmp_path: Path) -> None:
    """A C call that keeps the interpreter's lock keeps the process for the bound, not for ever."""
    ended = parent.run(tmp_path, "begin(bound=0.3); hold()")
    assert (ended.code, ended.ends()) == (-15, [(End.OPEN, "", 20)]), ended.log


def test_no_timer_ends_at_once(parent: Parent, tmp_path: Path) -> None:
    """Where the kernel has no timer for the bound, nothing is waited for: a process must not outlive its signal."""
    code = """
        import resource
        begin()
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (0, 0))
        hold()
    """
    ended = parent.run(tmp_path, code)
    assert (ended.code, ended.ends()) == (-15, [(End.OPEN, "", 20)]), ended.log


def test_no_thread_ends_session(parent: Parent, tmp_path: Path) -> None:
    """An interpreter that starts no thread any more, as one that ends from Python 3.12 on, records the rest too."""
    code = """
        def refuse(thread):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        begin(run_id="a"), begin(run_id="b")
        threading.Thread.start = refuse
        rest()
    """
    ended = parent.run(tmp_path, code)
    assert (ended.code, ended.ends()) == (-15, [(End.SIGNAL, "SIGTERM", 25)] * 2), ended.log


def test_each_watched_signal_is_seen(parent: Parent, tmp_path: Path) -> None:
    """A signal that comes while a further one begins to be watched is not forgotten."""
    code = """
        from otel_train.native import core
        reader, writer = os.pipe()
        assert core.watch_signal(15, writer, 10**12)
        os.kill(os.getpid(), 15)
        assert core.watch_signal(1, writer, 10**12)
        os._exit(9 if core.signal_came() else 8)
    """
    ended = parent.run(tmp_path, code, 0)
    assert ended.code == 9, ended.log


@pytest.mark.parametrize(
    ("handler", "calls", "early"),
    [("signal.SIG_IGN", 0, False), ("lambda *_: calls.append(1)", 1, True)],
    ids=["ignored", "handled"],
)
def test_signal_taken_late_ends_nothing(handler: str, calls: int, early: bool, parent: Parent, tmp_path: Path) -> None:
    """Who takes a signal while it ends sessions goes on, waits for nothing, and has further sessions, watched too."""
    code = f"""
        from otel_train.step.signal_watch import WATCH

        def wait(*_):
            taken.wait()
            WATCH.remove(wait)

        def init():
            return otel_train.init(ring_dir=f"{{folder}}/rings", log_every=10, run_id="b")

        calls, taken = [], threading.Event()
        telemetry, another = begin(bound=5.0, run_id="a"), init() if {early} else None
        WATCH.add(wait)
        ready()
        while not WATCH.came:
            time.sleep(0.001)
        signal.signal(15, {handler})
        taken.set()
        while WATCH.came:
            time.sleep(0.01)
        telemetry.step(26)
        telemetry.close()
        another = another or init()
        for step in range(1, 26):
            another.step(step)
        time.sleep(signal_watch.BOUND)
        assert len(calls) == {calls}
        os.kill(os.getpid(), 1)
        rest()
    """
    ended = parent.run(tmp_path, code)
    assert ended.code == -1, ended.log
    assert sorted(ended.ends()) == [(End.SIGNAL, "SIGHUP", 25), (End.SIGNAL, "SIGTERM", 25)], ended.log
    assert ended.log.count("step(26) came after SIGTERM") == 1


def test_every_session_ends(parent: Parent, tmp_path: Path) -> None:
    """Two sessions of a process are recorded, each with its rest, within one bound."""
    ended = parent.run(tmp_path, "begin(run_id='a'); begin(run_id='b'); rest()")
    assert (ended.code, ended.ends()) == (-15, [(End.SIGNAL, "SIGTERM", 25)] * 2), ended.log


def test_children_die_alone(parent: Parent, tmp_path: Path) -> None:
    """A child that is terminated, at once or later, dies by it, and its parent's session goes on."""
    code = """
        telemetry = begin(close_timeout=0.01)
        for pause in (0.0, 0.0, 0.0, 0.3):
            process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            process.start()
            time.sleep(pause)
            process.terminate()
            process.join()
            assert process.exitcode == -15, process.exitcode
        loader = iter(torch.utils.data.DataLoader(range(9), num_workers=2))
        next(loader), next(loader)  # one of each worker
        [os.kill(worker.pid, 15) for worker in loader._workers]
        [worker.join() for worker in loader._workers]
        codes = [worker.exitcode for worker in loader._workers]
        assert codes == [0, 0], codes  # torch has its own handler there
        telemetry.step(26)
        telemetry.close()
        os._exit(9)
    """
    ended = parent.run(tmp_path, code, 0)
    assert (ended.code, ended.ends()) == (9, [(End.CLOSED, "", 26)]), ended.log


@pytest.mark.parametrize("attempt", range(15))
def test_any_moment_loses_nothing(attempt: int, parent: Parent, tmp_path: Path) -> None:
    """Whatever the training thread does when the signal comes, every step that had ended is in a record, once."""
    code = """
        meter = otel_train.MixingMeter(1, ["code"], {"code": 1.0})
        meter.open(0, "code")
        signal_watch.BOUND, options = 60.0, {"log_every": 3, "close_timeout": 60.0}
        telemetry = otel_train.init(ring_dir=f"{folder}/rings", sources=[meter], **options)
        for step in itertools.count(1):
            meter.pick(0)
            telemetry.add({"loss": 1.0})
            telemetry.step(step, {"lr": 1.0})
            if step == 100:
                ready()
    """
    ended = parent.run(tmp_path, code, after=0.003 * attempt)
    [ring] = ended.rings
    assert (ended.code, ring.progress.end, ring.error) == (-15, End.SIGNAL, "SIGTERM"), ended.log
    key = "stream_mixing/picks"
    # Those that the ring still has.
    first, *records = [record for record in ring.read(0, 10**6)[0] if record.kind is Kind.RANK]
    assert len({record.step for record in records}) == len(records)
    picks = first.step + sum(ring.layout.by_key(*ring.layout.split(record.values))[key] for record in records)
    assert records[-1].step <= picks <= records[-1].step + 1  # one of the step that is being made
    assert ring.progress.step == records[-1].step


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a namespace of processes")
def test_first_process_goes_on(tmp_path: Path) -> None:
    """The first process of a container, which SIGTERM does not end, records on after one."""
    program = """
        import sys, time
        from pathlib import Path
        import otel_train
        folder = Path(sys.argv[1])
        with otel_train.init(ring_dir=folder / "rings", log_every=10, close_timeout=0.01) as telemetry:
            telemetry.step(1)
            (folder / "ready").touch()
            while not (folder / "signalled").exists():
                time.sleep(0.01)
            telemetry.step(10)
    """
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", dedent(program), str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "OTEL_TRAIN_SIDECAR": "external"})
    wait_until((tmp_path / "ready").exists, 60.0, "the session")
    [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    (tmp_path / "signalled").touch()
    assert process.wait(60) == 0
    progress = RingReader(ring_files(tmp_path / "rings")[0]).progress
    assert (progress.step, progress.end) == (10, End.CLOSED)
