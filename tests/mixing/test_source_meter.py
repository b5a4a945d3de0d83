"""The meter of tagged rows against the one that is told of each pick, and through torch's DataLoader."""

from __future__ import annotations

import enum
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset

from otel_train.catalogue.rows import ALIKE_RANKS
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing import Collate, MixingMeter, SourceMeter, TaggedDataset, pack_tag

WEIGHTS = {"a": 1, "b": 2, "c": 0.5}


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 900)), max_size=200), max_size=6),
    save=st.booleans(),
)
def test_values_equal_picks(batches: list[list[tuple[str, int]]], save: bool) -> None:
    """Counting batches gives the values of picking each row, over intervals, saved and loaded in between or not."""
    meter, picked = SourceMeter(WEIGHTS), MixingMeter(3, list("abc"), WEIGHTS)
    for slot, source in enumerate("abc"):
        picked.open(slot, source)
    for step, rows in enumerate(batches, start=1):
        meter.count({"otel_train": torch.tensor([pack_tag(*row) for row in rows], dtype=torch.int64)})
        for source, tokens in rows:
            picked.pick("abc".index(source), tokens=tokens)
        if save:
            state = meter.state_dict()
            meter = SourceMeter(WEIGHTS)
            meter.load_state_dict(state)
        values, expected = meter.drain_step_metrics(step), picked.drain_step_metrics(step)
        assert values.keys() == expected.keys()
        for key in values.keys() - {ALIKE_RANKS.wandb_key}:  # a batch is hashed as a whole
            assert values[key] == pytest.approx(expected[key], rel=1e-12), key


class Kind(str, enum.Enum):  # noqa: UP042  # a StrEnum is shown as its text
    """Names of sources as many a configuration has them."""

    CODE = "a"


class Stream(IterableDataset[Any]):
    """Rows of two sources in turn, whole batches of one."""

    def __init__(self, meter: SourceMeter) -> None:
        self.tags = {name: meter.tag(name, tokens="tokens") for name in "ab"}

    def __iter__(self) -> Iterator[Any]:
        for number in range(16):
            yield self.tags["ab"[number // 4 % 2]]({"tokens": number})


@pytest.mark.modes
def test_counts_in_any_mode() -> None:
    """A training loop may count inside any mode of torch: few rows or many, with passes and unknown sources."""
    words = torch.tensor([pack_tag("a", 2), pack_tag("b", 3, repeat=1), pack_tag("gone"), -1] * 100)
    meter = SourceMeter({"a": 1, "b": 1})
    meter.count({"otel_train": words})
    meter.count([{"otel_train": words[:3]}, {"otel_train": words[3:8]}])
    meter.load_state_dict(meter.state_dict())
    values = meter.drain_step_metrics(1)
    assert values["stream_mixing/picks"] == 204
    assert (values["stream_mixing/tokens/a"], values["stream_mixing/tokens/b"]) == (2 * 102, 3 * 102)


def row_of(form: str, number: int) -> Any:
    """Return a row of a form, which holds its number."""
    return {
        "mapping": {"tokens": number},
        "nested": {"inputs": {"x": 1}, "tokens": number},
        "tuple": (1.0, number),
        "tensor": torch.tensor(number),
        "text": str(number),
    }[form]


def tokens_of(row: Any) -> int:
    """Return the number that a row holds."""
    return int(row)


def join_texts(rows: list[str]) -> str:
    """Return a batch that is no container at all."""
    return " ".join(rows)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("form", "tokens", "collate"),
    [
        ("mapping", "tokens", None),
        ("nested", "tokens", None),
        ("tuple", 1, None),
        ("tensor", tokens_of, None),
        ("mapping", "tokens", list),
        ("tuple", 1, Collate()),
        ("text", tokens_of, Collate(join_texts)),
        ("mapping", "tokens", Collate(len)),
    ],
)
def test_loop_counts_what_it_reads(workers: int, form: str, tokens: Any, collate: Any) -> None:
    """A row of any form counts when the loop reads its batch, and the batch comes back as if it had not been tagged."""
    meter = SourceMeter({"a": 1, "b": 2})
    rows = {"a": range(8), "b": range(16)}
    bare = {name: [row_of(form, number) for number in numbers] for name, numbers in rows.items()}
    tagged = [TaggedDataset(bare[name], meter.tag(name, tokens=tokens)) for name in rows]
    loader: Any = DataLoader(ConcatDataset(tagged), batch_size=4, num_workers=workers, collate_fn=collate)
    plain = collate.collate if isinstance(collate, Collate) else collate
    rows_of_all: Any = [row for source in bare.values() for row in source]
    expected = list(DataLoader(rows_of_all, batch_size=4, collate_fn=plain))
    for step, batch in enumerate(meter.counted(loader), start=1):
        assert repr(batch) == repr(expected[step - 1])
        values = meter.drain_step_metrics(step)
        first = 4 * step - 4 if step < 3 else 4 * step - 12
        assert values["stream_mixing/picks"] == 4
        assert values[f"stream_mixing/tokens/{'a' if step < 3 else 'b'}"] == sum(range(first, first + 4))
    assert step == 6


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_iterable_counts_in_order(context: str) -> None:
    """Rows of an iterable dataset's worker, started in any way, count in the order in which the loop reads them."""
    meter = SourceMeter({"a": 1, "b": 1})
    loader = DataLoader(Stream(meter), batch_size=8, num_workers=1, multiprocessing_context=context)
    for step, _ in enumerate(meter.counted(loader), start=1):
        assert meter.drain_step_metrics(step)["stream_mixing/switch_rate"] == (1 / 7 if step == 1 else 2 / 8)
    assert step == 2


def test_tagged_iterable_stays_iterable() -> None:
    """A dataset that can only be iterated is one after tagging too, and what it has besides is there."""
    meter = SourceMeter({"a": 1, "b": 1})
    stream = Stream(meter)
    tagged = TaggedDataset(stream, meter.tag("a"))
    assert isinstance(tagged, IterableDataset)
    assert tagged.tags is stream.tags
    for _ in meter.counted(DataLoader(tagged, batch_size=16)):
        assert meter.drain_step_metrics(1)["stream_mixing/picks"] == 16


def test_worker_may_not_count() -> None:
    """A count in a worker process would reach nobody: it is refused there."""
    meter = SourceMeter({"a": 1})
    rows: Any = [{"otel_train": pack_tag("a")}]
    loader: Any = DataLoader(rows, num_workers=1, collate_fn=meter.count)
    with pytest.raises(ConfigurationError, match="worker process"):
        list(loader)


@pytest.mark.parametrize(
    ("batch", "hint"),
    [
        ({"input_ids": 1}, "a mapping with input_ids"),
        (torch.ones(3), "collate_fn=otel_train.Collate"),
        ([[1, 2, 3]] * 50, "a list"),
    ],
)
def test_untagged_batch_warns_once(batch: Any, hint: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first batch without a tag comes back as it is, with one warning that says what it is and what to do."""
    meter = SourceMeter({"a": 1})
    assert meter.count(batch) is batch
    assert meter.count(batch) is batch
    meter.drain_measurements(1)
    assert [hint in record.getMessage() for record in caplog.records] == [True]


def test_nothing_counted_warns(caplog: pytest.LogCaptureFixture) -> None:
    """A first interval in which no batch was counted is warned of, once."""
    meter = SourceMeter({"a": 1})
    for step in (1, 2):
        meter.drain_measurements(step)
    assert ["before the end of step 1" in record.getMessage() for record in caplog.records] == [True]


def test_unknown_source_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """Rows of a source that the meter does not have do not count, and are warned of once."""
    meter = SourceMeter({"a": 1})
    for _ in range(2):
        meter.count_tags([pack_tag("a"), pack_tag("gone")])
    assert meter.drain_step_metrics(1)["stream_mixing/picks"] == 2
    assert ["1 rows of a batch" in record.getMessage() for record in caplog.records] == [True]


def test_passes_are_restarts() -> None:
    """A source's next pass is a restart of its reader, the first one that is seen is not, and 256 passes are no end."""
    meter = SourceMeter({"a": 1, "b": 1})
    restarts = []
    for number, other in ((5, 0), (6, 0), (6, 2), (100, 1), (200, 3), (256, 3)):
        meter.count_tags([pack_tag("a", repeat=number), pack_tag("b", repeat=other)])
        restarts.append(meter.drain_step_metrics()["stream_mixing/restarts"])
    assert restarts == [0, 1, 2, 94, 100 + 1, 56]


def test_misses_count_from_last_row() -> None:
    """A reader's misses count from its own last row, wherever in a batch that is."""
    meter = SourceMeter({"a": 1, "b": 1})
    meter.count_tags([pack_tag("b")] + [pack_tag("a")] * 25)
    assert meter.drain_step_metrics(1)["stream_mixing/starved_readers"] == 1
    meter.count_tags([pack_tag("a")] * 25 + [pack_tag("b")])
    assert meter.drain_step_metrics(2)["stream_mixing/starved_readers"] == 0


def test_ended_source_is_inactive() -> None:
    """A source that has ended has no active reader, until rows of it come again."""
    meter = SourceMeter({"a": 1, "b": 1})
    meter.count_tags([pack_tag("a"), pack_tag("b")])
    meter.end("b")
    meter.end("b")
    assert meter.drain_step_metrics(1)["stream_mixing/active_readers"] == 1
    state = meter.state_dict()
    meter = SourceMeter({"a": 1, "b": 1})
    meter.load_state_dict(state)
    assert meter.drain_step_metrics(2)["stream_mixing/active_readers"] == 1
    meter.count_tags([pack_tag("b")])
    assert meter.drain_step_metrics(3)["stream_mixing/active_readers"] == 2


def test_resume_goes_by_name() -> None:
    """Sources may be added, removed and ordered anew at a resume: each goes on with its own counts, age and pass."""
    meter = SourceMeter({"a": 1, "b": 1, "c": 1})
    meter.count_tags([pack_tag("a", tokens=3), pack_tag("c", tokens=4, repeat=2), pack_tag("c")])
    meter.drain_measurements(1)
    meter.count_tags([pack_tag("c", tokens=9, repeat=2)])
    resumed = SourceMeter({"c": 1, "new": 1, "a": 1})
    resumed.load_state_dict(meter.state_dict())
    resumed.count_tags([pack_tag("c", tokens=1, repeat=3), pack_tag("new", repeat=1)])
    values = resumed.drain_step_metrics(2)
    assert values["stream_mixing/tokens/c"] == 10
    assert values["stream_mixing/restarts"] == 1
    assert values["stream_mixing/active_readers"] == 3
    assert values["stream_mixing/staleness_max"] == 1  # a's
    assert values["stream_mixing/modality_share/a"] == pytest.approx(1 / 6, rel=1e-3)
    with pytest.raises(StateMismatchError):
        SourceMeter({"other": 1}).load_state_dict(meter.state_dict())
    with pytest.raises(StateMismatchError):
        resumed.load_state_dict(MixingMeter(1, ["a"], {"a": 1}).state_dict())


@pytest.mark.parametrize(("saved", "present"), [(3, 2), (2, 3)])
def test_resume_with_other_world_size(saved: int, present: int) -> None:
    """The cluster's sums go on when the number of ranks changes."""
    meters = [SourceMeter({"a": 1, "b": 1}) for _ in range(saved)]
    for rank, meter in enumerate(meters):
        meter.count_tags([pack_tag("ab"[rank % 2], tokens=rank)] * (rank + 1))
    resumed = [SourceMeter({"b": 1, "a": 1}) for _ in range(present)]
    for rank, meter in enumerate(resumed):
        meter.load_resharded([former.state_dict() for former in meters], rank, present)
    values = [meter.drain_step_metrics(1) for meter in resumed]
    assert sum(value["stream_mixing/picks"] for value in values) == sum(range(1, saved + 1))
    assert sum(value["stream_mixing/active_readers"] for value in values) == 2 * present


def test_other_ranks_keep_ends() -> None:
    """A source that had ended on all ranks has ended on those of another number; one that some still read has not."""
    meters = [SourceMeter({"a": 1, "b": 1, "c": 1}) for _ in range(2)]
    for meter in meters:
        meter.count_tags([pack_tag("a"), pack_tag("b"), pack_tag("c")])
        meter.end("b")
    meters[0].end("c")
    resumed = SourceMeter({"c": 1, "b": 1, "a": 1})
    resumed.end("a")
    resumed.load_resharded([meter.state_dict() for meter in meters], 0, 3)
    assert resumed.modality_for_reader == ["c", None, "a"]


@pytest.mark.parametrize("name", [np.str_("a"), Kind.CODE])
def test_names_become_plain_text(name: str) -> None:
    """A name that is a kind of text becomes plain text, in keys and in what is saved."""
    meter = SourceMeter({name: 1})
    meter.count(meter.tag(name, tokens=len)([1, 2, 3]))
    saved = io.BytesIO()
    torch.save(meter.state_dict(), saved)
    saved.seek(0)
    assert torch.load(saved, weights_only=True)["meter"]["modalities"] == ["a"]
    assert meter.drain_step_metrics(1)["stream_mixing/tokens/a"] == 3


def test_weight_zero_waits_for_nothing() -> None:
    """A source with the weight 0 has no reader that waits; its rows count, and with a weight it is waited for anew."""
    meter = SourceMeter({"a": 1, "b": 1, "c": 0})
    for step in range(1, 30):
        meter.count_tags([pack_tag("a"), pack_tag("b"), pack_tag("c", repeat=step)][: 3 if step < 3 else 2])
        values = meter.drain_step_metrics(step)
    assert (values["stream_mixing/active_readers"], values["stream_mixing/staleness_max"]) == (2, 0)
    assert values["stream_mixing/modality_share/c"] > 0
    meter.set_weights({"a": 1, "c": 1})
    meter.count_tags([pack_tag("a"), pack_tag("b", repeat=6)])
    resumed = SourceMeter({"c": 1, "a": 1, "b": 1})
    resumed.load_state_dict(meter.state_dict())
    for one, stale in ((meter, 0), (resumed, 0)):
        values = one.drain_step_metrics(30)
        assert values["stream_mixing/staleness_max"] == stale
        one.count_tags([pack_tag("a")])
        assert one.drain_step_metrics(31)["stream_mixing/staleness_max"] == 1
    assert meter.modality_for_reader == ["a", None, "c"]
    assert resumed.modality_for_reader == ["c", "a", "b"]
