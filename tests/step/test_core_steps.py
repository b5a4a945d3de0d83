"""Steps that the core makes: however it is called, whatever else goes on, what is recorded is the same."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otel_train
from otel_train.native import core
from otel_train.ring import Kind, RingReader, ring_files

pytestmark = pytest.mark.skipif(core is None, reason="the native core is not built")


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[otel_train.Telemetry]:
    """Yield a session whose next step is the core's."""
    with otel_train.init(ring_dir=tmp_path, close_timeout=0.0) as telemetry:
        for step in (1, 2):
            telemetry.step(step, {"train/loss": 0.0})
        assert vars(telemetry)["step"].__self__.plain
        yield telemetry


def records(directory: Path) -> list[tuple[int, Any]]:
    """Return step and loss of each row of the cluster's."""
    reader = RingReader(ring_files(directory)[0])
    rows = [record for record in reader.read(0, 10_000)[0] if record.kind is Kind.CLUSTER]
    reader.close()
    return [(record.step, record.by_key().get("train/loss")) for record in rows]


def test_names_of_arguments_do(telemetry: otel_train.Telemetry, tmp_path: Path) -> None:
    """Arguments may be named, in any order."""
    telemetry.step(step=3, extra_metrics={"train/loss": 3.0})
    telemetry.step(extra_metrics={"train/loss": 4.0}, step=4)
    telemetry.step(5, extra_metrics=None)
    assert records(tmp_path)[2:] == [(3, 3.0), (4, 4.0), (5, None)]


def test_kept_step_outlives_session(
    telemetry: otel_train.Telemetry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has kept the bound method hears of the end as anybody does: a warning, and nothing raises."""
    step = telemetry.step
    step(3)
    telemetry.close()
    with caplog.at_level(logging.WARNING):
        assert step(4) is None
    assert "step(4) came after close()" in caplog.text
    assert [step for step, _ in records(tmp_path)] == [1, 2, 3]


def test_source_may_end_session(tmp_path: Path) -> None:
    """A source that closes the session, or makes a step, while a step is made, harms nothing."""

    class Odd:
        metrics = (otel_train.Scalar("odd/calls", "sum"),)
        act: Callable[[], object] = staticmethod(lambda: None)

        def drain_step_metrics(self, _: int | None = None) -> dict[str, float]:
            self.act()
            return {"odd/calls": 1.0}

    odd = Odd()
    telemetry = otel_train.init(sources=[odd], ring_dir=tmp_path, close_timeout=0.0)
    for step in (1, 2, 3):
        telemetry.step(step)

    def step_once() -> None:
        odd.act = lambda: None
        telemetry.step(100)

    odd.act = step_once
    telemetry.step(4)
    odd.act = telemetry.close
    telemetry.step(101)
    telemetry.step(102)
    assert {1, 2, 3, 100} <= {step for step, _ in records(tmp_path)}


def test_step_amid_log_keeps_both(
    telemetry: otel_train.Telemetry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that ends while another thread writes what it logs, in several records, waits for these."""
    ring = telemetry._running.ring  # type: ignore[union-attr]
    assert ring is not None
    training = threading.Thread(target=telemetry.step, args=(3, {"train/loss": 3.0}))
    put = ring._put

    def put_slowly(*arguments: Any) -> None:
        if training.ident is None:
            training.start()
            training.join(0.2)  # it gets no further than the ring
        put(*arguments)

    monkeypatch.setattr(ring, "_put", put_slowly)
    keys = {f"eval/{number}": float(number) for number in range(40)}
    telemetry.log(keys, 2)
    training.join()
    reader = RingReader(ring_files(tmp_path)[0])
    rows, _, lost = reader.read(0, 100)
    reader.close()
    assert lost == 0
    assert [row.by_key() for row in rows if row.logged and row.kind is Kind.CLUSTER] == [keys]
    assert records(tmp_path)[-1] == (3, 3.0)
