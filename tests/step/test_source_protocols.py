"""What a source has, and may have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import otel_train
from otel_train import Phase, Scalar
from otel_train.catalogue import Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import FileStream
from otel_train.ring import RingReader, ring_files


@pytest.mark.usefixtures("external_sidecar")
def test_session_calls_each_hook(tmp_path: Path) -> None:
    """A source with every optional part hears of each step, is drained flat, describes itself and gets its watch."""
    calls: list[Any] = []

    class Cache:
        metrics = (Scalar("hits", "sum"), Metric("depth", Reduction.MAX))
        modalities = ("code", "prose")
        needs_clock = True
        facts = {"cache.size": 8}  # noqa: RUF012  # a property as good as any

        def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
            raise NotImplementedError(step)

        def drain_measurements(self, step: int | None = None) -> tuple[float, float]:
            calls.append(("drain", step))
            return 5.0, 3.0

        def end_step(self, step: int) -> None:
            calls.append(("end", step))

        def watch(self, enter: Callable[[Phase], None]) -> None:
            enter(Phase.LEDGER)

    source = Cache()
    with otel_train.init(sources=[source], log_every=3, ring_dir=tmp_path, close_timeout=0.01) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step)
        reader = RingReader(ring_files(tmp_path)[0])
        assert reader.phase[0] is Phase.LEDGER
    assert calls == [("end", 1), ("end", 2), ("drain", 3)]
    assert reader.facts["cache.size"] == 8
    assert reader.schema.modalities == ("code", "prose")
    assert [metric.name for metric in reader.schema.metrics[:2]] == ["hits", "depth"]


def test_own_sources_fit_protocols(tmp_path: Path) -> None:
    """Dataset, ledger and their meters have every optional part that they are used by; mypy checks the types."""
    text = tmp_path / "text"
    text.write_bytes(b"abcdef")
    dataset = otel_train.StreamMixingDataset([FileStream("a", "code", str(text), 2)], {"code": 1}, readers=1)
    ledger = otel_train.StateLedger([2], capacity=2)
    flat: list[otel_train.FlatSource] = [dataset, dataset.meter, ledger, otel_train.LedgerMeter(2)]
    stepped: list[otel_train.SteppedSource] = [dataset, dataset.meter, ledger, otel_train.LedgerMeter(2)]
    modal: list[otel_train.ModalSource] = [dataset, dataset.meter]
    described: list[otel_train.DescribedSource] = [dataset, dataset.meter, ledger]
    clocked: list[otel_train.ClockedSource] = [dataset, ledger]
    watched: otel_train.WatchedSource = ledger
    assert all(isinstance(source, otel_train.Source) for source in (*flat, *stepped, watched))
    assert [source.modalities for source in modal] == [("code",)] * 2
    assert [source.needs_clock for source in clocked] == [False, False]
    assert all(source.facts for source in described)


@pytest.mark.parametrize("metrics", [("hits",), (Scalar("hits"), None)])
def test_init_names_wrong_metrics(metrics: Any) -> None:
    """A source whose metrics are no declarations is refused, with its class and the value."""

    class Cache:
        def __init__(self) -> None:
            self.metrics = metrics

        def drain_step_metrics(self, step: int | None = None) -> dict[str, float]:
            raise NotImplementedError(step)

    with pytest.raises(ConfigurationError, match=r"Cache\.metrics must be otel_train\.Scalar or Metric, got "):
        otel_train.init(sources=[Cache()])
