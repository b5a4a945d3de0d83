"""Which numbers end a step, what several calls with one number mean, and what comes of the values of the others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import otel_train
from otel_train import Scalar
from otel_train.catalogue import Metric, Reduction
from otel_train.mixing import MixingMeter
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.step import recording

pytestmark = pytest.mark.usefixtures("external_sidecar")


def init(directory: Path, **options: Any) -> otel_train.Telemetry:
    """Return a session of one process, which nobody waits for."""
    return otel_train.init(ring_dir=directory, close_timeout=0.01, **options)


def column(directory: Path, key: str) -> dict[int, float | None]:
    """Return a metric by step, as this rank recorded it; None where a record has no value."""
    reader = RingReader(ring_files(directory)[0])
    own = [record for record in reader.read(0, 1000)[0] if record.kind is Kind.RANK and not record.logged]
    assert len({record.step for record in own}) == len(own)
    split = [(record.step, reader.layout.split(record.values)) for record in own]
    return {step: reader.layout.by_key(sums, peaks).get(key) for step, (sums, peaks, _) in split}


class Raises:
    """What has a method for everything, and raises in each."""

    def __float__(self) -> float:
        raise OSError("no")

    __index__ = __repr__ = __float__  # type: ignore[assignment]


NO_STEPS = [None, "7", 3.5, float("nan"), True, -1, 2**60, torch.tensor([1, 2]), torch.tensor(True), Raises()]
NO_STEPS.append(torch.empty((), dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("given", NO_STEPS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("first", [True, False])
def test_wrong_step_keeps_values(given: Any, first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A step that is not a step number raises nothing: it is counted, warned of once, and its scalars go into the next
    step.
    """
    with init(tmp_path) as telemetry:
        for step in [given, given, 1] if first else [1, given, given, 2]:
            telemetry.step(step, {"x": 3.0 if type(step) is int and 0 < step < 9 else 9.0})
        assert telemetry.refused == 2
    assert column(tmp_path, "x") == ({1: 7.0} if first else {1: 3.0, 2: 7.0})
    assert [message.count("a whole number from 0 to 2**53") for message in caplog.messages] == [1]


def counted_in_place() -> Iterator[torch.Tensor]:
    """Return one tensor three times, with another value each time."""
    step = torch.tensor(0)
    for _ in range(3):
        step += 1
        yield step


@pytest.mark.parametrize("steps", [counted_in_place(), np.arange(1, 4), [1.0, 2.0, 3.0], torch.tensor([[1], [2], [3]])])
def test_step_is_taken_by_value(steps: Sequence[Any], tmp_path: Path) -> None:
    """A step is taken by value: a tensor that is counted in place is another step later, and NumPy's numbers are
    numbers.
    """
    with init(tmp_path) as telemetry:
        for step in steps:
            telemetry.step(step, {"x": 1.0})
    assert column(tmp_path, "x") == {1: 1.0, 2: 1.0, 3: 1.0}


def test_steps_begin_at_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Steps may be counted from 0, as enumerate() does by default; a source's first interval ends with step 0 then."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    with init(tmp_path, sources=[meter]) as telemetry:
        for step in range(3):
            meter.pick(0)
            telemetry.step(step)
    assert column(tmp_path, "stream_mixing/picks") == {0: 1.0, 1: 1.0, 2: 1.0}
    assert column(tmp_path, "stream_mixing/staleness_max") == {0: 0.0, 1: 0.0, 2: 0.0}
    assert not caplog.records


def test_smaller_step_keeps_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A smaller step gives its values to the next, with one message of both numbers and the keys; the last ones are
    recorded at the end.
    """
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    with init(tmp_path, sources=[meter]) as telemetry:
        for step, loss in ((1, 1.0), (5, 5.0), (3, 30.0), (6, 6.0), (2, 20.0)):
            meter.pick(0)
            telemetry.step(step, {"loss": loss})
    assert column(tmp_path, "loss") == {1: 1.0, 5: 5.0, 6: 18.0, 7: 20.0}
    assert sum(filter(None, column(tmp_path, "stream_mixing/picks").values())) == 5
    assert ["step 3 came after step 5 with loss" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("log_every", [1, 2])
def test_repeated_step_is_one_row(log_every: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Micro-batches with one number give the mean over them, from the first step on, and without a warning."""
    with init(tmp_path, log_every=log_every) as telemetry:
        for step in range(1, 5):
            for micro in (1.0, 2.0, 3.0, 6.0):
                telemetry.step(step, {"loss": step * micro})
    assert column(tmp_path, "loss") == ({1: 3, 2: 6, 3: 9, 4: 12} if log_every == 1 else {2: 4.5, 4: 10.5})
    assert not caplog.records


def test_evaluation_shares_steps_row(tmp_path: Path) -> None:
    """An evaluation shares the row of its step, whichever of the two calls comes first."""
    keys = [Scalar("train/loss"), Scalar("eval/loss")]
    with init(tmp_path, metrics=keys) as telemetry:
        for step in range(10, 50, 10):
            telemetry.step(step, {"eval/loss": step + 1.0})
            telemetry.step(step, {"train/loss": float(step)})
    assert column(tmp_path, "train/loss") == {step: step for step in range(10, 50, 10)}
    assert column(tmp_path, "eval/loss") == {step: step + 1 for step in range(10, 50, 10)}


def test_late_repetition_keeps_its_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A repetition after steps that came once, such as each tenth, has its own step; what can't be beside the steps
    goes into the next one. One message names step, keys and remedy.
    """
    keys = [Scalar("eval/loss"), Scalar("rows", "sum"), Scalar("most", "max")]
    with init(tmp_path, metrics=keys) as telemetry:
        for step in range(1, 7):
            if step % 3 == 0:
                telemetry.step(step, {"eval/loss": step + 0.5})
            telemetry.step(step, {"loss": float(step), "rows": 2, "most": step})
    assert column(tmp_path, "loss") == {1: 1, 2: 2, 3: None, 4: 4, 5: 5, 6: None, 7: None}
    assert column(tmp_path, "most") == {1: 1, 2: 2, 3: None, 4: 4, 5: 5, 6: None, 7: 6}
    records = RingReader(ring_files(tmp_path)[0]).read(0, 1000)[0]
    logged = [(record.step, record.by_key()) for record in records if record.logged and record.kind is not Kind.RANK]
    assert logged == [(3, {"loss": 3.0, "rows": 2.0}), (6, {"loss": 6.0, "rows": 2.0})]
    assert ["step 3 was given again" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("blocking", [False, True])
def test_late_calls_are_one_row(blocking: bool, tmp_path: Path) -> None:
    """An evaluation whose batches each give the step again is one row: their mean and sum, at the step, before the next
    step's; the last one comes at the end.
    """
    with init(tmp_path, metrics=[Scalar("rows", "sum")], blocking=blocking) as telemetry:
        for step in range(1, 5):
            telemetry.step(step, {"loss": float(step)})
            for batch in range(4 if step % 2 == 0 else 0):
                telemetry.step(step, {"eval/loss": step + 2.0 * batch, "rows": 2})
    records = RingReader(ring_files(tmp_path)[0]).read(0, 1000)[0]
    own = [(record.step, record.logged, record.by_key()) for record in records if record.kind is not Kind.CLUSTER]
    own.sort(key=lambda row: row[0])
    assert [values for step, logged, values in own if logged] == [
        {"eval/loss": 5.0, "rows": 8.0},
        {"eval/loss": 7.0, "rows": 8.0},
    ]
    assert [record.time_ns for record in records] == sorted(record.time_ns for record in records)


def test_added_values_are_weighted(tmp_path: Path) -> None:
    """Added values count by weight in their step, the first one too; a sum and a maximum have no weights, and a tensor
    is taken by value.
    """
    loss = torch.tensor(0.0)
    declared = [Scalar("tokens", "sum"), Scalar("norm", "max")]
    with init(tmp_path, metrics=declared) as telemetry:
        for step in (1, 2):
            for weight in (1, 3):
                loss.fill_(step * weight)
                telemetry.add({"loss": loss, "tokens": 2, "norm": weight}, weight=weight)
            telemetry.step(step)
    assert column(tmp_path, "loss") == {1: 2.5, 2: 5.0}
    assert (column(tmp_path, "tokens"), column(tmp_path, "norm")) == ({1: 4.0, 2: 4.0}, {1: 3.0, 2: 3.0})


@pytest.mark.parametrize(
    "weight", [-1.0, float("nan"), float("inf"), "2", None, True, Raises()], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("call", ["add", "log"])
def test_wrong_weight_costs_its_values(
    call: str, weight: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A weight that breaks its rule costs its own values, with one warning of the rule and of their keys."""
    with init(tmp_path) as telemetry:
        telemetry.step(1, {"x": 1.0})
        for _ in range(2):
            getattr(telemetry, call)({"x": 5.0}, weight=weight)
        telemetry.step(2, {"x": 2.0})
    assert column(tmp_path, "x") == {1: 1.0, 2: 2.0}
    [message] = caplog.messages
    assert message.startswith(f"telemetry: {call}() has dropped its values (x): ")
    assert "a finite number of at least 0" in message


@pytest.mark.parametrize(("scalars", "named"), [(5, "int"), ({Raises(): 1.0}, "dict"), ({}, "no values")])
def test_wrong_call_names_what_came(scalars: Any, named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no mapping, or has a key without a text, raises nothing, and the warning says what it is."""
    with init(tmp_path) as telemetry:
        telemetry.step(1, {"x": 1.0})
        telemetry.add(scalars, weight=-1.0)
    assert f"({named})" in caplog.messages[0]


def test_durations_count_training_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations are those of training steps: a log of each tenth made ten; how many came before the first one is
    unknown.
    """
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    monkeypatch.setattr(recording, "core", None)  # it has a clock that no test can set
    with init(tmp_path) as telemetry:
        for step in (10, 20, 30):
            for _ in telemetry.timed([0]):
                seconds[0] += 5.0
            telemetry._clock.wait += 1.0
            telemetry.step(step)
    assert column(tmp_path, "train/step_duration") == {10: None, 20: 0.5, 30: 0.5}
    assert column(tmp_path, "train/data_wait") == {10: None, 20: 0.1, 30: 0.1}


def test_calls_after_close_warn_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Calls after close are one warning with the step and the remedy; a session that was never on gives none."""
    telemetry = init(tmp_path)
    telemetry.step(1)
    telemetry.close()
    for step in (2, 3):
        telemetry.step(step)
        telemetry.add({"x": 1.0})
    assert [message.count("step(2) came after close()") for message in caplog.messages] == [1]
    assert "otel_train.init()" in caplog.text


def test_forked_child_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A child of a launcher that forks after init() records nothing, and warns once with the remedy."""
    with init(tmp_path) as telemetry:
        child = os.fork()
        if not child:
            telemetry.step(1)
            telemetry.step(2)
            message = "step(1) in a process that was forked after otel_train.init()"
            os._exit(int(caplog.text.count(message) != 1 or len(caplog.records) != 1))
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("log_every", [1, 2])
def test_raising_source_keeps_progress(log_every: int, tmp_path: Path) -> None:
    """A source that always raises hides no progress: a rank's step goes on in the ring, and the session ends as others
    do.
    """

    class Broken:
        """A source that raises at each drain."""

        metrics = (Metric("n", Reduction.SUM),)

        def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
            """Fail."""
            raise OSError(step)

    with init(tmp_path, sources=[Broken()], log_every=log_every) as telemetry:
        for step in range(1, 6):
            telemetry.step(step, {"loss": 1.0})
            assert RingReader(ring_files(tmp_path)[0]).progress.step == step
    assert RingReader(ring_files(tmp_path)[0]).progress.closed
