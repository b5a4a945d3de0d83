"""Receivers of a smoke run's telemetry: a bridge of its own, or one that runs already."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from otel_train.bridge import delivered_steps, read_history, wandb_files
from otel_train.exceptions import JobError
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.smoke.child_process import cause, ended_within, running_process

START = 60.0
"""Seconds that the bridge may take to listen."""
PROJECT = "otel-train"


class Receiver(Protocol):
    """A receiver as a smoke run sees it."""

    endpoint: str
    """An `OTEL_EXPORTER_OTLP_ENDPOINT`."""

    def arrived(self) -> int:
        """Return the number of steps that it has."""

    def problem(self) -> str:
        """Return why no more can arrive, with its last error; empty while that is not known."""

    def history(self) -> tuple[list[Mapping[str, float]], Path | None]:
        """Return the values of all steps by wandb key, and the wandb file where there is one; called at the very end.

        Raises:
            JobError: There is not one file.
        """


class _OwnBridge:
    def __init__(self, out: Path, run_id: str, process: subprocess.Popen[bytes]) -> None:
        self._out, self._run_id, self._process = out, run_id, process
        self.endpoint = f"http://{self._await_address(out / 'address')}"

    def _await_address(self, path: Path) -> str:
        deadline = time.monotonic() + START
        while not (path.exists() and (text := path.read_text().strip())):
            if ended_within(self._process, 0.05) or time.monotonic() > deadline:
                raise JobError(f"the bridge did not start: {self._log()}")
        return text

    def _log(self) -> str:
        return cause(self._out / "bridge.log")

    def arrived(self) -> int:
        return delivered_steps(self._out, self._run_id)

    def problem(self) -> str:
        return f"the bridge has ended: {self._log()}" if self._process.poll() is not None else ""

    def history(self) -> tuple[list[Mapping[str, float]], Path | None]:
        files = wandb_files(self._out, self._run_id)
        if len(files) != 1:
            raise JobError(f"{len(files)} wandb files were written, one was expected: {self._log()}")
        return [row.values for row in read_history(files[0])], files[0]


class _GivenReceiver:
    """A receiver that runs already, seen by what the rings note as acknowledged; it is not asked anything itself."""

    def __init__(self, endpoint: str, rings: Path, run_id: str) -> None:
        self.endpoint = endpoint
        self._directory, self._run_id = rings, run_id
        self._readers: dict[Path, RingReader] = {}
        self._positions: dict[Path, int] = {}
        self._rows: list[Mapping[str, float]] = []

    def arrived(self) -> int:
        for path in ring_files(self._directory):
            reader = self._readers.get(path) or self._readers.setdefault(path, RingReader(path))
            if reader.identity.run_id == self._run_id:
                begin, end = self._positions.get(path, 0), reader.cursor.position
                records, self._positions[path], _ = reader.read(begin, end - begin)
                self._rows += [record.by_key() for record in records if record.kind is Kind.CLUSTER]
        return len(self._rows)

    def problem(self) -> str:
        return ""

    def history(self) -> tuple[list[Mapping[str, float]], Path | None]:
        return self._rows, None


@contextmanager
def own_bridge(out: Path, run_id: str, environment: Mapping[str, str]) -> Iterator[Receiver]:
    """Run a bridge on a free port, with its state in `out`, wandb offline.

    Raises:
        JobError: It does not start; the message names its log.
    """
    command = [sys.executable, "-m", "otel_train", "bridge", "--listen", "127.0.0.1:0", "--state", str(out)]
    command += ["--wandb-mode", "offline", "--project", PROJECT]
    with running_process(command, out / "bridge.log", environment) as process:
        yield _OwnBridge(out, run_id, process)


@contextmanager
def given_receiver(endpoint: str, rings: Path, run_id: str) -> Iterator[Receiver]:
    """Send to a receiver that runs already, and read in the rings what it acknowledges."""
    yield _GivenReceiver(endpoint, rings, run_id)
