"""Losses by source over two real ranks: each rank's rows, sources that it has or lacks, any call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pytest
import torch

import otel_train
from otel_train import PerRow, Scalar, SourceMeter
from otel_train.exceptions import SchemaMismatchError
from otel_train.mixing import pack_tag
from tests.support.on_ranks import Job

pytestmark = pytest.mark.ranks(2)
SOURCES = ("code", "prose", "math")


def losses_of(values: Mapping[str, float] | None) -> dict[str, float]:
    """Return the losses of a step's values, by key."""
    return {key: value for key, value in (values or {}).items() if key.startswith("train/loss")}


def test_micro_batches_equal_own_record(job: Job) -> None:
    """Tagged micro-batches of uneven size give the weighted means of all ranks' rows, at each log step."""
    meter, generator = SourceMeter(dict.fromkeys(SOURCES, 1)), torch.Generator().manual_seed(job.rank)
    own: list[tuple[int, str, float, float]] = []
    with job.session(
        sources=[meter], metrics=[Scalar("train/loss", by="modality")], log_every=2, max_in_flight=20
    ) as telemetry:
        for step in range(1, 13):
            for micro in range(3):
                size = 1 + (step * 7 + micro * 5 + job.rank * 40) % 50
                # Rank 1 has no "math" at all, and nobody has any in the first steps.
                drawn = torch.randint(0, 3 if job.rank == 0 and step > 4 else 2, (size,), generator=generator)
                rows = torch.rand(size, generator=generator) * 9
                tokens = torch.randint(0, 100, (size,), generator=generator)
                names = [SOURCES[index] for index in drawn.tolist()]
                meter.count({"otel_train": torch.tensor([pack_tag(name, 1) for name in names])})
                telemetry.add({"train/loss": PerRow(rows, tokens)})
                own += zip([step] * size, names, rows.tolist(), map(float, tokens), strict=True)
            telemetry.step(step)
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for step, name, value, weight in (row for part in job.gather(own) for row in part):
        for key in ("train/loss", f"train/loss/{name}"):
            total = sums[step + step % 2, key]
            total[0] += value * weight
            total[1] += weight
    expected = {key: total / count for key, (total, count) in sums.items()}
    if job.rank == 0:
        reader = job.ring()
        recorded = {
            (record.step, key): value
            for record in reader.read(0, 1000)[0]
            if record.kind.name == "CLUSTER"
            for key, value in losses_of(reader.layout.by_key(*reader.layout.split(record.values))).items()
        }
        assert recorded == pytest.approx(expected)
        assert (4, "train/loss/math") not in recorded
        assert (6, "train/loss/math") in recorded
        assert reader.schema.metrics[-1].attribute == "modality"


def test_ranks_forms_may_differ(job: Job) -> None:
    """Rows on one rank, the user's own sums on the other; a rank without any value takes part without."""
    declared = Scalar("train/loss", by=SOURCES)
    with job.session(metrics=[declared], blocking=True) as telemetry:
        forms = (torch.tensor([1.0, 5.0, 3.0]), {"prose": (30.0, 10), "math": 2.0})
        first = telemetry.step(1, {"train/loss": forms[job.rank]}, by=[0, 1, -1] if job.rank == 0 else None)
        second = telemetry.step(2, {"train/loss": torch.ones(2) if job.rank else None}, by="math")
        # One rank's rows do not fit its sources: they cost that rank's part only.
        third = telemetry.step(3, {"train/loss": torch.ones(2)}, by=[0, 1] if job.rank else [0, 1, 2])
    assert losses_of(first) == {
        "train/loss": 41 / 14,
        "train/loss/code": 1.0,
        "train/loss/prose": 35 / 11,
        "train/loss/math": 2.0,
    }
    assert losses_of(second) == {"train/loss": 1.0, "train/loss/math": 1.0}
    assert losses_of(third) == {"train/loss": 1.0, "train/loss/code": 1.0, "train/loss/prose": 1.0}
    assert (third or {})["telemetry/values_dropped"] == 1
    assert [text for text in job.warnings if "has 2 rows and the sources of 3" in text] == job.warnings[: 1 - job.rank]


def test_other_declaration_raises_everywhere(job: Job) -> None:
    """A rank that declares its loss without sources, or with others, is named on all ranks."""
    for other in (Scalar("train/loss", "sum"), Scalar("train/loss", by=("prose", "code"))):
        declared = [other if job.rank else Scalar("train/loss", by=("code", "prose"))]
        with job.session(metrics=declared) as telemetry, pytest.raises(SchemaMismatchError, match="rank 1"):
            telemetry.step(1, {"train/loss": 1.0})
    assert otel_train.reduce_loss_metrics({"loss": 1.0}) == {"loss": 1.0}
