"""One bad value costs one value: of the user's scalars, and of a source's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import otel_train
from otel_train import Scalar
from otel_train.catalogue import BY_NAME, MIXING, Instrument, Layout, Metric, Reduction, rows
from otel_train.ring import MOST_LATE_KEYS, Kind, RingReader, ring_files
from otel_train.step.recorder import Recorder

pytestmark = pytest.mark.usefixtures("external_sidecar")

DROPPED = rows.VALUES_DROPPED.wandb_key
with warnings.catch_warnings(action="ignore"):  # such tensors are deprecated, or in beta
    CSR = torch.tensor([[3.0]]).to_sparse_csr()
    QUANTIZED = torch.quantize_per_tensor(torch.tensor(2.0), 0.5, 0, torch.qint8)
with FakeTensorMode():
    FAKE = torch.ones((), device="cpu", dtype=torch.float32)


class Failing:
    """A number of somebody's own that can't be read."""

    def __float__(self) -> float:
        raise RuntimeError("CUDA error: device-side assert triggered")


class Own(torch.Tensor):
    """A user's tensor class, of which no function of torch may be called."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(func)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(torch.ones((), device="meta"), id="meta"),
        pytest.param(FAKE, id="fake"),
        pytest.param(10**400, id="huge int"),
        pytest.param(Failing(), id="failing"),
        pytest.param(1j, id="complex"),
        pytest.param(torch.tensor(1j), id="complex tensor"),
        pytest.param(np.complex64(1j), id="numpy complex"),
        pytest.param("3.5", id="text"),
        pytest.param(np.str_("3.5"), id="numpy text"),
        pytest.param(np.array(["3.5"]), id="array of text"),
        pytest.param(np.datetime64("2026-01-01"), id="time"),
        pytest.param([1.0], id="list"),
        pytest.param(torch.ones(0), id="no elements"),
        pytest.param(torch.ones(2), id="two elements"),
        pytest.param(np.ones(3), id="array"),
        pytest.param(len, id="function"),
    ],
)
def test_unreadable_value_costs_itself(
    value: Any, first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that can't be read is absent, at the first step and later: the others are there, and one warning names
    it.
    """
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path, blocking=True) as telemetry:
        steps = [
            telemetry.step(step, {"bad": value if step in (2, 3) or first else 1.0, "fine": 2.0}) for step in (1, 2, 3)
        ]
        after = telemetry.step(4, {"bad": 5.0, "fine": 2.0})
    assert after is not None
    assert (after["bad"], after["fine"], after[DROPPED]) == (5.0, 2.0, 0.0)
    for values in steps if first else steps[1:]:
        assert values is not None
        assert ("bad" in values, values["fine"], values[DROPPED]) == (False, 2.0, 1.0)
    assert [record.getMessage().startswith("telemetry: 'bad' is dropped: it ") for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        pytest.param(True, 1.0, id="true"),
        pytest.param(2**60, float(2**60), id="int"),
        pytest.param(np.float16(1.5), 1.5, id="numpy"),
        pytest.param(np.uint8(7), 7.0, id="numpy int"),
        pytest.param(np.array([[2.5]]), 2.5, id="array of one"),
        pytest.param(torch.ones(1, 1, requires_grad=True), 1.0, id="tensor of one"),
        pytest.param(torch.tensor(True), 1.0, id="bool tensor"),
        pytest.param(torch.nn.Parameter(torch.ones(())), 1.0, id="parameter"),
        pytest.param(torch.tensor(2.5).as_subclass(Own), 2.5, id="own class"),
        pytest.param(torch.tensor(1.5).to(torch.float8_e4m3fn), 1.5, id="float8"),
        pytest.param(torch.tensor(1.5, dtype=torch.bfloat16), 1.5, id="bfloat16"),
        pytest.param(torch.tensor(3, dtype=torch.uint64), 3.0, id="uint64"),
        pytest.param(torch.tensor([3.0]).to_sparse(), 3.0, id="sparse"),
        pytest.param(CSR, 3.0, id="sparse csr"),
        pytest.param(QUANTIZED, 2.0, id="quantized"),
        pytest.param(math.nan, math.nan, id="nan"),
        pytest.param(torch.tensor(-math.inf), -math.inf, id="inf"),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "min"])
def test_one_number_is_read(value: Any, number: float, reduction: Any, tmp_path: Path) -> None:
    """Whatever holds one number is read as it, under each reduction, which may be named by its text."""
    metric = Scalar("x", reduction)
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path, metrics=[metric], blocking=True) as telemetry:
        values = telemetry.step(1, {"x": value}) or {}
    assert values["x"] == pytest.approx(number, nan_ok=True)
    assert values[DROPPED] == 0.0


@pytest.mark.modes
@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "min"])
def test_missing_value_is_absent(reduction: Any, tmp_path: Path) -> None:
    """A value that is None or left out is absent; zero, of either sign, is a value."""
    metric = Scalar("x", reduction)
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path, metrics=[metric], blocking=True) as telemetry:
        given: list[dict[str, Any]] = [{"x": None}, {}, {"x": 0.0}, {"x": -0.0}, {"x": 1.0}, {"x": None}]
        values = [(telemetry.step(step, scalars) or {}).get("x") for step, scalars in enumerate(given, start=1)]
    assert values == [None, None, 0.0, 0.0, 1.0, None]
    reader = RingReader(ring_files(tmp_path)[0])
    assert [
        reader.layout.by_key(*reader.layout.split(record.values)).get("x")
        for record in reader.read(0, 100)[0]
        if record.kind is Kind.CLUSTER
    ] == values


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 10**400])
def test_counter_takes_counts_only(value: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A counter drops a value that is not a count, since its total would never be right again."""
    tokens = Metric("tokens", Reduction.SUM, Instrument.COUNTER)
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path, metrics=[tokens], blocking=True) as telemetry:
        values = [(telemetry.step(step, {"tokens": given}) or {}).get("tokens") for step, given in ((1, 5), (2, value))]
    assert values == [5.0, None]
    assert [record.getMessage().startswith("telemetry: 'tokens' is dropped: it is") for record in caplog.records] == [1]


class NoMapping(Mapping[str, Any]):
    """A mapping that fails while it is read."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["x"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("scalars", [NoMapping(), [("x", 1.0)], 7.0, torch.ones(2)])
def test_wrong_scalars_cost_no_step(scalars: Any, tmp_path: Path) -> None:
    """Scalars that are not a mapping are dropped after the first step, where that is an error, and the step is
    recorded.
    """
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path, blocking=True) as telemetry:
        telemetry.step(1, {"x": 1.0})
        values = telemetry.step(2, scalars) or {}
    assert ("x" in values, values[rows.RANKS.wandb_key], values[DROPPED]) == (False, 1.0, 1.0)


def test_bad_keys_fill_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Keys that are refused, and have the step in them, stop being logged after so many."""
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path) as telemetry:
        for step in range(1, 300):
            telemetry.step(step, {f"_loss at {step}": 1.0} if step > 1 else None)
    assert 50 < len(caplog.records) < 150
    assert "no more are logged" in caplog.messages[-1]


def test_keys_have_one_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So many late keys are recorded; those beyond are dropped and counted, and one warning says so."""
    with otel_train.init(close_timeout=0.01, ring_dir=tmp_path, blocking=True) as telemetry:
        telemetry.step(1)
        recorded = 0
        for step in range(2, 302):
            values = telemetry.step(step, {f"loss at {step}": 1.0}) or {}
            recorded += f"loss at {step}" in values
    assert recorded == MOST_LATE_KEYS
    assert [message.count("is one of more than 128 keys") for message in caplog.messages] == [1]


class Given:
    """A source of a user's own that gives what it is told, as a mapping."""

    metrics = (
        Metric("hits", Reduction.SUM, Instrument.COUNTER),
        Metric("cost"),
        Metric("depth", Reduction.MAX),
        Metric("size", Reduction.SUM),
        rows.LEDGER_HITS,
        rows.LEDGER_ENTRIES,
    )

    def __init__(self) -> None:
        self.values: Any = {}

    def drain_step_metrics(self, step: int | None = None) -> Any:  # noqa: ARG002  # the protocol's
        """Return one interval."""
        return self.values


class GivenFlat(Given):
    """The same, in the packed order."""

    def drain_measurements(self, step: int | None = None) -> list[Any]:  # noqa: ARG002  # the protocol's
        """Return one interval."""
        given = self.values or GOOD
        return [given["hits"], given["cost"], 1, *[given[key] for key in [*list(GOOD)[3:], "depth"]]]


GOOD = {"hits": 3, "cost": 2.0, "depth": 7, "size": 4, "ledger.hits": 5, "ledger.entries": 6}
KEYS = {name: BY_NAME[name].wandb_key if name in BY_NAME else name for name in GOOD}


@pytest.mark.parametrize("source", [Given, GivenFlat])
@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    "value", [None, "high", 10**400, torch.ones(2), torch.ones((), device="meta"), math.nan, math.inf, Failing()]
)
def test_bad_source_value_costs_itself(source: type[Given], name: str, value: Any, tmp_path: Path) -> None:
    """A source's bad value leaves its other values and the ring whole; NaN and infinity may stay in a gauge."""
    measured = source()
    with otel_train.init(close_timeout=0.01, sources=[measured], ring_dir=tmp_path, blocking=True) as telemetry:
        telemetry.step(1)
        measured.values = {**GOOD, name: value}
        values = telemetry.step(2) or {}
    expected: dict[str, Any] = {KEYS[key]: float(number) for key, number in GOOD.items()}
    bad = expected.pop(KEYS[name])
    assert bad > 0
    assert {key: values[key] for key in expected} == expected
    broken = values.get(KEYS[name])
    if isinstance(value, float) and name in ("cost", "depth", "size"):
        assert broken == pytest.approx(value, nan_ok=True)
    else:
        assert broken == (0.0 if name in BY_NAME else None)


def test_bad_modality_value_costs_itself() -> None:
    """A bad value among those of each modality costs only its own."""

    class Meter:
        metrics = MIXING
        modalities = ("a", "b")

        def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
            raise NotImplementedError(step)

        def drain_measurements(self, step: int | None = None) -> list[float]:  # noqa: ARG002  # the protocol's
            layout = Layout(MIXING, self.modalities)
            values = [1.0] * (layout.sums + len(layout.given_peaks))
            values[layout.offsets["stream_mixing.tokens"] + 1] = math.inf
            return values

    told: list[str] = []
    recorder = Recorder([Meter()], [], lambda name, reason: told.append(f"{name} {reason}"))
    sums = recorder.drain(1, (0.0, 1, 0.0))
    first = recorder.layout.offsets["stream_mixing.tokens"]
    assert sums[first : first + 2] == (1.0, 0.0)
    assert told == ["stream_mixing.tokens is a counter and takes finite numbers that are not negative, got inf"]


@pytest.mark.parametrize(
    "facts",
    [
        {
            "lr": math.inf,
            "x": math.nan,
            "huge": 10**400,
            "tensor": torch.ones(1),
            7: "x",
            "text": "a\nb",
            "long": "x" * 600,
        },
        {str(number): number for number in range(400)},
        ["no", "mapping"],
        None,
    ],
)
def test_bad_facts_damage_no_ring(facts: Any, tmp_path: Path) -> None:
    """Facts that a ring can't carry are left out, and the others are there."""
    source = Given()
    source.facts = facts  # type: ignore[attr-defined]
    with otel_train.init(close_timeout=0.01, sources=[source], ring_dir=tmp_path) as telemetry:
        telemetry.step(1)
    reader = RingReader(ring_files(tmp_path)[0])
    assert reader.progress.written == 1
    assert reader.facts["telemetry.log_every"] == 1
    assert reader.facts.keys().isdisjoint({"lr", "x", "huge", "tensor", "text", "long"})
