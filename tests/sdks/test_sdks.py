"""Other languages' OpenTelemetry SDKs send to the bridge: values, retries and refusals are as OTLP has them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from otel_train.bridge import read_run
from otel_train.catalogue import PARTIAL_KEY, rows
from tests.support.sdk_senders import RUN, TESTED
from tests.support.sdk_steps import expected_row, refused_step, step
from tests.support.waiting import wait_until

pytestmark = pytest.mark.faults

SDKS = [("go", "grpc"), ("go", "http/protobuf"), ("javascript", "grpc"), ("javascript", "http/json")]
"""Languages, and protocols of OTLP that each speaks."""
BUCKETS = {"cumulative": "explicit_bucket_histogram", "delta": "base2_exponential_bucket_histogram"}


@pytest.mark.parametrize(
    ("language", "protocol", "compression", "temporality"),
    [
        ("go", "grpc", "gzip", "cumulative"),
        ("go", "http/protobuf", "none", "delta"),
        ("javascript", "grpc", "none", "delta"),
        ("javascript", "http/json", "gzip", "cumulative"),
        ("javascript", "http/protobuf", "gzip", "delta"),
    ],
)
def test_step_becomes_its_row(
    bridge: Any, sender: Any, *, language: str, protocol: str, compression: str, temporality: str
) -> None:
    """Whatever protocol, temporality, compression and buckets the SDK uses, rows hold exactly what steps measured."""
    variables = {
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": BUCKETS[temporality],  # Go alone reads it
    }
    running = bridge()
    sending = sender(language, running, protocol=protocol, compression=compression, **variables)
    assert [sending.send(step(number)) for number in range(1, 6)] == [""] * 5
    assert [line.values for line in running.rows(5)] == [expected_row(number) for number in range(1, 6)]


@pytest.mark.parametrize("language", TESTED)
def test_uncounted_step_settles(bridge: Any, sender: Any, language: str) -> None:
    """A step without its number of points becomes the same row after the settle time, marked as partial."""
    running = bridge("--settle", "1")
    assert sender(language, running).send(step(1, counted=False)) == ""
    assert [line.values for line in running.rows(1)] == [expected_row(1) | {PARTIAL_KEY: 1}]


def test_unavailable_requests_are_retried(bridge: Any, sender: Any) -> None:
    """Go's SDK tries again while the disk is full, and while no bridge runs; each step is there once."""
    running = bridge()
    sending = sender("go", running)
    assert sending.send(step(1)) == ""
    running.fill_disk()
    sending.begin(step(2))
    wait_until(lambda: "asked to try again" in running.log.read_text(), log=running.log)
    running.free_disk()
    assert sending.end() == ""
    running.stop()
    sending.begin(step(3))
    running = bridge(listen=running.address)
    assert sending.end() == ""
    assert [line.values for line in running.rows(3)] == [expected_row(number) for number in (1, 2, 3)]


def test_http_requests_are_retried(bridge: Any, sender: Any) -> None:
    """Over HTTP Go's SDK tries again while the disk is full, but not where the connection is refused."""
    running = bridge()
    sending = sender("go", running, protocol="http/protobuf")
    running.fill_disk()
    sending.begin(step(1))
    wait_until(lambda: "asked to try again" in running.log.read_text(), log=running.log)
    running.free_disk()
    assert sending.end() == ""
    running.wait(1)
    running.stop()
    assert "connection refused" in sending.send(step(2))
    assert [line.values for line in read_run(running.state, RUN)] == [expected_row(1)]


def test_next_total_holds_lost_step(bridge: Any, sender: Any) -> None:
    """JavaScript's gRPC exporter never tries again: that step has no row, and its counts are in the next one's."""
    running = bridge()
    sending = sender("javascript", running)
    assert sending.send(step(1)) == ""
    running.fill_disk()
    assert "14 UNAVAILABLE" in sending.send(step(2))
    running.free_disk()
    assert sending.send(step(3)) == ""
    second, third = expected_row(2), expected_row(3)
    both = {key: second[key] + third[key] for key in third if key.startswith((rows.TOKENS.wandb_key, "ledger"))}
    assert [line.values for line in running.rows(2)] == [expected_row(1), third | both]


@pytest.mark.parametrize(("language", "protocol"), SDKS)
def test_refused_point_is_reported(bridge: Any, sender: Any, language: str, protocol: str) -> None:
    """The SDK reports the point that breaks a rule; the others of its request are kept."""
    running = bridge()
    message = sender(language, running, protocol=protocol).send(refused_step(1))
    assert message.count("longer than 512") == 1
    assert "1 metric data points rejected" in message or re.search(r'"rejectedDataPoints":"?1"?', message)
    assert [line.values for line in running.rows(1)] == [expected_row(1)]


@pytest.mark.parametrize(("language", "code"), [("go", "Unauthenticated"), ("javascript", "16 UNAUTHENTICATED")])
def test_wrong_token_is_final(bridge: Any, sender: Any, language: str, code: str) -> None:
    """The SDK gives a request with a wrong token up at the first answer; with the token it is taken."""
    running = bridge(token="s3cret")
    refused = sender(language, running, OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20other").send(step(1))
    taken = sender(language, running, OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20s3cret").send(step(1))
    assert code in refused
    assert "deadline" not in refused  # its message about a request that it repeated until its time was over
    assert taken == ""
    assert [line.values for line in running.rows(1)] == [expected_row(1)]
