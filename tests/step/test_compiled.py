"""Telemetry called inside of what torch.compile compiles: the graph breaks there, and every value is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

import pytest
import torch
from torch._dynamo.convert_frame import register_bytecode_hook

import otel_train
from otel_train.mixing.batch import READERS, MixedBatch
from otel_train.mixing.pick_counts import PickCounts
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.step.recorder import Recorder
from otel_train.step.recording import Recording

STEPS = range(1, 9)
LATE = 4
"""Steps before a key comes."""


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start no sidecar, and leave no compiled code."""
    monkeypatch.setenv("OTEL_TRAIN_SIDECAR", "external")
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.faults)])
def test_compiled_step_holds_telemetry(backend: str, tmp_path: Path) -> None:
    """Picks, the ledger, values that are added, by row, late and logged beside a step, the step itself, a batch that
    counts itself and a reduction work inside a compiled function.
    """

    class Consumer:
        """What a batch tells that it is read."""

        batches = 0

        def consume_once(self, *_: object) -> None:
            """Count."""
            self.batches += 1

    meter = otel_train.MixingMeter(2, ["code", "prose"], {"code": 1, "prose": 1})
    meter.open(0, "code")
    ledger = otel_train.StateLedger((4,), capacity=8)
    consumer = READERS["consumer"] = Consumer()
    by_row = otel_train.Scalar("rows", by="modality")
    telemetry = otel_train.init(sources=[meter, ledger], metrics=[by_row], ring_dir=tmp_path, close_timeout=0.01)
    reduced = []

    def train(step: int, batch: MixedBatch) -> None:
        state = ledger.fetch([f"stream{step % 3}"]).states
        meter.pick(0, tokens=4)
        losses = (batch["x"] + state.sum()).square() * batch["scale"]
        loss = losses.mean()
        ledger.store([f"stream{step % 3}"], loss.expand(1, 4))
        telemetry.add({"added": loss * 2}, weight=2.0)
        reduced.append(otel_train.reduce_loss_metrics({"loss": loss}))
        if step > LATE:
            telemetry.add({"late": loss * 3})
        telemetry.log({"logged": loss * 4}, step)
        telemetry.step(step, {"loss": loss, "rows": otel_train.PerRow(losses, by=["code", "prose"])})

    compiled = torch.compile(train, backend=backend)
    with telemetry:
        for step in STEPS:
            batch = {"x": torch.full((2,), float(step)), "scale": torch.tensor([0.5, 1.5])}
            compiled(step, MixedBatch(batch, "consumer"))
    records = RingReader(ring_files(tmp_path)[0]).read(0, 100)[0]
    rows = [record for record in records if record.kind is not Kind.RANK and not record.logged]
    values = [row.by_key() for row in rows]
    assert [row.step for row in rows] == list(STEPS)
    losses = [value["loss"] for value in values]
    assert losses[:3] == [1.0, 4.0, 9.0]
    assert [value["rows/code"] for value in values] == pytest.approx([loss / 2 for loss in losses])
    assert [value["rows"] for value in values] == pytest.approx(losses)
    assert [value.get("late") for value in values[:LATE]] == [None] * LATE
    assert [value["late"] for value in values[LATE:]] == pytest.approx([3 * loss for loss in losses[LATE:]])
    logged = {row.step: row.by_key() for row in records if row.kind is not Kind.RANK and row.logged}
    assert [logged[step]["logged"] for step in STEPS] == pytest.approx([4 * loss for loss in losses])
    assert [value["added"] for value in values] == pytest.approx([2 * value["loss"] for value in values])
    assert [value["stream_mixing/picks"] for value in values] == [1.0] * len(STEPS)
    assert [value["ledger/fresh_writes"] for value in values] == [1.0] * 3 + [0.0] * (len(STEPS) - 3)
    assert (consumer.batches, len(reduced)) == (len(STEPS), len(STEPS))


PUBLIC = (otel_train.MixingMeter, otel_train.StreamMixingDataset, otel_train.StateLedger, otel_train.LedgerMeter)


@pytest.mark.parametrize("owner", [*PUBLIC, otel_train.Telemetry], ids=lambda owner: owner.__name__)
def test_compiler_skips_public_methods(owner: type) -> None:
    """The compiler traces no public method, since it would make clocks and counts of its own."""
    methods = [value for name, value in vars(owner).items() if isinstance(value, FunctionType) and name[0] != "_"]
    assert methods
    assert [method.__name__ for method in methods if not getattr(method, "_torchdynamo_disable", False)] == []


def test_compiler_traces_nothing_of_ours(tmp_path: Path) -> None:
    """A compiled loop meets the core first, which calls Python: the compiler leaves that alone too."""
    traced: list[CodeType] = []
    meter = otel_train.MixingMeter(1, ["code"], {"code": 1})
    meter.open(0, "code")
    telemetry = otel_train.init(sources=[meter], ring_dir=tmp_path, close_timeout=0.01)

    def train(step: int, x: torch.Tensor) -> torch.Tensor:
        loss = x.square().sum()
        meter.pick(0, tokens=2.0)
        telemetry.step(step, {"loss": loss})
        return loss * 2

    with telemetry, register_bytecode_hook(lambda old, _: traced.append(old)):
        compiled = torch.compile(train, backend="eager")
        for step in STEPS:
            compiled(step, torch.ones(2) * step)
        assert telemetry.latest is not None
        assert telemetry.latest[1]["loss"] == 128.0
    assert {code.co_filename for code in traced} == {__file__}


@pytest.mark.parametrize("owner", [Recorder, Recording, PickCounts], ids=lambda owner: owner.__name__)
def test_compiler_skips_core_calls(owner: type) -> None:
    """The compiler traces nothing that the core calls from a compiled loop."""
    methods = [value for name, value in vars(owner).items() if isinstance(value, FunctionType) and name[0] != "_"]
    assert methods
    assert [method.__name__ for method in methods if not getattr(method, "_torchdynamo_disable", False)] == []
