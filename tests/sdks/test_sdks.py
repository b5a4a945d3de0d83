"""Other languages' OpenTelemetry SDKs send to the bridge: values, retries and refusals are as OTLP has them."""

from __future__ import annotations

from typing import Any

import pytest

from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import ATTEMPT_KEY, PARTIAL_KEY, cluster_name, rows
from tests.support.sdk_senders import Measurement
from tests.support.waiting import wait_until


def measure(kind: str, name: str, value: float, modality: str = "") -> Measurement:
    """Return one entry of what a program records."""
    return {"kind": kind, "name": name, "value": value, "modality": modality}


def step(number: int, *more: Measurement, counted: bool = True) -> list[Measurement]:
    """Return what a step records, of each kind of instrument; `more` is not among the points that it counts."""
    measured = [
        measure("gauge", rows.STEP.name, number),
        measure("gauge", cluster_name("train/loss"), 1 / number),
        measure("counter", cluster_name(rows.EVICTIONS.name), 2**40 + number),
        measure("counter", cluster_name(rows.TOKENS.name), 10 * number, "code"),
        measure("counter", cluster_name(rows.TOKENS.name), 1, "prose"),
        measure("updown", cluster_name("queue/depth"), -2 if number % 2 else 5),
        measure("histogram", cluster_name(rows.REUSE_DISTANCE.name), number),
    ]
    if counted:  # all but train.step, itself among them
        measured.append(measure("gauge", cluster_name(rows.STEP_POINTS.name), len(measured)))
    return measured + list(more)


def expected_row(number: int) -> dict[str, float]:
    """Return the row that wandb has of a step: counters as what the step added, the rest as it is."""
    return {
        STEP_KEY: number,
        ATTEMPT_KEY: 1,
        "train/loss": 1 / number,
        rows.EVICTIONS.wandb_key: 2**40 + number,
        f"{rows.TOKENS.wandb_key}/code": 10 * number,
        f"{rows.TOKENS.wandb_key}/prose": 1,
        "queue/depth": 5 * (number // 2) - 2 * ((number + 1) // 2),
    }


pytestmark = pytest.mark.faults

LANGUAGES = ["go", "javascript"]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("compression", "preferences"),
    [("gzip", ("cumulative", "explicit_bucket_histogram")), ("none", ("delta", "base2_exponential_bucket_histogram"))],
)
def test_step_becomes_its_row(
    bridge: Any, sender: Any, language: str, compression: str, preferences: tuple[str, str]
) -> None:
    """Whatever temporality, compression and buckets the SDK uses, rows hold exactly what each step measured."""
    # Go alone reads the second one.
    names = ("TEMPORALITY_PREFERENCE", "DEFAULT_HISTOGRAM_AGGREGATION")
    variables = {f"OTEL_EXPORTER_OTLP_METRICS_{name}": value for name, value in zip(names, preferences, strict=True)}
    running = bridge()
    sending = sender(language, running, compression=compression, **variables)
    assert [sending.send(step(number)) for number in range(1, 6)] == [""] * 5
    assert [line.values for line in running.rows(5)] == [expected_row(number) for number in range(1, 6)]


@pytest.mark.parametrize("language", LANGUAGES)
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


@pytest.mark.parametrize("language", LANGUAGES)
def test_refused_point_is_reported(bridge: Any, sender: Any, language: str) -> None:
    """The SDK reports the point that breaks a rule; the others of its request are kept."""
    running = bridge()
    message = sender(language, running).send(step(1, measure("gauge", cluster_name("train/loss"), 9.0, "m" * 600)))
    assert message.count("longer than 512") == 1
    assert "1 metric data points rejected" in message or '"rejectedDataPoints":1' in message
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
