"""`otel-train send`: real rings of the product's writer, real receivers, processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_train.catalogue import cluster_name, rows
from otel_train.cli import main
from otel_train.otlp.answers import Answer, Verdict
from otel_train.ring import (
    Fact,
    Identity,
    Kind,
    RingWriter,
    ask_for_turn,
    default_base,
    directory,
    ring_path,
    start_time,
    take_lock,
)
from otel_train.ring.file_format import PID_SPACE_OFFSET
from otel_train.sidecar.points import LIVE_SUFFIX
from otel_train.testing import OtlpReceiver
from tests.support.otlp_http import Response, serving_http
from tests.support.otlp_store import Store, refusing, without_window
from tests.support.ports import free_port
from tests.support.rank_ring import SCHEMA, Rank, time_of
from tests.support.send_command import begin, end, interrupted, send
from tests.support.waiting import wait_until

PICKS = cluster_name(rows.PICKS.name)
SIDECAR = [sys.executable, "-m", "otel_train.sidecar"]


def leave(run: Path, *steps: int, kind: Kind = Kind.CLUSTER, facts: dict[str, Fact] | None = None) -> Rank:
    """Leave a ring behind that was closed after these steps."""
    run.mkdir(exist_ok=True)
    left = Rank(run, facts=facts)
    left.record(*steps, kind=kind)
    left.ring.close(max(steps, default=0), 0)
    return left


def test_killed_sidecars_records_arrive_once(rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sidecar had not delivered when it was killed, since its receiver was away, is delivered once."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{(port := free_port())}")
    rank.record(*range(1, 61))
    with subprocess.Popen([*SIDECAR, str(tmp_path)], stderr=subprocess.PIPE, text=True) as sidecar:
        assert sidecar.stderr is not None
        wait_until(lambda: "does not acknowledge" in sidecar.stderr.readline(), what="a try")  # type: ignore[union-attr]
        sidecar.kill()
    rank.ring.close(60, 0)
    with OtlpReceiver(f"127.0.0.1:{port}") as receiver:
        first, second = send(tmp_path), send(tmp_path)
        assert receiver.values(PICKS) == [step * (step + 1) / 2 for step in range(1, 61)]
    assert [(sent.code, sent.figures["delivered"], sent.figures["left"]) for sent in (first, second)] == [
        (0, 60, 0),
        (0, 0, 0),
    ]


def test_killed_send_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that is killed in a request leaves the rest to the next one: each step once, with one value."""
    left, store, answering = (
        leave(tmp_path, *range(1, 41), kind=Kind.BOTH),
        without_window("nothing"),
        threading.Event(),
    )

    def respond(body: bytes) -> Response:
        answer = store.send(body)
        answering.wait(20)
        return Response(200 if answer.taken else 409, text=answer.text)

    with serving_http(monkeypatch, respond):
        killed = begin(tmp_path)
        wait_until(lambda: len(store.requests) == 1)
        killed.kill()
        answering.set()
        end(killed)
        assert send(tmp_path).code == 0
    assert (left.acknowledged(), store.steps()) == (True, [time_of(step) for step in range(1, 41)])
    values: dict[object, set[bytes]] = defaultdict(set)
    for point in (point for sent in store.requests for point in sent):
        if not point.instance.endswith(LIVE_SUFFIX):
            values[point.series, point.time_ns].add(point.point)
    assert {len(sent) for sent in values.values()} == {1}


def test_three_sends_deliver_once(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Sends at the same time share the directories: all end with 0, and each record is sent by one of them."""
    for number in range(3):
        leave(tmp_path / f"run{number}", *range(1, 61))
    outcomes = [end(process) for process in [begin(tmp_path) for _ in range(3)]]
    assert [(sent.code, sent.states) for sent in outcomes] == [(0, ["delivered"] * 3)] * 3
    assert len(receiver.values(PICKS)) == 180


def test_serving_sidecar_is_waited_for(rank: Rank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a sidecar that serves the directory a send waits for it to deliver, and says so."""
    store, answering = Store(), threading.Event()

    def respond(body: bytes) -> Response:
        store.send(body)
        answering.wait(20)
        return Response()

    rank.record(1, 2)
    with serving_http(monkeypatch, respond), subprocess.Popen([*SIDECAR, str(tmp_path)]) as sidecar:
        wait_until(lambda: len(store.requests) == 1)
        waiting = begin(tmp_path)
        assert waiting.stderr is not None
        assert "another process serves" in waiting.stderr.readline()
        answering.set()
        outcome = end(waiting)
        sidecar.send_signal(signal.SIGINT)
    (figures,) = outcome.figures["directories"]
    assert (outcome.code, figures["by"], figures["runs"][0]["live"]) == (0, "another", 1)


def test_leaving_sidecar_is_taken_over(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """When the process that serves a directory goes before it has delivered, the send does it."""
    leave(tmp_path, 1, 2)
    lock = take_lock(tmp_path)
    assert lock is not None
    waiting = begin(tmp_path)
    assert waiting.stderr is not None
    assert "another process serves" in waiting.stderr.readline()
    assert receiver.values(PICKS) == []
    os.close(lock)
    outcome = end(waiting)
    assert (outcome.code, outcome.figures["directories"][0]["by"], receiver.values(PICKS)) == (0, "send", [1, 3])


@pytest.mark.usefixtures("receiver")
def test_serving_process_is_named(tmp_path: Path) -> None:
    """When the time is over while another process serves the directory, the send says that."""
    leave(tmp_path, 1)
    lock = take_lock(tmp_path)
    assert lock is not None
    outcome = send("--timeout", "10", tmp_path)
    os.close(lock)
    assert (outcome.code, outcome.figures["left"]) == (1, 1)
    assert "another process serves it" in outcome.figures["directories"][0]["reason"]


def test_turn_is_left_to_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A send whose receiver fails makes way for the sidecar of a session that asks for its turn."""
    leave(tmp_path, 1)
    asked, answering, locks = threading.Event(), threading.Event(), list[int]()

    def respond(_: bytes) -> Response:
        asked.set()
        answering.wait(20)
        return Response(503)

    def take() -> bool:
        lock = take_lock(tmp_path)
        locks.extend(() if lock is None else (lock,))
        return lock is not None

    with serving_http(monkeypatch, respond):
        sending = begin(tmp_path)
        assert asked.wait(60)
        assert not take()
        ask_for_turn(tmp_path, f"{os.getpid()} {start_time(os.getpid())} 0")
        answering.set()
        wait_until(take, what="the session's turn")
        sending.terminate()
        assert end(sending).code == 1
    os.close(locks[0])


def test_live_rank_is_not_awaited(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Of a rank that goes on, what it has recorded until now is delivered, and what comes later by a later call."""
    rank.record(1, 2)
    first = send(tmp_path)
    rank.record(3)
    second = send(tmp_path)
    assert [(sent.code, sent.figures["delivered"]) for sent in (first, second)] == [(0, 2), (0, 1)]
    assert receiver.values(PICKS) == [1, 3, 6]
    assert first.figures["directories"][0]["runs"][0]["live"] == 1


def test_held_back_record_is_sent(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A record that a sidecar has read, and held back for the cluster's values, is sent when its rank has ended."""
    rank.record(1, kind=Kind.RANK)
    first = send(tmp_path)
    assert (first.code, rank.acknowledged(), receiver.values(rows.STEP.name)) == (0, True, [])
    rank.ring.close(1, 0)
    second = send(tmp_path)
    assert (second.code, set(receiver.values(rows.STEP.name)), second.figures["left"]) == (0, {1}, 0)


def test_failure_is_told_afterwards(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Of a rank that dies with its sidecar when all is delivered the receiver is told, once, that it failed."""
    program = "import sys; from pathlib import Path; from tests.support.rank_ring import Rank\n"
    program += "rank = Rank(Path(sys.argv[1])); rank.record(1); print(flush=True); input()"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as rank:
        assert rank.stdout is not None
        rank.stdout.readline()
        assert (send(tmp_path).code, receiver.values(rows.SESSION_FAILED.name)) == (0, [])
        rank.kill()
    outcomes = [send(tmp_path) for _ in range(2)]
    assert ([sent.code for sent in outcomes], receiver.values(rows.SESSION_FAILED.name)) == ([0, 0], [137])
    assert receiver.values(PICKS) == [1]


def test_damage_costs_only_itself(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """What can't be read is named, with exit code 1; all other rings and directories are delivered."""
    leave(tmp_path / "one", 1, 2)
    (tmp_path / "one" / "rank00009-1.ring").write_bytes(b"nothing")
    other = leave(tmp_path / "two", 3)
    with other.ring.path.open("r+b") as file:
        file.seek(8)
        file.write(b"\x63")  # a version that is to come
    leave(tmp_path / "three", 4)
    outcome = send(*(tmp_path / name for name in ("one", "two", "three")))
    assert (outcome.code, outcome.states) == (1, ["left", "left", "delivered"])
    assert sorted(receiver.values(PICKS)) == [1, 3, 4]
    one, two, _ = outcome.figures["directories"]
    assert "is not a ring file" in one["unreadable"]["rank00009-1.ring"]
    assert "use the writer's release" in two["reason"]


def test_linked_lock_costs_its_directory(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A lock file that is a link to nowhere is told of its directory; the others are sent."""
    leave(tmp_path / "one", 1)
    (tmp_path / "one" / "sidecar.lock").symlink_to(tmp_path / "nowhere")
    leave(tmp_path / "two", 2)
    outcome = send(tmp_path / "one", tmp_path / "two")
    assert (outcome.code, outcome.states, receiver.values(PICKS)) == (1, ["left", "delivered"], [2])
    assert "symbolic link" in outcome.figures["directories"][0]["reason"]


def test_many_directories_fit(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """More directories than files may be open by default are sent: the hard limit counts."""
    for number in range(40):
        leave(tmp_path / f"run{number}", 1).ring.release()
    sending = begin(tmp_path, within=("sh", "-c", 'ulimit -Sn 40 && exec "$@"', "sh"))
    assert (end(sending).code, len(receiver.values(PICKS))) == (0, 40)


def test_copied_rings_are_ended(rank: Rank, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Rings that were copied from another machine are nobody's, whatever process has their pid here."""
    rank.record(1, 2, kind=Kind.RANK)  # the second one waits for the cluster's values while its rank lives
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(rank.ring.path, copy)
    with (copy / rank.ring.path.name).open("r+b") as file:
        file.seek(PID_SPACE_OFFSET)
        file.write(b"another machine!")
    outcome = send(copy)
    assert (outcome.code, outcome.figures["directories"][0]["runs"][0]["live"]) == (0, 0)
    assert max(receiver.values(rows.STEP.name)) == 2


def test_resource_stays_the_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host, service and attributes are those that the ring has, not those of where it is sent from."""
    identity = Identity(run_id="run", attempt=7, host="node7", service_name="job", attributes={"slurm.job": "3"})
    ring = RingWriter(ring_path(tmp_path, identity), SCHEMA, identity, records=4)
    ring.write(1, time_of(1), Kind.RANK, [0.0] * ring.geometry.values)
    ring.close(1, 0)
    resources: list[dict[str, str]] = []

    def respond(body: bytes) -> Response:
        parts = [part.resource.attributes for part in ExportMetricsServiceRequest.FromString(body).resource_metrics]
        resources.extend({pair.key: pair.value.string_value for pair in part} for part in parts)
        return Response()

    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=login,slurm.job=9,more=1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "epilog")
    with serving_http(monkeypatch, respond):
        assert send(tmp_path).code == 0
    names = ("host.name", "service.name", "slurm.job", "more")
    assert {tuple(resource.get(name) for name in names) for resource in resources} == {("node7", "job", "3", None)}


def test_sigterm_ends_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends it after the request that is under way, and it prints what is left."""
    leave(tmp_path, 1, 2)
    outcome = interrupted(tmp_path, monkeypatch)
    assert (outcome.code, outcome.figures["left"]) == (1, 2)
    assert "HTTP 503" in outcome.figures["directories"][0]["reason"]


def test_missing_receiver_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names address, answer and remedy, for all directories together."""
    for name in ("one", "two"):
        leave(tmp_path / name, 1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{(port := free_port())}")
    command = [sys.executable, "-m", "otel_train", "send", "--timeout", "8", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert [line.count("1 records are left") for line in run.stderr.splitlines()] == [1, 1, 0]
    assert run.stderr.count(f"127.0.0.1:{port}") == 2  # the address, and gRPC's own words
    assert "Nothing listens there: start the receiver" in run.stderr


def test_refused_points_are_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that the receiver refuses for good are counted with its words, and are no reason for exit code 1."""
    leave(tmp_path, 1, 2)
    refusal = Answer(verdict=Verdict.DATA, cause="HTTP 400", text="no such metric", definite=True)
    store = Store(refusing(lambda point: point.name == PICKS, refusal))

    def respond(body: bytes) -> Response:
        answer = store.send(body)
        return Response(200 if answer.taken else 400, text=answer.text)

    with serving_http(monkeypatch, respond):
        outcome = send(tmp_path)
    (figures,) = outcome.figures["directories"]
    assert (outcome.code, outcome.figures["left"], outcome.figures["refusals"]) == (0, 0, {"invalid": 2})
    assert "no such metric" in figures["refusal"]


def test_overwritten_records_are_counted(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Records that the ring has overwritten are counted apart from those that are delivered."""
    leave(tmp_path, *range(1, 101))
    outcome = send(tmp_path)
    counts = [outcome.figures[count] for count in ("delivered", "overwritten", "left")]
    assert (outcome.code, counts, len(receiver.values(PICKS))) == (0, [64, 36, 0], 64)


def test_missing_directory_costs_itself(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A directory that does not exist gives exit code 2, when the others are delivered; one without rings 0."""
    leave(tmp_path / "run", 1)
    (tmp_path / "empty").mkdir()
    outcome = send(tmp_path / "no", tmp_path / "run", tmp_path / "empty")
    assert (outcome.code, sorted(outcome.states)) == (2, ["delivered", "empty", "missing"])
    assert (send(tmp_path / "empty").code, receiver.values(PICKS)) == (0, [1])


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
def test_wrong_timeout_is_usage(timeout: str) -> None:
    """The time must be a positive number of seconds."""
    outcome = send(f"--timeout={timeout}")
    assert (outcome.code, "timeout" in outcome.errors) == (2, True)


def test_sends_own_jobs_by_default(receiver: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory all jobs of this user on this machine are sent, but those that were to have no receiver."""
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    leave(default_base() / "run", 1, 2).ring.release()
    local = leave(default_base() / "local", 3, facts={"telemetry.delivers": False})
    local.ring.release()
    result = CliRunner().invoke(main, ["send", "--json"])
    states = {Path(sent["directory"]).name: sent["state"] for sent in json.loads(result.output)["directories"]}
    assert (result.exit_code, states, receiver.values(PICKS)) == (0, {"run": "delivered", "local": "skipped"}, [1, 3])
    assert (send(local.ring.path.parent).states, receiver.values(PICKS)) == (["delivered"], [1, 3, 3])


def test_rejected_records_are_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of which a partial success rejects every point are counted as refused, and not as delivered."""
    leave(tmp_path, 1, 2)
    success = b'{"partialSuccess": {"rejectedDataPoints": "1000000", "errorMessage": "too many series"}}'
    with serving_http(monkeypatch, lambda _: Response(200, {"Content-Type": "application/json"}, success.decode())):
        figures = send(tmp_path).figures
    (run,) = figures["directories"][0]["runs"]
    assert (figures["delivered"], figures["refused_records"], figures["points"]) == (0, 2, 0)
    assert run["refusals"] == figures["refusals"] == {"limit": run["refused"]}
