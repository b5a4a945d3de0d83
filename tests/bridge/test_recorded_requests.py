"""Requests that the SDKs of Java and Rust, and telemetrygen, have sent are taken as those of the SDKs that run here."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from otel_train.bridge import read_run
from tests.sdks.record_requests import EXPORT, REQUESTS
from tests.support.http_client import HttpClient
from tests.support.sdk_steps import STEPS, expected_row

RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(Path(REQUESTS).glob("*.json"))}


def send(bridge: Any, case: dict[str, Any]) -> list[bytes]:
    """Send what was recorded, as it came, and return the answers' contents."""
    answers = []
    with grpc.insecure_channel(bridge.address) as channel, HttpClient(bridge.bridge.http_address) as client:
        for request in case["requests"]:
            body, headers = base64.b64decode(request["body"]), request["headers"]
            if case["protocol"] == "grpc":
                answers.append(channel.unary_unary(EXPORT, bytes, bytes)(body, timeout=60))
                continue
            answer = client.send(
                body, headers["content-type"], **{"Content-Encoding": headers.get("content-encoding", "")}
            )
            assert answer.status == 200
            answers.append(answer.content)
    return answers


def test_recorded_steps_become_rows(start: Any) -> None:
    """Whatever protocol, temporality and time stamps an SDK uses, and though it repeats itself: a row a step, exact."""
    bridge = start(http_listen="127.0.0.1:0")
    answers = [answer for case in RECORDED.values() for answer in send(bridge, case)]
    assert set(answers) <= {b"", b"{}"}
    sdks = [case["run"] for name, case in RECORDED.items() if not name.startswith("telemetrygen")]
    for run in sdks:
        bridge.wait(STEPS, run)
    bridge.stop()
    expected = [expected_row(number) for number in range(1, STEPS + 1)]
    assert {run: [row.values for row in read_run(bridge.state, run)] for run in sdks} == dict.fromkeys(sdks, expected)


@pytest.mark.parametrize("name", RECORDED)
def test_each_sdk_is_recorded(name: str) -> None:
    """The recordings are of what they are called: their user agents say so."""
    language, *_ = name.split("-")
    agents = {request["headers"].get("user-agent", "").lower() for request in RECORDED[name]["requests"]}
    assert len(agents) == 1
    assert {"java": "otel-otlp-exporter-java", "rust": "otel-otlp-exporter-rust"}.get(language, "") in agents.pop()
