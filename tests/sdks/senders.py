"""Programs of other languages that send what they are told with their OpenTelemetry SDK, and a bridge to send it to."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT

from otel_train.bridge import HistoryRow, delivered_steps, read_run
from tests.stack.programs import BUILD, CACHE, go
from tests.waiting import wait_until

NPM_INSTALL = ["npm", "install", "--prefer-offline", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
SOURCES = Path(__file__).parent
FOLDER = CACHE / "modules" / "sdks"
RUN = "run"
"""The run that the programs say they are."""
Measurement = dict[str, str | float]
"""Kind of instrument, name, value and modality: one of the lines' entries."""


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what would send telemetry elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WANDB_"))} | more


def go_sender() -> list[str]:
    """Build the Go program and return its command."""
    shutil.copytree(SOURCES / "go", FOLDER / "go", dirs_exist_ok=True)
    program = CACHE / "programs" / "sdk-sender"
    program.parent.mkdir(parents=True, exist_ok=True)
    go(*BUILD, f"-o={program}", ".", cwd=FOLDER / "go")
    return [str(program)]


def js_sender() -> list[str]:
    """Install what the JavaScript program imports and return its command.

    Raises:
        RuntimeError: There is no npm, or it failed; the message holds the end of what it printed.
    """
    if shutil.which("npm") is None:
        raise RuntimeError("the tests of other SDKs run the JavaScript one: install Node.js 20 with npm, or newer")
    shutil.copytree(SOURCES / "js", FOLDER / "js", dirs_exist_ok=True)
    done = subprocess.run(NPM_INSTALL, cwd=FOLDER / "js", stdout=PIPE, stderr=STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"npm install failed:\n{done.stdout[-4000:]}")
    return ["node", str(FOLDER / "js" / "main.mjs")]


class Sender:
    """A running program.

    Args:
        command: As `go_sender` or `js_sender` gives it.
        variables: The standard OTEL_EXPORTER_OTLP_* variables, and others.
    """

    def __init__(self, command: Sequence[str], **variables: str) -> None:
        self._process = subprocess.Popen(command, env=environment(**variables), stdin=PIPE, stdout=PIPE, text=True)

    def begin(self, measurements: Sequence[Measurement]) -> None:
        """Let it record and send one step."""
        assert self._process.stdin is not None
        print(json.dumps(measurements), file=self._process.stdin, flush=True)

    def end(self) -> str:
        """Wait until the SDK is done with the step, and return what it said: nothing where all went well."""
        assert self._process.stdout is not None
        return "\n".join(json.loads(self._process.stdout.readline()))

    def send(self, measurements: Sequence[Measurement]) -> str:
        """Let it record and send one step, and return what the SDK said."""
        self.begin(measurements)
        return self.end()

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait(30)


class BridgeProcess:
    """A bridge as its command runs it.

    Args:
        folder: Where its state and its log are; a second bridge may have it once the first is stopped.
        options: Of the command.
        listen: Its address.
        token: What senders must give.
    """

    def __init__(self, folder: Path, *options: str, listen: str = "127.0.0.1:0", token: str = "") -> None:
        self.state, self.log = folder / "state", folder / "bridge.log"
        command = [sys.executable, "-m", "otel_train", "bridge", "--listen", listen, "--state", str(self.state)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, *options], env=environment(OTEL_TRAIN_BRIDGE_TOKEN=token), stdout=log, stderr=log
            )
        address = self.state / "address"
        wait_until(lambda: self._process.poll() is not None or address.exists(), 60, "the start", log=self.log)
        assert self._process.poll() is None, self.log.read_text()
        self.address = address.read_text().strip()

    def fill_disk(self) -> None:
        """Let it write no more to any file beyond a page, which is less than it has written."""
        _, most = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (4096, most))

    def free_disk(self) -> None:
        """Let it write again."""
        _, most = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (most, most))

    def rows(self, count: int) -> list[HistoryRow]:
        """Wait until wandb has that many rows of the run, stop and return all there are."""
        wait_until(lambda: delivered_steps(self.state, RUN) >= count, 60, f"row {count}", log=self.log)
        self.stop()
        return read_run(self.state, RUN)

    def stop(self) -> None:
        """Stop it gracefully; a second call does nothing."""
        self._process.terminate()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
