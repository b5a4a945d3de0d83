"""A loss by the source of its rows: against a plain computation, in every form that it is given in."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import otel_train
from otel_train import PerRow, Scalar
from otel_train.catalogue import BY_SOURCE, Layout, Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.reduction import Reducer
from otel_train.step.scalar_recorder import ScalarRecorder
from otel_train.step.source_scalars import scattered

SOURCES = ("code", "prose", "math")
LOSS = Metric("loss", attribute=BY_SOURCE)
LAYOUT = Layout((LOSS,), SOURCES)


def by_key(*calls: tuple[Any, float]) -> dict[str, float]:
    """Return the values of calls of one rank."""
    recorder = ScalarRecorder((LOSS,), sources=SOURCES)
    for value, weight in calls:
        assert recorder.add({"loss": value}, weight) == {}
    return LAYOUT.by_key(recorder.drain()[0], ())


def dropped(value: Any) -> str:
    """Return why a value is dropped, and see that it leaves nothing behind."""
    recorder = ScalarRecorder((LOSS,), sources=SOURCES)
    reason = recorder.add({"loss": value})["loss"]
    assert LAYOUT.by_key(recorder.drain()[0], ()) == {}
    return reason


ROWS = [1.0, 2.0, 4.0, 9.0]
WHOLE_AND_TWO = {"loss": 4.0, "loss/code": 2.5, "loss/prose": 2.0}


@pytest.mark.parametrize(
    "value",
    [
        PerRow(ROWS, by=[0, 1, 0, -1]),
        PerRow(tuple(ROWS), by=("code", "prose", "code", None)),
        PerRow(np.array(ROWS), by=np.array(["code", "prose", "code", "elsewhere"])),
        PerRow(torch.tensor(ROWS, requires_grad=True), by=torch.tensor([0, 1, 0, 3])),
        PerRow(torch.tensor(ROWS, dtype=torch.bfloat16), by=torch.tensor([0, 1, 0, 7], dtype=torch.uint8)),
        PerRow([torch.tensor(row) for row in ROWS], by=np.array([0, 1, 0, -1], dtype=np.int32)),
        PerRow([int(row) for row in ROWS], by=["code", "prose", "code", 7]),
        PerRow(torch.tensor(ROWS).view(2, 2), by=torch.tensor([[0, 1], [0, -1]])),
        PerRow(torch.tensor([*ROWS, math.nan]), by=torch.tensor([0, 1, 0, -1, -2])),
        PerRow(torch.tensor([*ROWS, math.nan]), weights=[2, 2, 2, 2, 0], by=[0, 1, 0, -1, 0]),
        {"code": (5.0, 2), "prose": 2.0, "elsewhere": torch.tensor(9.0), "math": None},
        {"code": (torch.tensor(5.0), torch.tensor(2)), "prose": (2, 1), None: (9.0, 1.0), "math": (0.0, 0)},
    ],
)
def test_forms_give_same_values(value: Any) -> None:
    """Rows by index or name, of any type, and sums that the user has; what has no source counts in the whole only."""
    assert by_key((value, 1.0)) == WHOLE_AND_TWO


def test_tokens_belong_to_rows() -> None:
    """Values [rows, tokens] with a mask are weighted by tokens; a call's weight is for values that have none."""
    losses, mask = torch.tensor([[1.0, 3.0, 9.0], [5.0, math.nan, 9.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert by_key((PerRow(losses, mask, by=[0, 2]), 7.0)) == {"loss": 3.0, "loss/code": 2.0, "loss/math": 5.0}
    assert by_key((PerRow(losses.nan_to_num(0.0), by=[0, 2]), 1.0)) == pytest.approx(
        {"loss": 4.5, "loss/code": 13 / 3, "loss/math": 14 / 3}
    )
    assert by_key((PerRow([[1.0, 3.0]], weights=[2.0], by="code"), 1.0)) == {"loss": 2.0, "loss/code": 2.0}


def test_whole_is_a_number() -> None:
    """A number is of no source, unless one is named for all rows, and then counts as much as its call does."""
    of_one = PerRow(torch.tensor(4.0), by="code")
    assert by_key((2.0, 1.0), (torch.tensor([6.0]), 3.0), (PerRow(torch.tensor([6.0]), by=[0, 1]), 0.0)) == {
        "loss": 5.0
    }
    assert by_key((2.0, 1.0), (of_one, 3.0)) == {"loss": 3.5, "loss/code": 4.0}
    assert by_key((PerRow(torch.tensor([6.0]), by=[2]), 9.0), (None, 1.0), (PerRow(None), 1.0)) == {
        "loss": 6.0,
        "loss/math": 6.0,
    }


def test_broken_source_costs_itself() -> None:
    """A NaN or an infinite loss is in its source and in the whole, and the others keep their values."""
    values = by_key((PerRow([1.0, math.nan, 3.0, math.inf], by=[0, 1, 0, 2]), 1.0))
    assert values["loss/code"] == 2.0
    assert math.isnan(values["loss"])
    assert math.isnan(values["loss/prose"])
    assert values["loss/math"] == math.inf


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (PerRow([1.0, 2.0], by=[0, 1, 2]), "has 2 rows and the sources of 3"),
        (PerRow(torch.ones(2, 3), by=[0, 1, 2]), "has 2 rows and the sources of 3"),
        (PerRow(torch.ones(4)), "has 4 rows whose sources are not known"),
        (torch.ones(4), "has 4 rows whose sources are not known"),
        (PerRow(torch.ones(2), weights=[1.0, 1.0, 1.0], by=[0, 1]), r"has \[2\] values and \[3\] weights"),
        (PerRow(torch.ones(2), by=torch.tensor([0.0, 1.0])), "by sources that are of torch.float32"),
        (PerRow(torch.ones(2), by=torch.tensor([True, False])), "by sources that are of torch.bool"),
        (PerRow(torch.ones(2, dtype=torch.complex64), by=[0, 1]), "is complex"),
        (PerRow(torch.ones(2, device="meta"), by=[0, 1]), "is a tensor without values"),
        (PerRow(["a", "b"], by=[0, 1]), "must be a number, or a tensor or list of one for each row, got list"),
        (PerRow(torch.ones(2), by=object()), "must be a number, or a tensor or list"),
        ({"code": (1.0, 2.0, 3.0)}, r"must map a source to a mean or to a pair \(sum, count\)"),
        ({"code": (1.0, -2.0)}, "must have counts that are finite and not negative, got -2.0 for 'code'"),
        ({"prose": 1.0, "code": (1.0, math.nan)}, "must have counts that are finite"),
        ({"code": "high"}, "must be a number"),
        ("high", "must be a number"),
    ],
)
def test_misfits_have_a_reason(value: Any, reason: str) -> None:
    """What does not fit its rows, or is not a number, is dropped whole, with what to do."""
    assert re.search(reason, dropped(value))


class Call(NamedTuple):
    """Rows that one rank gives in one call."""

    values: list[float]
    weights: list[float]
    sources: list[int]
    weighted: bool


ROW = st.tuples(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.5, 1.0, 3.0, 1000.0]), st.integers(-1, len(SOURCES) - 1))
CALLS = st.builds(
    lambda rows, weighted: Call([*(r[0] for r in rows)], [*(r[1] for r in rows)], [*(r[2] for r in rows)], weighted),
    st.lists(ROW, max_size=40),
    st.booleans(),
)


@given(st.lists(st.lists(CALLS, max_size=3), min_size=1, max_size=4))
def test_ranks_calls_add_up(ranks: list[list[Call]]) -> None:
    """Over any ranks, calls, counts and weights the values are the weighted means of all their rows, or absent."""
    sums = [0.0] * LAYOUT.sums
    numbers: dict[int, list[tuple[float, float]]] = {}
    for calls in ranks:
        recorder = ScalarRecorder((LOSS,), sources=SOURCES)
        for values, weights, sources, weighted in calls:
            rows = PerRow(torch.tensor(values, dtype=torch.float64), weights if weighted else None, sources)
            assert recorder.add({"loss": rows}) == {}
            for value, weight, source in zip(values, weights, sources, strict=True):
                numbers.setdefault(source, []).append((value, weight if weighted else 1.0))
        sums = [own + other for own, other in zip(sums, recorder.drain()[0], strict=True)]
    named = {f"loss/{SOURCES[source]}": pairs for source, pairs in numbers.items() if source >= 0}
    named["loss"] = [pair for pairs in numbers.values() for pair in pairs]
    expected = {
        key: math.fsum(value * weight for value, weight in pairs) / count
        for key, pairs in named.items()
        if (count := math.fsum(weight for _, weight in pairs))
    }
    assert LAYOUT.by_key(sums, ()) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def _double(numbers: list[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@given(st.lists(ROW, max_size=40))
def test_device_counts_as_host(rows: list[tuple[float, float, int]]) -> None:
    """What a GPU does gives the host's totals and counts; padding counts nothing, an index beyond is of no source."""
    bins = [0 if value < -9e5 else 5 if value > 9e5 else source + 2 for value, _, source in rows]
    totals, counts = ([row[part] for row in rows] for part in (0, 1))
    of_device = scattered(torch.tensor(bins, dtype=torch.int64), _double(totals), _double(counts), 6)
    expected = [[0.0] * 4, [0.0] * 4]
    for index, total, count in zip(bins, totals, counts, strict=True):
        if index:
            expected[0][(index - 1) % 4] += total
            expected[1][(index - 1) % 4] += count
    assert of_device.tolist() == [pytest.approx(numbers) for numbers in expected]


def test_device_part_joins_vector() -> None:
    """What is accumulated on a device comes to the scalar's own sums, whatever is declared around it."""
    metrics = (Metric("before", Reduction.SUM), LOSS, Metric("after"))
    layout = Layout(metrics, SOURCES)
    recorder = ScalarRecorder(metrics, sources=SOURCES)
    recorder.add({"before": 3.0, "loss": PerRow([2.0], by="prose"), "after": 7.0})
    target = recorder._sums_on(recorder._offsets_by_source["loss"], torch.device("cpu"))
    target.copy_(torch.tensor([[1.0, 4.0, 10.0, 0.0], [1.0, 2.0, 1.0, 0.0]]))
    sums, peaks, device = recorder.drain()
    # The rank's own record has no mean of the part that is on the host.
    assert layout.by_key(recorder.own(sums), ()) == {"before": 3.0, "after": 7.0}
    reducer = Reducer(layout, RankGroup.alone(), max_in_flight=1, timeout=1.0)
    reducer.launch(1, 0, Measurements((*sums, *peaks), device))
    (reduced,) = reducer.harvest()
    assert layout.by_key(*layout.split(reduced.values)) == {
        "before": 3.0,
        "loss": 17 / 5,
        "loss/code": 2.0,
        "loss/prose": 6.0,
        "after": 7.0,
    }


def losses(values: dict[str, float] | None) -> dict[str, float]:
    """Return what of a step's values is a loss."""
    return {key: value for key, value in (values or {}).items() if "loss" in key}


@pytest.mark.usefixtures("external_sidecar")
def test_early_rows_keep_values(tmp_path: Path) -> None:
    """Rows that come before the first step are kept by value with their sources; undeclared ones name theirs."""
    rows, sources = torch.tensor([1.0, 3.0]), torch.tensor([0, 1])
    declared = Scalar("eval/loss", by=["code", "prose"])
    with otel_train.init(metrics=[declared], ring_dir=tmp_path, blocking=True, close_timeout=0.01) as telemetry:
        telemetry.add({"eval/loss": rows}, by=sources)
        rows.zero_()
        sources.zero_()
        first = telemetry.step(1, {"train/loss": torch.tensor([5.0, 7.0])}, by=["code", "code"])
        second = telemetry.step(2, {"train/loss": 4.0, "eval/loss": [1.0]}, by="prose")
    assert losses(first) == {
        "eval/loss": 2.0,
        "eval/loss/code": 1.0,
        "eval/loss/prose": 3.0,
        "train/loss": 6.0,
        "train/loss/code": 6.0,
    }
    assert losses(second) == {"train/loss": 4.0, "eval/loss": 1.0, "eval/loss/prose": 1.0}


@pytest.mark.usefixtures("external_sidecar")
def test_late_rows_have_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be by source says so: a key that comes later and is not declared, and what is logged beside steps."""
    declared = Scalar("eval/loss", by=["code", "prose"])
    with otel_train.init(metrics=[declared], ring_dir=tmp_path, blocking=True, close_timeout=0.01) as telemetry:
        telemetry.step(1)
        values = telemetry.step(2, {"train/loss": [1.0, 2.0]}, by=["code", "prose"])
        telemetry.log({"eval/loss": {"code": 1.0}})
        assert losses(telemetry.step(3, {"train/loss": 3.0})) == {"train/loss": 3.0}
    assert losses(values) == {}
    assert "'train/loss' is dropped: it has values by row, and is not declared by source; give otel" in caplog.text
    assert "'eval/loss' is dropped: it is a mean by source and can't be logged beside the steps" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"by": "source"}, "by must be 'modality' or a sequence of the sources' names, got 'source'"),
        ({"by": ()}, "by must be 'modality' or a sequence"),
        ({"by": ["code", "code"]}, "different texts"),
        ({"by": [1, 2]}, "different texts"),
        ({"by": 7}, "by must be 'modality' or a sequence"),
        ({"by": "modality", "reduction": "sum"}, "there are means only, got a sum by 'modality'"),
        ({"by": ["code"], "reduction": "max"}, "there are means only, got a max"),
    ],
)
def test_declaration_names_its_rule(arguments: dict[str, Any], rule: str) -> None:
    """A scalar by source that can't be is refused when it is declared."""
    with pytest.raises(ConfigurationError) as error:
        Scalar("train/loss", **arguments)
    assert rule in str(error.value)


@pytest.mark.usefixtures("external_sidecar")
def test_sources_are_named_once(tmp_path: Path) -> None:
    """The session's sources or the declaration name them: neither, two that differ, and keys that meet are refused."""
    meter = otel_train.SourceMeter({"code": 1, "prose": 1})
    by_modality, by_names = Scalar("train/loss", by="modality"), Scalar("eval/loss", by=["prose", "code"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"metrics": [by_modality]}, "no source of the session has any"),
        ({"metrics": [by_names], "sources": [meter]}, "by must be 'modality' where the session has the sources"),
        ({"metrics": [by_names, Scalar("loss", by=["prose"])]}, "where the session has the sources prose, code"),
    ]
    for arguments, rule in cases:
        with pytest.raises(ConfigurationError, match=rule):
            otel_train.init(ring_dir=tmp_path, **arguments)
    otel_train.init(ring_dir=tmp_path, metrics=[by_names, Scalar("train/loss", by="modality")]).close()
    many = Scalar("train/loss", by=[str(number) for number in range(16_385)])
    late: list[tuple[dict[str, Any], str]] = [
        ({"metrics": [by_modality], "sources": [meter]}, "'train/loss/code' in wandb"),
        ({"metrics": [many]}, "must have at most 16384 series"),
    ]
    for arguments, rule in late:
        telemetry = otel_train.init(ring_dir=tmp_path, close_timeout=0.01, **arguments)
        with pytest.raises(ConfigurationError, match=rule):
            telemetry.step(1, {"train/loss/code": 1.0})
        telemetry.close()
