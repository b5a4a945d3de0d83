"""A mixing meter's saved state: fitted to the meter that loads it, and joined when a job goes on with other ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from otel_train.arguments import check_fields, reading_state
from otel_train.exceptions import StateMismatchError
from otel_train.mixing.reader_slots import EMPTY, ReaderSlots
from otel_train.mixing.starvation import Starvation

OWNER = "MixingMeter"
_FIELDS = (
    "modalities",
    "step",
    "counts",
    "targets",
    "previous",
    "last_picked_step",
    "modality_for_reader",
    "surprise",
    "interval",
)
_INTERVAL = ("picks", "unpaired", "restarts", "switches", "new_counts", "new_targets", "tokens")
_BY_MODALITY = ("counts", "targets")
_INTERVAL_BY_MODALITY = ("new_counts", "new_targets", "tokens")


def check_meter_state(state: object) -> None:
    """Check the form of a saved state.

    Raises:
        StateMismatchError: It is none that `MixingMeter.state_dict` returned.
    """
    check_fields(state, _FIELDS, OWNER)
    assert isinstance(state, Mapping)
    check_fields(state["interval"], _INTERVAL, f"{OWNER} (its interval)")
    modalities = len(state["modalities"])
    lists = [state[name] for name in _BY_MODALITY] + [state["interval"][name] for name in _INTERVAL_BY_MODALITY]
    slots = [state[name] for name in ("last_picked_step", "modality_for_reader", "surprise")]
    if any(len(values) != modalities for values in lists) or len({len(values) for values in slots}) != 1:
        raise StateMismatchError(f"the state of {OWNER} has lists of different lengths; it is damaged")


def fitted(state: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
    """Return a saved state with its counts in the order of the present modalities.

    A modality that the saved job did not have begins from zero; the counts of one that is gone are dropped, those over
    all modalities (picks, restarts, switches) stay.

    Raises:
        StateMismatchError: It is not the state of a meter, or no modality of it is given now.
    """
    with reading_state(OWNER):
        check_meter_state(state)
        saved = [str(modality) for modality in state["modalities"]]
        if not set(saved) & set(modalities):
            raise StateMismatchError(
                f"modalities are {list(modalities)}, the saved state has {saved}, none of them; "
                "load the state of this job, or begin without one"
            )
        index = {modality: at for at, modality in enumerate(saved)}

        def by_name(values: Sequence[float]) -> list[float]:
            return [float(values[index[modality]]) if modality in index else 0.0 for modality in modalities]

        return {
            "modalities": list(modalities),
            "step": int(state["step"]),
            "previous": state["previous"] if state["previous"] in modalities else None,
            "last_picked_step": [int(step) for step in state["last_picked_step"]],
            "modality_for_reader": [
                modality if modality in modalities else None for modality in state["modality_for_reader"]
            ],
            "surprise": [float(surprise) for surprise in state["surprise"]],
            **{name: by_name(state[name]) for name in _BY_MODALITY},
            "interval": {
                **{name: float(state["interval"][name]) for name in ("picks", "unpaired", "restarts", "switches")},
                **{name: by_name(state["interval"][name]) for name in _INTERVAL_BY_MODALITY},
            },
        }


def restore_slots(
    state: Mapping[str, Any], index: Mapping[str, int], slots: ReaderSlots, starvation: Starvation
) -> None:
    """Give the slots of a meter the modalities, ages and misses of a state that `fitted` returned.

    A slot that is open for another modality than the saved one keeps its own, and its age begins now.

    Args:
        state: The saved state.
        index: The index of each modality.
        slots: The meter's slots.
        starvation: Its misses, none so far.
    """
    slots.reset_ages(state["step"])
    saved = zip(state["modality_for_reader"], state["last_picked_step"], state["surprise"], strict=True)
    for slot, (modality, picked, surprise) in enumerate(islice(saved, len(slots))):
        if modality is None or slots.modality_for_reader[slot] in (None, modality):
            slots.assign(slot, modality, EMPTY if modality is None else index[modality])
            slots.last_picked_step[slot] = picked
            starvation.surprise[slot] = surprise


def merge_meter_states(states: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> dict[str, Any]:
    """Return the state of a rank of a job of another world size, without slots.

    The decayed counts are dealt in equal parts, so the cluster's divergence goes on unchanged. What an interval has
    counted goes whole from each old rank to one new one, so the cluster's sums are exact.

    Args:
        states: Those of all old ranks, in their order.
        rank: The new rank.
        world_size: The new world size.

    Raises:
        StateMismatchError: One is not the state of a meter, or they were saved at different steps.
    """
    with reading_state(OWNER):
        for state in states:
            check_meter_state(state)
        steps = {int(state["step"]) for state in states}
        if len(steps) > 1:
            raise StateMismatchError(
                f"the states of {OWNER} were saved in steps {sorted(steps)}; load those of one step"
            )
        modalities = list(dict.fromkeys(str(modality) for state in states for modality in state["modalities"]))
        mine = [state["interval"] | {"modalities": state["modalities"]} for state in states[rank::world_size]]
        return {
            "modalities": modalities,
            "step": steps.pop(),
            "previous": None,
            "last_picked_step": [],
            "modality_for_reader": [],
            "surprise": [],
            **{name: [total / world_size for total in _summed(states, name, modalities)] for name in _BY_MODALITY},
            "interval": {
                **{
                    name: math.fsum(interval[name] for interval in mine)
                    for name in ("picks", "unpaired", "restarts", "switches")
                },
                **{name: _summed(mine, name, modalities) for name in _INTERVAL_BY_MODALITY},
            },
        }


def _summed(states: Iterable[Mapping[str, Any]], name: str, modalities: Sequence[str]) -> list[float]:
    columns: dict[str, list[float]] = {modality: [] for modality in modalities}
    for state in states:
        for modality, value in zip(state["modalities"], state[name], strict=True):
            columns[modality].append(value)
    return [math.fsum(columns[modality]) for modality in modalities]
