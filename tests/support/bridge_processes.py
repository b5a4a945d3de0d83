"""A bridge as a process of its own, to be killed, and a sender that tries until it is acknowledged."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from otel_train.bridge import delivered_steps
from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.program import Program
from tests.support.waiting import wait_until

COMMAND = """
from otel_train.bridge import bridge_service
from otel_train.cli import main
bridge_service.STOP_SECONDS = 25.0
main()
"""
"""The bridge's, which may take longer to stop: on a busy machine wandb needs more than it has, and is that no fault."""


class BridgeProcess(Program):
    """The bridge as its command runs it, on one port and one state directory over all of its starts.

    Args:
        folder: Folder of its state and its log.
        *options: Options of the command.
        address: Where it listens; a free port of the loopback when empty.
        within: A command that runs another one where that address is.
        environment: What its environment has besides.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        address: str = "",
        within: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address or f"127.0.0.1:{free_port()}"
        self.state = folder / "state"
        command = [*within, sys.executable, "-c", COMMAND, "bridge", f"--state={self.state}"]
        command += [f"--listen={self.address}", *options]
        super().__init__(command, folder / "bridge.log", clean_environment(**environment or {}))

    def start(self) -> None:
        """Start it and wait until it serves; processes that a killed one has left must end first."""
        super().start()
        address = self.state / "address"
        wait_until(lambda: address.exists() or not self.runs, 60, "the bridge", log=self.log)
        assert self.runs, self.log.read_text()

    def kill(self) -> None:
        super().kill()
        (self.state / "address").unlink(missing_ok=True)

    def kill_wandb(self) -> None:
        """End wandb's own process with kill -9."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # another one has ended meanwhile
                state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
                if parent == str(self.pid) and state != "Z":
                    os.kill(int(process.name), signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def send(self, *requests: ExportMetricsServiceRequest) -> None:
        """Send requests, each until it is acknowledged."""
        for request in requests:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with grpc.insecure_channel(self.address) as channel:
                        MetricsServiceStub(channel).Export(request, timeout=5)  # type: ignore[no-untyped-call]
                    break
                except grpc.RpcError as error:
                    if time.monotonic() >= deadline:
                        raise AssertionError(f"{error}\n{self.log.read_text()}") from error
                    time.sleep(0.05)

    def wait(self, count: int, run_id: str = "run") -> None:
        """Wait until wandb has that many rows of the run."""
        wait_until(lambda: delivered_steps(self.state, run_id) >= count, 90, f"{count} rows", log=self.log)
