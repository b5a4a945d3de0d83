"""Run `otel-train send` as a process of its own, and read its figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.otlp_http import Response, serving_http

COMMAND = [sys.executable, "-m", "otel_train", "send"]


class Outcome(NamedTuple):
    """Result of one call."""

    code: int
    figures: dict[str, Any]
    errors: str

    @property
    def states(self) -> list[str]:
        """State of each directory."""
        return [directory["state"] for directory in self.figures["directories"]]


def begin(*arguments: object, within: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start it with this process's environment, by a command that goes on as the one that is given to it."""
    command = [*within, *COMMAND, "--json", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def end(process: subprocess.Popen[str], seconds: float = 100.0) -> Outcome:
    """Wait for its end: where it has no bound of its own, a test fails here."""
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Outcome(process.returncode, json.loads(output) if output else {}, errors)


def send(*arguments: object) -> Outcome:
    """Run it."""
    return end(begin(*arguments))


def interrupted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run it against a receiver that takes nothing, and end it by SIGTERM once that has answered a request."""
    asked = threading.Event()

    def respond(_: bytes) -> Response:
        asked.set()
        return Response(503)

    with serving_http(monkeypatch, respond):
        sending = begin("--timeout", "1000", directory)
        assert asked.wait(60)
        sending.terminate()
        return end(sending)
