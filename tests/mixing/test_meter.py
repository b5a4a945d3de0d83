"""The meter against a model recomputation from the definitions, and what it refuses."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing import MixingMeter
from tests.support.replay import Drain, RankReplay, by_modality, join

MODALITIES = ("a", "b", "c")
ACTIONS = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 2), st.sampled_from(MODALITIES)),
    st.tuples(st.just("pick"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("restart"), st.integers(0, 2), st.sampled_from(MODALITIES)),
    st.tuples(st.just("close"), st.integers(0, 2), st.none()),
    st.tuples(st.just("weights"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("drain"), st.none(), st.none()),
    st.tuples(st.just("skip"), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@example(
    actions=[
        ("pick", 0, 3),
        ("weights", 3, 1),
        ("pick", 1, 3),
        ("restart", 1, "c"),
        ("drain", None, None),
        ("weights", 0, 3),
        ("pick", 2, 3),
    ],
    horizon=1.0,
    save=False,
)
@given(
    actions=st.lists(ACTIONS, max_size=60),
    horizon=st.sampled_from([1.0, 20.0, 4096.0]),
    save=st.booleans(),
)
def test_values_match_definitions(actions: list[tuple[str, Any, Any]], horizon: float, save: bool) -> None:
    """Any order of events, over any intervals, saved and loaded in the midst of one or not."""
    meter = MixingMeter(3, MODALITIES, dict.fromkeys(MODALITIES, 1), horizon=horizon)
    model, step, held = RankReplay(horizon, ring_size=1), 1, dict[int, str]()
    weights = dict.fromkeys(MODALITIES, 1)

    def feed(event: str, **fields: Any) -> Drain | None:
        return model.feed({"event": event, "step": step, **fields})

    def do(action: str, slot: int, value: Any) -> None:
        """Do an action to the meter, and tell the model of it."""
        match action:
            case "open":
                held[slot] = value
                meter.open(slot, value)
                feed("open", slot=slot)
            case "pick":
                meter.pick(slot, rows=value, tokens=10 * value)
                for _ in range(value):
                    feed("pick", slot=slot, modality=held[slot], tokens=10)
            case "restart":
                held[slot] = value
                meter.restart(slot, value)
                feed("restart", slot=slot)
            case "close":
                del held[slot]
                meter.close(slot)
                feed("close", slot=slot)
            case "weights":
                weights.update(a=slot, b=value, c=1)
                meter.set_weights(weights)
                feed("weights", weights=weights)

    feed("weights", weights=weights)
    opening = [("open", slot, modality) for slot, modality in enumerate(MODALITIES)]
    for action, slot, value in [*opening, *actions, ("drain", None, None)]:
        if (action in ("pick", "restart", "close") and slot not in held) or (action == "open" and slot in held):
            continue
        if action == "skip":
            meter.end_step(step)
        elif action == "drain":
            drain = feed("drain")
            assert drain is not None
            expected = {**join((drain,)), **by_modality(drain, MODALITIES)}
            drained = meter.drain_step_metrics(step)
            compared = {key: value for key, value in expected.items() if key.startswith("stream_mixing/")}
            assert {key: drained[key] for key in compared} == pytest.approx(compared, rel=1e-9, abs=1e-12)
        else:
            do(action, slot, value)
        step += action in ("drain", "skip")
        if save:
            state = meter.state_dict()
            meter = MixingMeter(3, MODALITIES, {"a": 1}, horizon=horizon)
            meter.load_state_dict(state)
            meter.set_weights(weights)


def test_unpicked_reader_ages_from_opening() -> None:
    """The slot's first step counts, not the job's."""
    meter = MixingMeter(2, ["a"], {"a": 1})
    meter.open(0, "a")
    for step in range(1, 9):
        if step == 4:
            meter.open(1, "a")
        meter.end_step(step)
    assert meter.drain_step_metrics(9)[rows.STALENESS_MEAN.wandb_key] == (8 + 5) / 2


def test_late_first_step_sets_clock() -> None:
    """The first step that the meter hears of is where its clock is set."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    meter.pick(0)
    assert meter.drain_step_metrics(1000)[rows.STALENESS_MAX.wandb_key] == 0
    assert meter.drain_step_metrics(1004)[rows.STALENESS_MAX.wandb_key] == 4


@pytest.mark.parametrize("logged", [True, False])
def test_pick_belongs_to_next_end(logged: bool) -> None:
    """Steps may be told of with a stride, whether or not they are log steps."""
    meter = MixingMeter(2, ["a"], {"a": 1})
    meter.open(0, "a")
    meter.open(1, "a")
    for step in (10, 20, 30):
        meter.pick(0)
        (meter.drain_step_metrics if logged else meter.end_step)(step)
    meter.pick(0)
    assert meter.drain_step_metrics(40)[rows.STALENESS_MEAN.wandb_key] == 15  # of 0 and 30
    assert meter.last_picked_step == [40, 10]


def test_starvation_follows_probability() -> None:
    """With a chance of 1/2, 19 misses have a probability above 1e-6 and 20 one below; weight 0 explains any age."""
    for weights, starved in (({"a": 1, "b": 1}, 1), ({"a": 1, "b": 0}, 0)):
        meter = MixingMeter(2, ["a", "b"], weights)
        meter.open(0, "a")
        meter.open(1, "b")
        meter.pick(0, rows=19)
        assert meter.drain_step_metrics()[rows.STARVED_READERS.wandb_key] == 0
        meter.pick(0)
        assert meter.drain_step_metrics()[rows.STARVED_READERS.wandb_key] == starved


def test_misses_outlive_weight_changes() -> None:
    """10 misses at a chance of 1/2 and 4 at 3/4 have a probability above 1e-6, with 5 below, until a pick ends it."""
    meter = MixingMeter(2, ["a", "b"], {"a": 1, "b": 1})
    meter.open(0, "a")
    meter.open(1, "b")
    starved = []
    for rows_picked, weights in ((10, {"a": 1, "b": 3}), (4, None), (1, None), (0, None)):
        meter.pick(0, rows=rows_picked)
        starved.append(meter.drain_step_metrics()[rows.STARVED_READERS.wandb_key])
        meter.set_weights(weights or {"a": 1, "b": 3})
    meter.pick(1)
    starved.append(meter.drain_step_metrics()[rows.STARVED_READERS.wandb_key])
    assert starved == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((-1, ["a"], {"a": 1}), "slots must be a whole number that is not negative, got -1"),
        ((1, ["a", "a"], {"a": 1}), "modalities"),
        ((2.0, ["a"], {"a": 1}), "slots must be"),
        ((1, "ab", {"a": 1}), "modalities must be names, distinct and at least one, got 'ab'"),
        ((1, [], {"a": 1}), "modalities"),
        ((1, [1], {1: 1}), "modalities"),
        ((1, ["a"], 5), "weights must map each modality to a number, got int 5"),
        ((1, ["a"], {"a": True}), r"weights\['a'\] must be"),
        ((1, ["a"], {"a": "1"}), r"weights\['a'\] must be"),
        ((1, ["a", "b"], {"a": 1e308, "b": 1e308}), "weights must hold a positive number and have a finite sum"),
        ((1, ["a"], {"b": 1}), "weights names the modality 'b'"),
        ((1, ["a"], {"a": -1}), r"weights\['a'\] must be a finite number"),
        ((1, ["a"], {"a": math.nan}), r"weights\['a'\] must be a finite number"),
        ((1, ["a"], {"a": 0}), "weights must hold a positive number"),
    ],
)
def test_wrong_arguments_raise(arguments: tuple[Any, ...], complaint: str) -> None:
    """The message says which field breaks a rule."""
    with pytest.raises(ConfigurationError, match=complaint):
        MixingMeter(*arguments)


@pytest.mark.parametrize("horizon", [0, -1, math.nan, math.inf, "4096", None, True])
def test_wrong_horizon_raises(horizon: Any) -> None:
    """An infinite one can't stand in a ring, and would never forget."""
    with pytest.raises(ConfigurationError, match=r"^horizon must be .*4096 picks is the default"):
        MixingMeter(1, ["a"], {"a": 1}, horizon=horizon)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((-1,), "slot must be a whole number that is not negative, got -1; this meter has slots 0 to 2"),
        ((7,), "slot must be 0 to 2, got 7"),
        ((0.0,), "slot must be"),
        ((True,), "slot must be"),
        (("0",), "slot must be"),
        ((None,), "slot must be"),
        ((2,), r"slot 2 was picked but holds no stream; call open\(slot, modality\) first"),
        ((0, -1), "rows must be a whole number that is not negative, got -1"),
        ((0, 0.5), "rows must be"),
        ((0, 10**400), "rows must be at most 2"),
        ((0, 10**300), "rows must be at most 2"),
        ((0, 1, -1), "tokens must be a finite number that is not negative, got -1"),
        ((0, 1, math.nan), "tokens must be a finite number that is not negative, got nan"),
        ((0, 1, math.inf), "tokens must be"),
        ((0, 1, 10**400), "tokens must be"),
        ((0, 1, "12"), "tokens must be"),
        ((0, 1, None), "tokens must be"),
        ((0, 1, torch.tensor([1, 2])), "tokens must be"),
        ((0, 1, torch.tensor(math.nan)), "tokens must be"),
        ((0, 1, torch.zeros((), device="meta")), "tokens must be"),
    ],
)
def test_wrong_pick_counts_nothing(arguments: tuple[Any, ...], complaint: str) -> None:
    """The message has the argument, its rule and the value; the meter goes on as if there had been no call."""
    meter, untouched = (MixingMeter(3, ["a"], {"a": 1}) for _ in range(2))
    for one in (meter, untouched):
        one.open(0, "a")
        one.open(1, "a")
    with pytest.raises(ConfigurationError, match=complaint):
        meter.pick(*arguments)
    for one in (meter, untouched):
        one.pick(1, 2, tokens=3)
    assert meter.drain_measurements(4) == untouched.drain_measurements(4)


@pytest.mark.parametrize(
    "tokens", [5, 5.0, torch.tensor(5), torch.tensor([[5.0]]), torch.tensor([5], dtype=torch.int32)]
)
def test_tokens_accept_a_tensor(tokens: Any) -> None:
    """A tensor such as `batch["length"].sum()` is taken; the record holds numbers."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    meter.pick(torch.tensor(0), rows=torch.tensor(2), tokens=tokens)  # type: ignore[arg-type]
    values = meter.drain_measurements()
    assert {type(value) for value in values} <= {float, int}
    assert meter.drain_step_metrics()[f"{rows.TOKENS.wandb_key}/a"] == 0
    assert values[0] == 2
    assert 5 in values


@pytest.mark.parametrize("slot", [-1, 3, None, 0.5])
def test_wrong_slot_raises(slot: Any) -> None:
    """Opening, restarting and closing count slots as `pick` does."""
    meter = MixingMeter(3, ["a"], {"a": 1})
    for call in (partial(meter.open, modality="a"), meter.restart, meter.close):
        with pytest.raises(ConfigurationError, match="slot must be"):
            call(slot)
    with pytest.raises(ConfigurationError, match="slot 0 was restarted but holds no stream"):
        meter.restart(0)
    with pytest.raises(ConfigurationError, match="modality of slot 0 must be one of a, got 'b'"):
        meter.open(0, "b")


def test_state_of_other_modalities_raises() -> None:
    """Counts must not be taken for another modality's."""
    with pytest.raises(StateMismatchError, match="modalities"):
        MixingMeter(1, ["a"], {"a": 1}).load_state_dict(MixingMeter(1, ["b"], {"b": 1}).state_dict())


def test_saved_meter_knows_previous_pick() -> None:
    """The first pair of an interval is made with the last pick of the one before."""
    meter = MixingMeter(2, ["a", "b"], {"a": 1, "b": 1})
    meter.open(0, "a")
    meter.open(1, "b")
    meter.pick(0)
    meter.drain_measurements()
    meter.pick(1)
    loaded = MixingMeter(2, ["a", "b"], {"a": 1, "b": 1})
    loaded.load_state_dict(meter.state_dict())
    loaded.pick(1)
    assert loaded.drain_step_metrics()[rows.SWITCH_RATE.wandb_key] == 1 / 2
