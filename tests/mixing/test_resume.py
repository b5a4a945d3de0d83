"""A resume is the same job going on: what was saved is data, what is configured now is used."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pytest

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.ledger import StateLedger
from otel_train.mixing import MixingMeter, StreamMixingDataset, WeightSchedule
from otel_train.mixing.resume import Job, reshard
from tests.support.number_streams import Numbers, held

STREAMS = tuple(Numbers(f"{modality}{index}", modality) for modality in "ab" for index in range(4))
SHARE_A = f"{rows.MODALITY_SHARE.wandb_key}/a"
PICKS = rows.PICKS.wandb_key


def make(streams: Sequence[Numbers] = STREAMS, weights: Any = None, **changes: Any) -> StreamMixingDataset:
    """Return a dataset of one rank."""
    arguments = {"readers": 4, "seed": 3, "rank": 0, "world_size": 1, **changes}
    return StreamMixingDataset(streams, weights or {"a": 1, "b": 1}, **arguments)


def saved(dataset: StreamMixingDataset, picks: int = 30, *, drain: bool = True) -> Any:
    """Read some rows and return the state, as a file has it."""
    list(islice(dataset, picks))
    if drain:
        dataset.drain_measurements(5)
    return json.loads(json.dumps(dataset.state_dict()))


def resumed(state: Any, **changes: Any) -> StreamMixingDataset:
    """Return a dataset that goes on from a state."""
    dataset = make(**changes)
    dataset.load_state_dict(state)
    return dataset


def test_resume_uses_present_weights() -> None:
    """Saved at 5:1 and resumed at 1:5, a sixth of the rows are of the first modality, each named as its own."""
    dataset = resumed(saved(make(weights={"a": 5, "b": 1}, readers=6)), weights={"a": 1, "b": 5}, readers=6, horizon=1)
    picked = Counter((row["modality"], row["stream"][0]) for row in islice(dataset, 20_000))
    assert picked.keys() == {("a", "a"), ("b", "b")}
    assert picked["a", "a"] / 20_000 == pytest.approx(1 / 6, abs=0.01)
    assert dataset.drain_step_metrics(6)[SHARE_A] == picked["a", "a"] / 20_000


@pytest.mark.parametrize("readers", [2, 3, 7])
def test_other_reader_count_keeps_rows(readers: int) -> None:
    """Streams that find no slot wait in their modality's queue, and those that wait fill new slots."""
    state = saved(make())
    after = resumed(state, readers=readers).state_dict()
    assert sorted(held(after)) == sorted(held(state))
    assert [entry is not None for entry in after["plan"]["slots"]] == [True] * readers


def test_stream_keeps_slot_and_age() -> None:
    """Where the slot is still one of its modality; the age of a slot with another stream begins anew."""
    dataset = make(slots=["a", "b", "b"], readers=None)
    state = saved(dataset)
    dataset.end_step(9)
    state["meter"]["last_picked_step"] = [2, 3, 4]
    after = resumed(state, slots=["a", "a", "b"], readers=None).state_dict()
    assert [after["plan"]["slots"][slot] for slot in (0, 2)] == [tuple(state["plan"]["slots"][slot]) for slot in (0, 2)]
    assert after["meter"]["last_picked_step"] == [2, 6, 4]


@pytest.mark.parametrize("world_size", [1, 2])
def test_new_and_removed_streams(world_size: int, caplog: pytest.LogCaptureFixture) -> None:
    """From each rank's own state alone: the others go on at their rows, and rank 0 logs what changed."""
    caplog.set_level(logging.INFO)
    ranks = [make(rank=rank, world_size=world_size) for rank in range(world_size)]
    states = [saved(dataset, 17 + rank) for rank, dataset in enumerate(ranks)]
    streams = [*STREAMS[1:], *(Numbers(f"new{index}", "ab"[index % 2]) for index in range(8))]
    new = [resumed(state, streams=streams, rank=rank, world_size=world_size) for rank, state in enumerate(states)]
    expected = {entry[0]: entry[1] for state in states for entry in held(state) if entry[0] != "a0"}
    expected |= {f"new{index}": 0 for index in range(8)}
    assert sorted(entry for dataset in new for entry in held(dataset.state_dict())) == sorted(expected.items())
    assert "8 streams that the saved job did not have are read" in caplog.text
    assert "1 streams of the saved job are not given now and are dropped: 'a0'" in caplog.text


def test_new_modality_is_counted() -> None:
    """Its counts begin from zero; those of the others go on."""
    state = saved(make(), drain=False)
    dataset = resumed(state, streams=[*STREAMS, Numbers("c0", "c")], weights={"a": 1, "b": 1, "c": 1})
    picked = Counter(row["modality"] for row in islice(dataset, 30))
    values = dataset.drain_step_metrics()
    assert values[PICKS] == 60
    assert values[f"{rows.MODALITY_SHARE.wandb_key}/c"] == picked["c"] / 60 > 0


def test_cycle_restarts_ended_streams() -> None:
    """Saved with streams that are read once, resumed with streams that begin again."""
    state = saved(make(at_end="next", weights={"a": 1, "b": 0}), 36)
    assert len(state["plan"]["finished"]) == 4
    dataset = resumed(state, at_end="cycle", weights={"a": 1, "b": 0})
    assert len({row["stream"] for row in islice(dataset, 72)}) == 4
    ended = resumed(state, at_end="next").state_dict()["plan"]["finished"]
    assert sorted(ended) == ["a0", "a1", "a2", "a3"]


@pytest.mark.parametrize(("ranks", "rows_now"), [((4, 2), 8), ((2, 2), 8), ((2, 4), 1), ((1, 1), 3)])
def test_schedule_resumes_at_saved_step(ranks: tuple[int, int], rows_now: int) -> None:
    """The schedule goes on whatever the batch size and the number of ranks were, and are now."""
    asked: list[int] = []

    def schedule(step: int) -> dict[str, float]:
        asked.append(step)
        return {"a": 1, "b": 1}

    states = []
    for rank in range(ranks[0]):
        dataset = make(weights=schedule, rank=rank, world_size=ranks[0], batch_size=4)
        for step in range(1, 111):
            list(islice(dataset, 4))
            dataset.end_step(step)
        states.append(dataset.state_dict())
    dataset = make(weights=schedule, rank=0, world_size=ranks[1], batch_size=rows_now)
    asked.clear()
    dataset.load_state_dict(states)
    list(islice(dataset, 2 * rows_now + 1))
    assert sorted(set(asked)) == [111, 112, 113]


def test_drain_without_step_keeps_schedule() -> None:
    """Then the schedule's step is the one that the picks give."""
    dataset = make(batch_size=4)
    for _ in range(3):
        list(islice(dataset, 8))
        dataset.drain_measurements()
    assert dataset.state_dict()["step"] == 7


def test_schedule_needs_clock() -> None:
    """A session that is off tells steps to those that need them for training itself."""
    assert make(weights=WeightSchedule(((1, {"a": 1.0, "b": 1.0}),))).needs_clock
    assert not make().needs_clock


def test_schedule_drift_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """A step of two batches, of which the dataset was not told, makes the schedule run ahead."""
    dataset = make(weights=WeightSchedule(((1, {"a": 1.0, "b": 1.0}),)), batch_size=2)
    for step in range(1, 6):
        list(islice(dataset, 4))
        dataset.drain_measurements(step)
    assert caplog.text.count("set rows_per_step (2)") == 1


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3), (4, 1), (1, 4)])
def test_resharding_keeps_interval_counts(before: int, after: int) -> None:
    """Picks, tokens and restarts of all ranks add up, to the last one, and so do the pairs of picks."""
    old = [make(rank=rank, world_size=before) for rank in range(before)]
    states = [saved(dataset, 20 + rank, drain=False) for rank, dataset in enumerate(old)]
    new = [make(rank=rank, world_size=after) for rank in range(after)]
    for dataset in new:
        dataset.load_state_dict(states)
    first = slice(0, 6 + 3 * len(new[0].modalities))  # the sums
    sums = [
        [sum(column) for column in zip(*(dataset.drain_measurements(1)[first] for dataset in side), strict=True)]
        for side in (old, new)
    ]
    counted = [0, 2, 4, 5]  # picks, restarts, switches, pairs
    assert [sums[1][at] for at in counted] == [sums[0][at] for at in counted]
    assert sums[1][-6:] == pytest.approx(sums[0][-6:], rel=1e-12)


@pytest.mark.parametrize(
    ("streams", "weights", "world_size"),
    [
        (STREAMS[:3], {"a": 1}, 4),
        (STREAMS, {"a": 1, "b": 1}, 9),
        ((*STREAMS[:1], *STREAMS[4:]), {"a": 1, "b": 0}, 2),
        (STREAMS[3:5], WeightSchedule(((1, {"a": 1.0, "b": 1.0}), (7, {"a": 1.0}))), 2),
    ],
)
def test_rank_without_stream_raises(streams: Sequence[Numbers], weights: Any, world_size: int) -> None:
    """Its loader would be empty and its peers would wait for it; a modality without weight is none that it can read."""
    for rank in range(world_size):
        with pytest.raises(ConfigurationError, match=rf"rank \d of {world_size} gets no stream that it can read"):
            make(streams, weights, rank=rank, world_size=world_size)


def test_resume_without_streams_raises() -> None:
    """Streams that have ended are no streams to read, and those of one rank may all be gone."""
    states = [saved(make(rank=rank, world_size=2, at_end="next"), 30) for rank in range(2)]
    left = sum(len(held(state)) for state in states)
    for rank in range(left + 1):
        with pytest.raises(ConfigurationError, match=f"of {left + 1} gets no stream that it can read"):
            resumed(states, rank=rank, world_size=left + 1, at_end="next")


def test_state_of_other_data_raises() -> None:
    """A stream with another modality, one that has become shorter than what was read, and nothing is changed."""
    state = saved(make(slots=["a", "b"], readers=None), 8)
    stream, row = max(held(state), key=lambda entry: entry[1])
    shorter = [Numbers(other.id, other.modality, row if other.id == stream else 9) for other in STREAMS]
    dataset = make(shorter)
    before = dataset.state_dict()
    with pytest.raises(
        StateMismatchError, match=f"stream '{stream}' has {row} rows, the saved state goes on at row {row}"
    ):
        dataset.load_state_dict(state)
    assert dataset.state_dict() == before
    with pytest.raises(StateMismatchError, match="stream 'a0' has the modality 'b', the saved state has it as 'a'"):
        resumed(state, streams=[Numbers("a0", "b"), *STREAMS[1:]])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda _: StateLedger((1,), capacity=1).state_dict(),
            "StreamMixingDataset must have .*'picks_in_step' is missing",
        ),
        (lambda state: {name: state[name] for name in ("world_size", "rank", "plan", "meter")}, "'step' is missing"),
        (lambda state: {**state, "plan": {**state["plan"], "slots": 7}}, "has a value of a wrong form"),
        (lambda state: {**state, "plan": {**state["plan"], "slots": []}}, "lists other streams than its ranks hold"),
        (lambda state: {**state, "meter": {}}, "a state of MixingMeter must have"),
        (lambda _: [], "the list of states is empty"),
        (lambda _: [None], "must be what its state_dict"),
        (lambda _: None, "must be what its state_dict"),
        (lambda state: [{**state, "world_size": 2}, {**state, "world_size": 2}], "are those of ranks"),
    ],
)
def test_foreign_state_raises(change: Any, complaint: str) -> None:
    """The state of another class, of an older version, or one that is damaged is named, with nothing changed."""
    dataset = make()
    before = dataset.state_dict()
    with pytest.raises(StateMismatchError, match=complaint):
        dataset.load_state_dict(change(saved(make())))
    assert dataset.state_dict() == before


@pytest.mark.parametrize(
    ("change", "complaint"), [("step", r"saved in steps \[6, 7\]"), ("twice", "is held by ranks 0 and 1")]
)
def test_states_of_different_steps_raise(change: str, complaint: str) -> None:
    """A stream could have been read twice, or moved between the two."""
    states = [saved(make(rank=rank, world_size=2)) for rank in range(2)]
    if change == "step":
        states[1]["meter"]["step"] = 7
    else:
        states[1]["plan"]["slots"][0] = states[0]["plan"]["slots"][0]
    with pytest.raises(StateMismatchError, match=complaint):
        resumed(states)


def test_meter_resumes_with_other_slots() -> None:
    """A loader of the user's own: a slot that is open for another modality keeps it, and the counts go by name."""
    meter = MixingMeter(2, ["a", "b"], {"a": 1, "b": 1})
    for slot, modality in enumerate("ab"):
        meter.open(slot, modality)
        meter.pick(slot, rows=2 + slot, tokens=7)
    other = MixingMeter(3, ["c", "b"], {"b": 1, "c": 1})
    other.open(1, "c")
    other.load_state_dict(meter.state_dict())
    assert other.modality_for_reader == [None, "c", None]
    other.pick(1)
    values = other.drain_step_metrics()
    assert (values[PICKS], values[f"{rows.TOKENS.wandb_key}/b"]) == (6, 7)
    assert values[f"{rows.MODALITY_SHARE.wandb_key}/c"] == 1 / 4


def test_meters_of_ranks_are_joined() -> None:
    """For a loader of the user's own: the sums of the interval stay, and the slots are those that it has opened."""
    old = [MixingMeter(1, ["a", "b"], {"a": 1, "b": 1}) for _ in range(3)]
    for slot, meter in enumerate(old):
        meter.open(0, "ab"[slot % 2])
        meter.pick(0, rows=slot + 1, tokens=10)
    new = [MixingMeter(2, ["a", "b"], {"a": 1, "b": 1}) for _ in range(2)]
    for rank, meter in enumerate(new):
        meter.open(1, "b")
        meter.load_resharded([other.state_dict() for other in old], rank, 2)
        meter.pick(1)
    values = [meter.drain_step_metrics() for meter in new]
    assert [value[PICKS] for value in values] == [1 + 3 + 1, 2 + 1]
    assert [value[rows.ACTIVE_READERS.wandb_key] for value in values] == [1, 1]


def test_resume_emits_slot_events() -> None:
    """A slot that the new dataset had opened is closed where the saved one is empty or plays another stream."""
    state = saved(make(at_end="next", slots=["a", "b"], readers=None, weights={"a": 1, "b": 0}), 36)
    events: list[dict[str, Any]] = []
    resumed(state, at_end="next", slots=["a", "b"], readers=None, events=events.append)
    opened: dict[int, str] = {}
    for event in events:
        if event["event"] == "open":
            opened[event["slot"]] = event["stream"]
        elif event["event"] == "close":
            del opened[event["slot"]]
    assert opened == {1: state["plan"]["slots"][1][0]}


def test_resume_keeps_targets_of_step() -> None:
    """The weights in force at the saved pick are those of its step, not those of step 1."""
    schedule = WeightSchedule(((1, {"a": 1.0}), (2, {"b": 1.0})))
    whole, after = (make(weights=schedule, rows_per_step=4, batch_size=2) for _ in range(2))
    picks = iter(whole)
    for _ in range(6):
        next(picks)
    after.load_state_dict(whole.state_dict())
    list(islice(picks, 2)), list(islice(after, 2))
    key = f"{rows.MODALITY_TARGET.wandb_key}/b"
    assert after.drain_step_metrics(2)[key] == whole.drain_step_metrics(2)[key] == 0.5


def test_resharding_keeps_decayed_counts() -> None:
    """The new ranks' decayed counts add up to the old ranks'."""
    old = [make(rank=rank, world_size=2) for rank in range(2)]
    for rank, dataset in enumerate(old):
        list(islice(dataset, 10 + rank))
        dataset.drain_measurements(5)
    states = [dataset.state_dict() for dataset in old]
    new = [make(rank=rank, world_size=3) for rank in range(3)]
    for dataset in new:
        dataset.load_state_dict(states)
    for name in ("counts", "targets"):
        before = [sum(column) for column in zip(*(state["meter"][name] for state in states), strict=True)]
        after = [sum(column) for column in zip(*(dataset.state_dict()["meter"][name] for dataset in new), strict=True)]
        assert after == pytest.approx(before, rel=1e-12)


def test_resharding_keeps_queue_order() -> None:
    """Those that play go first, then the next of each rank; one at a queue's end would never come up otherwise."""
    names = [[f"{rank}{turn}" for turn in "pxyz"] for rank in range(2)]
    plans = [
        {"index": 0, "slots": [(own[0], 3), None], "queues": {"a": [(name, 0) for name in own[1:]]}, "finished": []}
        for own in names
    ]
    states = [
        {"rank": rank, "world_size": 2, "step": 1, "picks_in_step": 0, "streams": {"a": names}, "plan": plan}
        for rank, plan in enumerate(plans)
    ]
    streams = [name for own in names for name in own]
    job = Job(
        modalities=dict.fromkeys(streams, "a"),
        lengths=dict.fromkeys(streams, 9),
        seed=0,
        world_size=1,
        begins_again=True,
    )
    starts = reshard(job, 0, states).starts
    assert [start.stream for start in starts] == ["0p", "1p", "0x", "1x", "0y", "1y", "0z", "1z"]
