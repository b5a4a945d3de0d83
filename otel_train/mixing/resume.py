"""Go on from a saved job: which rank has which stream now, and where each goes on. Pure: the same on every rank."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from otel_train.arguments import check_fields, reading_state, shown_names
from otel_train.exceptions import StateMismatchError
from otel_train.mixing.dealing import StreamStart, deal, shuffled
from otel_train.mixing.meter_state import check_meter_state, fitted, merge_meter_states

logger = logging.getLogger(__name__)

OWNER = "StreamMixingDataset"
_FIELDS = ("world_size", "rank", "step", "picks_in_step", "streams", "plan", "meter")
_PLAN_FIELDS = ("index", "slots", "queues", "finished")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The arguments of the present job."""

    modalities: Mapping[str, str]
    """The modality of each stream."""
    lengths: Mapping[str, int]
    """The number of rows of each stream."""
    seed: int
    """Seed of the order of new streams."""
    world_size: int
    """Number of ranks that share the streams."""
    begins_again: bool
    """Whether a stream that ran out is read again."""

    def by_modality(self, starts: Sequence[StreamStart]) -> list[list[StreamStart]]:
        """Return the streams of each modality, in the modalities' order."""
        groups: dict[str, list[StreamStart]] = {modality: [] for modality in sorted(set(self.modalities.values()))}
        for start in starts:
            groups[self.modalities[start.stream]].append(start)
        return list(groups.values())

    def unread(self, streams: Sequence[str]) -> list[StreamStart]:
        """Return streams at their first row, in an order that the seed decides."""
        return [StreamStart(stream) for stream in shuffled(streams, self.seed)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The streams and counts that a rank goes on with."""

    starts: Sequence[StreamStart]
    """Its streams in the order in which they shall be read."""
    finished: Sequence[str] = ()
    """Its streams that were read to their end and are not read again."""
    index: int = 0
    """The rank's running number of picks."""
    step: int = 1
    """The step that is being made."""
    picks_in_step: int = 0
    """Number of this rank's picks that it has already."""
    owners: Mapping[str, int]
    """The rank of each stream of the job."""
    active: Sequence[Sequence[str]]
    """The streams of each rank that still have rows, as far as this rank can know."""
    moved: int = 0
    """Number of streams that were another rank's."""
    new: int = 0
    """Number of streams that the saved job did not have."""
    removed: Sequence[str] = ()
    """Streams of the saved job that are not given now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """A saved job as a rank goes on with it."""

    share: Share
    """Streams of this rank and of the others."""
    meter: dict[str, Any]
    """State of the meter, with the present modalities."""
    playing: Sequence[str | None] = ()
    """Stream of each slot in this rank's own state; none where the saved job had another world size."""
    resharded: Mapping[str, Any] | None = None
    """A state of the saved job that had another world size."""


def begin(job: Job, rank: int) -> Share:
    """Return what a rank of a new job begins with."""
    hands = deal(job.by_modality(job.unread(list(job.modalities))), [0] * job.world_size)
    active = [[start.stream for start in hand] for hand in hands]
    return Share(starts=hands[rank], owners=_owners(active), active=active)


def checked_states(given: object) -> list[Mapping[str, Any]]:
    """Return saved states of a dataset, one or a list of them, whose form is right.

    Raises:
        StateMismatchError: There is none, or one is the state of something else or of another version.
    """
    states = list(given) if isinstance(given, list | tuple) else [given]
    if not states:
        raise StateMismatchError("the list of states is empty; give one of each rank of the saved job")
    with reading_state(OWNER):
        for state in states:
            check_fields(state, _FIELDS, OWNER)
            assert isinstance(state, Mapping)
            check_fields(state["plan"], _PLAN_FIELDS, f"{OWNER} (its plan)")
            check_meter_state(state["meter"])
    return [state for state in states if isinstance(state, Mapping)]


def resume(job: Job, rank: int, modalities: Sequence[str], states: Sequence[Mapping[str, Any]]) -> Resumption:
    """Return what a rank goes on with: from its own state, or from those of all ranks of another world size.

    Raises:
        StateMismatchError: As `go_on` and `reshard`.
    """
    own = next((state for state in states if (state["rank"], state["world_size"]) == (rank, job.world_size)), None)
    if own is not None:
        return Resumption(
            share=go_on(job, rank, own),
            meter=fitted(own["meter"], modalities),
            playing=[entry and entry[0] for entry in own["plan"]["slots"]],
        )
    share = reshard(job, rank, states)
    merged = merge_meter_states([state["meter"] for state in states], rank, job.world_size)
    return Resumption(share=share, meter=fitted(merged, modalities), resharded=states[0])


def go_on(job: Job, rank: int, state: Mapping[str, Any]) -> Share:
    """Return what a rank goes on with from its own state, where there are as many ranks as there were.

    Every stream stays on its rank, at its row, and in its slot where that is still one of its modality. New streams go
    to the ranks that have the fewest.

    Raises:
        StateMismatchError: The state contradicts what the job is given now.
    """
    with reading_state(OWNER):
        saved = _saved_streams(state)
        _check_streams(job, {stream: modality for stream, (modality, _) in saved.items()})
        owners = {stream: owner for stream, (_, owner) in saved.items() if stream in job.modalities}
        counts = Counter(owners.values())
        new = job.unread([stream for stream in job.modalities if stream not in saved])
        hands = deal(job.by_modality(new), [counts[other] for other in range(job.world_size)])
        for other, hand in enumerate(hands):
            owners.update((start.stream, other) for start in hand)
        entries = [start for _, _, start in _entries(state["plan"])]
        _check_distinct([(start.stream, rank) for start in entries])
        ended = [str(stream) for stream in state["plan"]["finished"]]
        own = {stream for stream, (_, owner) in saved.items() if owner == rank}
        _check_same(own, [*(start.stream for start in entries), *ended])
        active, finished = _begin_again(job, entries, ended)
        return Share(
            starts=[*_checked_rows(job, active), *hands[rank]],
            finished=finished,
            index=int(state["plan"]["index"]),
            step=int(state["step"]),
            picks_in_step=int(state["picks_in_step"]),
            owners=owners,
            active=_by_rank(owners, job.world_size),
            new=len(new),
            removed=[stream for stream in saved if stream not in job.modalities],
        )


def reshard(job: Job, rank: int, states: Sequence[Mapping[str, Any]]) -> Share:
    """Return what a rank goes on with from the states of all ranks of a job of another world size.

    All streams are dealt anew, those that were playing first: none twice, none lost, each at its row.

    Raises:
        StateMismatchError: A rank's state is missing or given twice, the states are not of one step, or they
            contradict what the job is given now.
    """
    with reading_state(OWNER):
        _check_complete(states)
        saved = {stream: modality for stream, (modality, _) in _saved_streams(states[0]).items()}
        _check_streams(job, saved)
        # Those that wait keep their turn: the queues of the ranks are joined turn by turn, not one after the other.
        entries = sorted(
            (
                (not playing, turn, int(state["rank"]), replace(start, slot=None))
                for state in states
                for playing, turn, start in _entries(state["plan"])
            ),
            key=lambda entry: entry[:3],
        )
        _check_distinct([(start.stream, owner) for _, _, owner, start in entries])
        before = {start.stream: owner for _, _, owner, start in entries}
        ended = sorted({str(stream) for state in states for stream in state["plan"]["finished"]})
        _check_same(saved.keys(), [*before, *ended])
        active, finished = _begin_again(job, [start for *_, start in entries], ended)
        new = job.unread([stream for stream in job.modalities if stream not in saved])
        hands = deal(job.by_modality([*_checked_rows(job, active), *new]), [0] * job.world_size)
        streams = [[start.stream for start in hand] for hand in hands]
        owners = _owners(streams)
        return Share(
            starts=hands[rank],
            finished=finished if rank == 0 else (),
            index=max(int(state["plan"]["index"]) for state in states),
            step=max(int(state["step"]) for state in states),
            picks_in_step=max(int(state["picks_in_step"]) for state in states),
            owners={**dict.fromkeys(finished, 0), **owners},
            active=streams,
            moved=sum(owners.get(stream, owner) != owner for stream, owner in before.items()),
            new=len(new),
            removed=[stream for stream in saved if stream not in job.modalities],
        )


def log_resume(job: Job, resumed: Resumption) -> None:
    """Log the changes that a resume has made."""
    share, resharded = resumed.share, resumed.resharded
    if resharded is not None:
        logger.info(
            "resharded: world size %d -> %d, %d streams, %d moved to another rank, at step %d",
            resharded["world_size"],
            job.world_size,
            len(job.modalities) - share.new - len(share.finished),
            share.moved,
            int(resharded["meter"]["step"]) - 1,
        )
    if share.new:
        logger.info("%d streams that the saved job did not have are read from their first row", share.new)
    if share.removed:
        logger.warning(
            "%d streams of the saved job are not given now and are dropped: %s",
            len(share.removed),
            shown_names(share.removed),
        )


def saved_streams(modalities: Mapping[str, str], owners: Mapping[str, int], world_size: int) -> dict[str, Any]:
    """Return all streams of a job as its state has them: by modality, the ids that each rank has."""
    streams: dict[str, list[list[str]]] = {
        modality: [[] for _ in range(world_size)] for modality in sorted(set(modalities.values()))
    }
    for stream, owner in owners.items():
        streams[modalities[stream]][owner].append(stream)
    return streams


def _saved_streams(state: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the modality and the rank of each stream of a saved job."""
    return {
        str(stream): (str(modality), owner)
        for modality, ranks in state["streams"].items()
        for owner, streams in enumerate(ranks)
        for stream in streams
    }


def _entries(plan: Mapping[str, Any]) -> Iterator[tuple[bool, int, StreamStart]]:
    """Yield (whether it plays, its turn, the stream and its row) of what a rank held."""
    for slot, entry in enumerate(plan["slots"]):
        if entry is not None:
            yield True, 0, StreamStart(str(entry[0]), int(entry[1]), playing=True, slot=slot)
    for queue in plan["queues"].values():
        for turn, (stream, position) in enumerate(queue):
            yield False, turn, StreamStart(str(stream), int(position))


def _begin_again(job: Job, entries: Sequence[StreamStart], ended: Sequence[str]) -> tuple[list[StreamStart], list[str]]:
    """Return the streams that go on and those that don't; one that ran out begins again where the job says so now."""
    active = [start for start in entries if start.stream in job.modalities]
    ended = [stream for stream in ended if stream in job.modalities]
    if job.begins_again:
        return [*active, *(StreamStart(stream) for stream in ended)], []
    return active, ended


def _owners(hands: Sequence[Sequence[str]]) -> dict[str, int]:
    return {stream: rank for rank, hand in enumerate(hands) for stream in hand}


def _by_rank(owners: Mapping[str, int], world_size: int) -> list[list[str]]:
    hands: list[list[str]] = [[] for _ in range(world_size)]
    for stream, rank in owners.items():
        hands[rank].append(stream)
    return hands


def _check_complete(states: Sequence[Mapping[str, Any]]) -> None:
    world_size = int(states[0]["world_size"])
    ranks = sorted(int(state["rank"]) for state in states)
    if ranks != list(range(world_size)) or {int(state["world_size"]) for state in states} != {world_size}:
        raise StateMismatchError(
            f"the saved job had {world_size} ranks, the states given are those of ranks {ranks}; give one of each"
        )


def _check_same(listed: AbstractSet[str], held: Sequence[str]) -> None:
    differing = listed ^ set(held)
    if differing or len(held) > len(listed):
        raise StateMismatchError(
            f"the saved state lists other streams than its ranks hold ({shown_names(differing)}); "
            "give what state_dict() returned, unchanged"
        )


def _check_streams(job: Job, saved: Mapping[str, str]) -> None:
    if not any(stream in job.modalities for stream in saved):
        raise StateMismatchError(
            f"none of the {len(saved)} streams of the saved state is given now: it has {shown_names(saved)}, this job "
            f"{shown_names(job.modalities)}; load the state of this job, or begin without one"
        )
    for stream, modality in saved.items():
        present = job.modalities.get(stream, modality)
        if present != modality:
            raise StateMismatchError(
                f"stream {stream!r} has the modality {present!r}, the saved state has it as {modality!r}; "
                "give it the saved modality, or another id to begin it anew"
            )


def _check_distinct(streams: Sequence[tuple[str, int]]) -> None:
    owners: dict[str, int] = {}
    for stream, rank in streams:
        if stream in owners:
            raise StateMismatchError(
                f"stream {stream!r} is held by ranks {owners[stream]} and {rank}; the states are not of one step"
            )
        owners[stream] = rank


def _checked_rows(job: Job, starts: Sequence[StreamStart]) -> Sequence[StreamStart]:
    for start in starts:
        if not 0 <= start.position < job.lengths[start.stream]:
            raise StateMismatchError(
                f"stream {start.stream!r} has {job.lengths[start.stream]} rows, the saved state goes on at row "
                f"{start.position}; give the data that the job was saved with, or another id to begin it anew"
            )
    return starts
