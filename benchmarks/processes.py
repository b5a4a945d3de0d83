"""The processes that the services' benchmarks start, and what each of them takes of the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.program import Program
from tests.support.waiting import wait_until

HOST = "127.0.0.1"
_TICKS = os.sysconf("SC_CLK_TCK")
_DEBUG_SINK = """
extensions: {{health_check: {{endpoint: "{host}:{health}"}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "{host}:{port}"}}}}}}}}
exporters: {{debug: {{verbosity: basic}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{metrics: {{receivers: [otlp], exporters: [debug]}}}}
"""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, its ended children left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mib(pid: int) -> float:
    """Return the largest resident set that a process has had, the pages of mapped ring files included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmHWM")


@contextmanager
def running(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[Program]:
    """Run a program during the block."""
    program = Program(command, log, environment)
    program.start()
    try:
        yield program
    finally:
        program.stop()


def python(*arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a started process: it finds this checkout, and sends nothing elsewhere."""
    return clean_environment(PYTHONPATH=str(programs.ROOT), **more)


@contextmanager
def debug_collector(home: Path) -> Iterator[str]:
    """Run a collector that takes everything and counts it in its log, and give its endpoint."""
    port, health = free_port(), free_port()
    config = _DEBUG_SINK.format(host=HOST, port=port, health=health)
    command = [str(programs.collector()), f"--config=yaml:{config}"]
    with running(command, home / "collector.log", environment()) as program:
        wait_until(lambda: answers(f"http://{HOST}:{health}"), 60, "the collector's start", log=program.log)
        yield f"http://{HOST}:{port}"
