"""The logger that stands before one of torchtitan's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from otel_train.integrations.cluster_logger import ClusterLogger
from otel_train.integrations.fit_session import FitSession
from otel_train.ring import Kind, RingReader, ring_files

LOSS = "loss_metrics/global_avg_loss"


class Written:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.closed = False

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Keep a row."""
        self.rows.append((step, dict(metrics)))

    def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture
def fit(tmp_path: Path) -> Iterator[FitSession]:
    """Yield a fit that has begun, whose intervals have two steps."""
    fit = FitSession(ring_dir=tmp_path, blocking=True, log_every=2)
    fit.begin()
    yield fit
    fit.end()


def logger_before(written: Written, fit: FitSession) -> ClusterLogger:
    """Return the logger of a rank without a pipeline."""
    dims = SimpleNamespace(get_optional_mesh=lambda _name: None)
    return ClusterLogger(written, SimpleNamespace(parallel_dims=dims), fit, every=2)


def test_ends_of_intervals_have_values(fit: FitSession) -> None:
    """A row at the end of an interval has the cluster's values, the loss of this step alone among them."""
    written = Written()
    logger = logger_before(written, fit)
    logger.log({LOSS: 5.0}, 1)
    logger.log({LOSS: 3.0}, 2)
    [(_, first), (_, second)] = written.rows
    assert first == {LOSS: 5.0, "train/loss": 5.0}
    assert second == second | {LOSS: 3.0, "train/loss": 3.0, "train/ranks": 1.0}


def test_validation_ends_no_step(fit: FitSession, caplog: pytest.LogCaptureFixture) -> None:
    """A row for a step that has ended goes on as it is, and is no repetition of that step."""
    written = Written()
    logger = logger_before(written, fit)
    logger.log({LOSS: 5.0}, 1)
    logger.log({LOSS: 3.0}, 2)
    logger.log({"validation_metrics/loss": 4.0}, 2)
    assert written.rows[2] == (2, {"validation_metrics/loss": 4.0})
    assert fit.telemetry is not None
    assert fit.telemetry.latest is not None
    assert fit.telemetry.latest[1][LOSS] == 3.0
    assert [message for message in caplog.messages if "no receiver is named" not in message] == []


def test_rest_is_beside_steps(fit: FitSession) -> None:
    """What ends no interval is recorded under its step, without peaks of memory."""
    logger = logger_before(Written(), fit)
    logger.log({LOSS: 5.0, "memory/max_active(GiB)": 1.0}, 1)
    assert fit.telemetry is not None
    assert fit.telemetry.ring_dir is not None
    [path] = ring_files(fit.telemetry.ring_dir)
    logged = [record for record in RingReader(path).read(0, 9)[0] if record.logged and record.kind is Kind.CLUSTER]
    assert [(record.step, record.by_key()) for record in logged] == [(1, {LOSS: 5.0, "train/loss": 5.0})]


def test_logger_before_closes_other(fit: FitSession) -> None:
    """It closes the one after it."""
    written = Written()
    logger_before(written, fit).close()
    assert written.closed
