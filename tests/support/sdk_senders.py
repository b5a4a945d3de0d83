"""Programs of other languages that send what they are told with their OpenTelemetry SDK, and a bridge to send it to."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from subprocess import PIPE, STDOUT

from otel_train.bridge import HistoryRow, read_run
from tests.support.bridge_processes import BridgeProcess
from tests.support.environment import clean_environment
from tests.support.stack_programs import BUILD, CACHE, go

NPM_INSTALL = ["npm", "install", "--prefer-offline", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
SOURCES = Path(__file__).with_name("sdks")
FOLDER = CACHE / "modules" / "sdks"
TELEMETRYGEN = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen"
TESTED = ("go", "javascript")
"""Languages whose programs the tests run; the others' take minutes to build, and what they send is recorded."""
RUN = "run"
"""The run that the programs say they are."""
Measurement = dict[str, str | float]
"""Kind of instrument, name, value and modality: one of the lines' entries."""


def _go_command() -> list[str]:
    """Build the Go program and return its command."""
    shutil.copytree(SOURCES / "go", FOLDER / "go", dirs_exist_ok=True)
    program = CACHE / "programs" / "sdk-sender"
    program.parent.mkdir(parents=True, exist_ok=True)
    go(*BUILD, f"-o={program}", ".", cwd=FOLDER / "go")
    return [str(program)]


def _js_command() -> list[str]:
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


def _java_command() -> list[str]:
    """Compile the Java program, fetch what it needs and return its command."""
    shutil.copytree(SOURCES / "java", FOLDER / "java", dirs_exist_ok=True)
    classpath = FOLDER / "java" / "classpath"
    _build("mvn", "--quiet", "compile", "dependency:build-classpath", f"-Dmdep.outputFile={classpath}", cwd="java")
    return ["java", "-cp", f"{FOLDER / 'java' / 'target' / 'classes'}:{classpath.read_text().strip()}", "Sender"]


def _rust_command() -> list[str]:
    """Build the Rust program and return its command."""
    shutil.copytree(SOURCES / "rust", FOLDER / "rust", dirs_exist_ok=True)
    _build("cargo", "build", "--quiet", cwd="rust")
    return [str(FOLDER / "rust" / "target" / "debug" / "sdk-sender")]


def _build(*command: str, cwd: str) -> None:
    """Run a language's build.

    Raises:
        RuntimeError: Its program is missing, or it failed; the message holds the end of what it printed.
    """
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"recording what the SDK of {cwd} sends needs {command[0]}")
    done = subprocess.run(command, cwd=FOLDER / cwd, stdout=PIPE, stderr=STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")


def telemetrygen() -> str:
    """Build the load generator of the collector's contributors and return its path."""
    folder, program = FOLDER / "telemetrygen", CACHE / "programs" / "telemetrygen"
    shutil.copytree(SOURCES / "telemetrygen", folder, dirs_exist_ok=True)
    go(*BUILD, f"-o={program}", TELEMETRYGEN, cwd=folder)
    return str(program)


_COMMANDS = {"go": _go_command, "javascript": _js_command, "java": _java_command, "rust": _rust_command}


@cache
def _command(language: str) -> list[str]:
    """Return the command of a language's program, which is built at the first call."""
    return _COMMANDS[language]()


def build_programs() -> None:
    """Build the programs that the tests run."""
    for language in TESTED:
        _command(language)


class Sender:
    """A running program.

    Args:
        language: "go", "javascript", "java" or "rust".
        variables: The standard OTEL_EXPORTER_OTLP_* variables, and others.
    """

    def __init__(self, language: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            _command(language), env=clean_environment(**variables), stdin=PIPE, stdout=PIPE, text=True
        )

    def begin(self, measurements: Sequence[Measurement]) -> None:
        """Let it record and send one step."""
        assert self._process.stdin is not None
        print(json.dumps(measurements), file=self._process.stdin, flush=True)

    def end(self) -> str:
        """Wait until the SDK is done with the step, and return its messages: none where all went well."""
        assert self._process.stdout is not None
        return "\n".join(json.loads(self._process.stdout.readline()))

    def send(self, measurements: Sequence[Measurement]) -> str:
        """Let it record and send one step, and return the SDK's messages."""
        self.begin(measurements)
        return self.end()

    def finish(self) -> None:
        """Let it end by itself: its SDK sends what it has once more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self.stop()

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait(30)


class BoundedBridge(BridgeProcess):
    """A running bridge whose disk can be made full.

    Args:
        folder: The folder of its state and its log; a second bridge may have it once the first is stopped.
        options: Options of the command.
        listen: Its address; a free one of the loopback when empty.
        token: The token that senders must give.
    """

    def __init__(self, folder: Path, *options: str, listen: str = "", token: str = "") -> None:
        options = ("--http-listen=127.0.0.1:0", *options)
        super().__init__(folder, *options, address=listen, environment={"OTEL_TRAIN_BRIDGE_TOKEN": token})
        self.start()
        self.http_address = (self.state / "http-address").read_text().strip()

    def fill_disk(self) -> None:
        """Let it write no more to any file beyond a page, which is less than it has written."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (4096, most))

    def free_disk(self) -> None:
        """Let it write again."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most, most))

    def rows(self, count: int) -> list[HistoryRow]:
        """Wait until wandb has that many rows of the run, stop and return all there are."""
        self.wait(count, RUN)
        self.stop()
        return read_run(self.state, RUN)
