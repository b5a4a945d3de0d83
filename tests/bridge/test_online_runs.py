"""Online runs: the server's rows decide what is sent, through its failures and the bridge's."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import pytest

from otel_train.bridge import read_run
from otel_train.bridge.bridge_check import check_bridge
from otel_train.bridge.wandb_rows import STEP_KEY
from tests.support.bridge_processes import BridgeProcess
from tests.support.step_requests import step_request
from tests.support.waiting import wait_until
from tests.support.wandb_server import FakeWandb

pytestmark = pytest.mark.faults


def bridge_of(server: FakeWandb, folder: Path) -> BridgeProcess:
    """Return a bridge that sends to that server."""
    return BridgeProcess(folder, "--wandb-mode", "online", environment=server.environment)


def test_missing_rows_are_sent_again(server: FakeWandb, tmp_path: Path) -> None:
    """Rows that the server lacks after a kill with -9 are sent again, each once."""
    with bridge_of(server, tmp_path) as bridge:
        bridge.send(step_request(1), step_request(2), step_request(1, run_id="other"))
        bridge.wait(2)
        server.status = HTTPStatus.SERVICE_UNAVAILABLE
        bridge.send(step_request(3), step_request(4))
        wait_until(lambda: "encountered" in bridge.log.read_text(), 60, "a request that fails", log=bridge.log)
        bridge.kill()
        server.status = None
        bridge.start()
        bridge.send(step_request(5))
        bridge.wait(5)
        bridge.wait(1, "other")
        assert bridge.stop() == 0
    assert server.steps("run") == [1, 2, 3, 4, 5]
    assert server.steps("other") == [1]


def test_refused_key_writes_files(server: FakeWandb, tmp_path: Path) -> None:
    """With a refused key rows go to files, and log and --check say once how to upload them, without the key."""
    server.status = HTTPStatus.UNAUTHORIZED
    with bridge_of(server, tmp_path) as bridge:
        bridge.send(step_request(1), step_request(1, run_id="other"))
        bridge.wait(1)
        bridge.wait(1, "other")
        (trouble,) = check_bridge("", "", state=bridge.state, max_bytes=2**32).troubled
        assert bridge.stop() == 0
    assert [row.values[STEP_KEY] for row in read_run(bridge.state, "run")] == [1]
    log = bridge.log.read_text()
    assert trouble.partition(": ")[2] in log
    assert log.count("otel-train sync") == 1
    assert all(key not in log for key in server.environment.values() if key != server.url)


def test_rows_wait_for_server(server: FakeWandb, tmp_path: Path) -> None:
    """Rows wait in the inbox while the server is away; the bridge takes points, stops in time and delivers later."""
    server.stop()
    with bridge_of(server, tmp_path) as bridge:
        bridge.send(step_request(1))
        wait_until(lambda: "does not answer" in bridge.log.read_text(), 60, "the warning", log=bridge.log)
        bridge.send(step_request(2))
        assert bridge.stop() == 0
        server.start()
        bridge.start()
        bridge.wait(2)
        assert bridge.stop() == 0
    assert server.steps("run") == [1, 2]
