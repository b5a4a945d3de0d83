"""The share of the machine that a sidecar takes, whatever the rank that starts it was given."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from otel_train.sidecar.machine_share import NICENESS, SET_IO_PRIORITY, SET_MEMPOLICY, isolated_cores
from tests.support.waiting import wait_until

RANK = """
import sys, time
from pathlib import Path
from otel_train.step.sidecar_process import SidecarProcess
process = SidecarProcess(Path(sys.argv[1]), 0.0)
while not process.pid:
    time.sleep(0.01)
print(process.pid, flush=True)
sys.stdin.read()
process.close()
"""
SESSION = """
import sys, time
import otel_train
with otel_train.init(ring_dir=sys.argv[1], close_timeout=30.0) as telemetry:
    telemetry.step(1, {"train/loss": 1.0})
    while not telemetry._sidecar.pid:
        time.sleep(0.01)
    print(telemetry._sidecar.pid, flush=True)
    sys.stdin.read()
"""
LEAVE = """
import os, sys
from pathlib import Path
from otel_train.sidecar.machine_share import leave_ranks_share
print(leave_ranks_share(*map(Path, sys.argv[1:])), os.sched_getaffinity(0))
"""
CORES = os.sched_getaffinity(0)
CLASSES = {os.SCHED_OTHER, os.SCHED_BATCH}
ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="its filter has this machine's numbers")
LIBRARY = ctypes.CDLL(None, use_errno=True)


class Share(NamedTuple):
    """Share of the machine that a process has."""

    cores: set[int]
    scheduling: int
    niceness: int
    session: str
    """Priority of its session; empty where sessions have none."""
    io: int


@contextmanager
def sidecar_of(begin: Callable[[], object], directory: Path, *before: str, rank: str = RANK) -> Iterator[Share]:
    """Give the share of a sidecar while its rank runs, which begins with a call of `begin`."""
    command = [*before, sys.executable, "-c", rank, str(directory)]

    def prepare() -> None:
        with contextlib.suppress(PermissionError):  # the tests themselves may run under nice
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        begin()

    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,  # noqa: PLW1509  # the tests' process has no thread that could hold a lock
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        autogroup = Path(f"/proc/{pid}/autogroup")
        yield Share(
            os.sched_getaffinity(pid),
            os.sched_getscheduler(pid),
            os.getpriority(os.PRIO_PROCESS, pid),
            autogroup.read_text().split()[-1] if autogroup.exists() else "",
            LIBRARY.syscall(SET_IO_PRIORITY.get(platform.machine(), 251) + 1, 1, pid),
        )
        process.communicate()


def bind() -> None:
    """Bind this process to one core and one memory node, as numactl does it, and to the first class of I/O."""
    os.sched_setaffinity(0, {min(CORES)})
    LIBRARY.syscall(SET_MEMPOLICY.get(platform.machine(), -1), 2, ctypes.byref(ctypes.c_ulong(1)), 64)  # MPOL_BIND
    LIBRARY.syscall(SET_IO_PRIORITY.get(platform.machine(), -1), 1, 0, 2 << 13 | 1)


@pytest.mark.usefixtures("receiver")
def test_launchers_binding_is_left(tmp_path: Path) -> None:
    """The sidecar of a real session under taskset and nice has every core, and a lower priority."""
    with sidecar_of(lambda: None, tmp_path, "taskset", "-c", str(min(CORES)), "nice", "-n7", rank=SESSION) as share:
        assert (share.cores, share.scheduling, share.niceness) == (CORES, os.SCHED_BATCH, 12)


def test_bound_rank_shares_no_cores(tmp_path: Path) -> None:
    """The sidecar of a bound rank has every core, patience, and the default policies of memory and I/O."""
    with sidecar_of(bind, tmp_path) as share:
        assert (share.cores, share.scheduling, share.niceness, share.io) == (CORES, os.SCHED_BATCH, NICENESS, 0)
        assert share.session in ("", str(NICENESS))


@pytest.mark.parametrize(
    ("niceness", "expected", "scheduling"),
    [(0, 10, os.SCHED_BATCH), (10, 15, os.SCHED_BATCH), (17, 19, os.SCHED_BATCH), (19, 19, os.SCHED_IDLE)],
)
def test_priority_is_below_ranks(niceness: int, expected: int, scheduling: int, tmp_path: Path) -> None:
    """The sidecar has a lower priority than the rank, and next to the lowest one the idle class."""
    with sidecar_of(lambda: os.nice(niceness), tmp_path) as share:
        assert (share.niceness, share.scheduling) == (expected, scheduling)
        assert share.session in ("", str(expected))


@pytest.mark.parametrize(
    ("scheduling", "priority", "expected"),
    [
        (os.SCHED_FIFO, 5, os.SCHED_BATCH),
        (os.SCHED_RR | os.SCHED_RESET_ON_FORK, 5, os.SCHED_BATCH),
        (os.SCHED_BATCH, 0, os.SCHED_BATCH),
        (os.SCHED_IDLE, 0, os.SCHED_IDLE),
    ],
)
def test_class_is_below_ranks(scheduling: int, priority: int, expected: int, tmp_path: Path) -> None:
    """The sidecar of a rank that runs in real time does not, and that of an idle one is idle."""

    def schedule() -> None:
        os.sched_setscheduler(0, scheduling, os.sched_param(priority))

    with sidecar_of(schedule, tmp_path) as share:
        assert (share.scheduling, share.niceness) == (expected, NICENESS)


def without_capabilities() -> None:
    """Bind this process, and leave it no capability that it or its children could use."""
    bind()
    os.nice(3)
    for capability in range(64):
        LIBRARY.prctl(24, capability)  # PR_CAPBSET_DROP


def test_share_needs_no_capability(tmp_path: Path) -> None:
    """A rank without privileges has a sidecar with every core, and a lower priority."""
    with sidecar_of(without_capabilities, tmp_path) as share:
        assert (share.cores, share.scheduling, share.niceness) == (CORES, os.SCHED_BATCH, NICENESS)
        assert share.session in ("", str(NICENESS))


def refuse_changes() -> None:
    """Bind this process, and have the kernel refuse every change of what it was given, as a container's filter may."""
    bind()
    calls = {141, 144, 203, 238, 251}  # setpriority, sched_setscheduler, sched_setaffinity, set_mempolicy, ioprio_set
    load, jump, end = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0)]
    for call in calls:
        code += [(jump, 0, 1, call), (end, 0, 0, 0x00050000 | 1)]  # the next instruction is for this call: EPERM
    code.append((end, 0, 0, 0x7FFF0000))  # all others are allowed
    program = b"".join(struct.pack("<HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    filtered = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(buffer))
    LIBRARY.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if LIBRARY.prctl(22, 2, filtered, 0, 0):  # PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), "no filter")


def refusals(directory: Path) -> list[str]:
    """Return the whole lines of a sidecar's log that say what was refused."""
    log = directory / "sidecar.log"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [line for line in lines if "refuses" in line and line.endswith("\n")]


@ON_X86
def test_refusals_are_logged(tmp_path: Path) -> None:
    """A sidecar that may change nothing serves with what the rank has, and its log says so."""
    with sidecar_of(refuse_changes, tmp_path) as share:
        assert (share.cores, share.scheduling, share.niceness) == ({min(CORES)}, os.SCHED_OTHER, 0)
        wait_until(lambda: bool(refusals(tmp_path)))
    (line,) = refusals(tmp_path)
    for name in ("cores", "scheduling class", "priority", "I/O priority", "memory nodes"):
        assert f"{name} (Operation not permitted)" in line


@pytest.mark.parametrize(
    ("text", "cores"),
    [("2-4,8\n", {2, 3, 4, 8}), ("\n", set()), ("0\n", {0}), ("what\n", set()), (None, set())],
)
def test_isolated_cores_are_read(text: str | None, cores: set[int], tmp_path: Path) -> None:
    """The kernel's list of cores gives each of them; none where it can't be read."""
    path = tmp_path / "isolated"
    if text is not None:
        path.write_text(text)
    assert isolated_cores(path) == cores


def left_share(*arguments: Path | str) -> str:
    """Return what is left by a process with a session of its own, for the tests' one keeps its priority."""
    command = [sys.executable, "-c", LEAVE, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, start_new_session=True).stdout


@pytest.mark.parametrize("isolated", ["one", "all"])
def test_isolated_cores_are_avoided(isolated: str, tmp_path: Path) -> None:
    """The sidecar takes no core that is kept from the scheduler, unless there is no other."""
    path = tmp_path / "isolated"
    path.write_text("0-4095" if isolated == "all" else str(min(CORES)))
    output = left_share(path)
    others = CORES if isolated == "all" or len(CORES) == 1 else CORES - {min(CORES)}
    assert output == f"[] {others}\n"


def test_process_without_session_group(tmp_path: Path) -> None:
    """A sidecar whose session the kernel knows no group of changes its own priority, and that is no refusal."""
    output = left_share(tmp_path / "none", "/proc/self/clear_refs")  # the kernel calls 10 invalid there too
    assert output == f"[] {CORES}\n"
