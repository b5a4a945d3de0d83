"""Ring to OTLP, against a real gRPC receiver."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme

from otel_train.bridge import Bridge, BridgeConfig, delivered_steps
from otel_train.catalogue import cluster_name, rows
from otel_train.ring import Kind
from otel_train.testing import OtlpReceiver
from tests.support.rank_ring import Rank, serving
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)


def test_points_of_step_share_time(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """All points of a step share its time stamp, `train.step` says which it is, and their number is among them."""
    rank.record(1, 2)
    with serving(tmp_path):
        wait_until(lambda: len(receiver.values(PICKS)) == 2)
    steps = {point.time_ns: point.value for point in receiver.points if point.name == rows.STEP.name}
    assert list(steps.values()) == [1, 2]
    for time_ns in steps:
        numbers = [p for p in receiver.points if p.time_ns == time_ns and ".cluster." in p.name]
        count = next(p.value for p in numbers if p.name == cluster_name(rows.STEP_POINTS.name))
        assert count == len(numbers) + 1  # the receiver keeps no histogram


def test_cluster_records_are_numbered(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A receiver can tell that a cluster record is missing; a rank's own records are not counted in."""
    for step, kind in enumerate((Kind.CLUSTER, Kind.RANK, Kind.CLUSTER, Kind.BOTH, Kind.CLUSTER), start=1):
        rank.record(step, kind=kind)
    with serving(tmp_path):
        wait_until(lambda: len(receiver.values(PICKS)) == 4)
    assert receiver.values(cluster_name(rows.STEP_ORDINAL.name)) == [1, 2, 3, 4]


def test_restart_keeps_counters_cumulative(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A sidecar that is started again goes on with the totals of what was acknowledged."""
    for steps in ((1, 2), (3, 4)):
        rank.record(*steps)
        with serving(tmp_path):
            wait_until(lambda: len(receiver.values(PICKS)) == steps[-1])  # noqa: B023  # it is over when steps changes
    assert receiver.values(PICKS) == [1, 3, 6, 10]
    assert all(point.cumulative for point in receiver.points if point.name == PICKS)


def test_unacknowledged_records_are_resent(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A receiver that refuses for a while loses nothing, and gets nothing twice."""
    receiver.refuse_with = grpc.StatusCode.INTERNAL
    rank.record(1)
    with serving(tmp_path):
        wait_until(lambda: receiver.refused > 0)
        assert rank.reader.cursor.position == 0
        rank.record(2)
        receiver.refuse_with = None
        wait_until(lambda: len(receiver.values(PICKS)) == 2)
    assert receiver.values(PICKS) == [1, 3]


def test_overwritten_records_are_counted(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A sidecar that starts when the ring was overwritten counts exactly what is missing, and sends the others."""
    rank = Rank(tmp_path, records=8)
    rank.record(*range(1, 20))
    rank.record(20, kind=Kind.RANK)
    rank.ring.close(20, 0)
    with serving(tmp_path):
        wait_until(lambda: receiver.values(rows.RECORDS_DROPPED.name) != [])
    assert receiver.values(rows.RECORDS_DROPPED.name) == [12]
    assert receiver.values(rows.STEP.name) == list(range(13, 21))


def test_rank_values_follow_interval(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A rank's own values are sent once an interval and at its end, counters in between included."""
    rank.record(*range(1, 8), kind=Kind.RANK)
    rank.ring.close(7, 0)
    with serving(tmp_path, rank_interval=3.0):
        wait_until(lambda: len(receiver.values(rows.PICKS.name)) == 3)
    assert receiver.values(rows.PICKS.name) == [1, 10, 28]


@pytest.mark.usefixtures("receiver")
def test_empty_directory_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sidecar whose directory is a mistake says at once that no rings are there, and which directory a job needs."""
    caplog.set_level("INFO")
    (tmp_path / "typo").mkdir(mode=0o700)
    with serving(tmp_path / "typo"):
        wait_until(lambda: f"OTEL_TRAIN_RING_DIR={tmp_path}/typo" in caplog.text)


def test_second_sidecar_waits_for_first(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Two sidecars for one directory send each record once."""
    with serving(tmp_path), serving(tmp_path):
        rank.record(1)
        wait_until(lambda: receiver.values(PICKS) != [])
    assert receiver.values(PICKS) == [1]


@pytest.mark.parametrize("token", ["right", "wrong"])
def test_exporter_uses_standard_variables(
    token: str, rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS, headers and compression of the environment are used: a bridge with a token takes the right one only."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    config = BridgeConfig(
        state=tmp_path / "bridge",
        listen="localhost:0",
        token="right",
        tls_certificate=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
    )
    with Bridge(config) as bridge:
        port = bridge.address.rpartition(":")[2]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://localhost:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{token}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        rank.record(1)
        with serving(tmp_path):
            if token == "right":
                wait_until(lambda: delivered_steps(config.state, "run") == 1)
    assert rank.reader.cursor.position == (token == "right")
