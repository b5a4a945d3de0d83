"""The laws of a resume, over any sequence of reading, saving and going on with another configuration."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from otel_train.catalogue import Layout, rows
from otel_train.exceptions import ConfigurationError
from otel_train.mixing import StreamMixingDataset
from tests.support.number_streams import Numbers, held

ALL = {
    f"{modality}{index}": Numbers(f"{modality}{index}", modality, 3 + index) for modality in "abc" for index in range(5)
}
WEIGHTS = st.fixed_dictionaries({modality: st.sampled_from([1, 5, 0]) for modality in "abc"})


@dataclass(frozen=True)
class Config:
    """Configuration of a job."""

    streams: frozenset[str]
    weights: dict[str, int]
    world_size: int
    readers: int
    batch_size: int
    at_end: str
    seed: int


CONFIGS = st.builds(
    Config,
    streams=st.frozensets(st.sampled_from(sorted(ALL)), max_size=9).map(lambda removed: frozenset(ALL) - removed),
    weights=WEIGHTS,
    world_size=st.integers(1, 4),
    readers=st.integers(3, 7),
    batch_size=st.integers(1, 4),
    at_end=st.sampled_from(["next", "cycle", "cycle"]),
    seed=st.integers(0, 2),
)


class ResumedJob(RuleBasedStateMachine):
    """All ranks of a job, with the next row of each stream and the picks of the interval."""

    @initialize(config=CONFIGS)
    def start(self, config: Config) -> None:
        """Start a job, with streams enough for its ranks."""
        self.step, self.in_step, self.together = 1, 0, True
        self.asked: list[int] = []
        self.config = Config(**{**vars(config), "streams": frozenset(ALL), "weights": {"a": 2, "b": 1, "c": 1}})
        self.ranks = self.made(self.config)
        self.row = dict.fromkeys(ALL, 0)
        self.picks, self.tokens = 0, Counter[str]()

    def made(self, config: Config) -> list[StreamMixingDataset]:
        """Return the ranks of a job."""
        streams = [ALL[stream] for stream in sorted(config.streams)]
        modalities = {stream.modality for stream in streams}

        def schedule(step: int) -> dict[str, int]:
            self.asked.append(step)
            return {modality: weight for modality, weight in config.weights.items() if modality in modalities}

        return [
            StreamMixingDataset(
                streams,
                schedule,
                readers=config.readers,
                batch_size=config.batch_size,
                at_end=config.at_end,
                seed=config.seed,
                rank=rank,
                world_size=config.world_size,
            )
            for rank in range(config.world_size)
        ]

    @rule(rows=st.sampled_from([1, 4, 15]))
    def read(self, rows: int) -> None:
        """Read rows on every rank; each is its stream's next."""
        for dataset in self.ranks:
            for row in islice(dataset, rows):
                stream = ALL[row["stream"]]
                assert (row["position"], row["modality"]) == (self.row[stream.id], stream.modality)
                self.row[stream.id] += 1
                if self.config.at_end == "cycle":
                    self.row[stream.id] %= stream.length
                self.picks += 1
                self.tokens[stream.modality] += row["length"]
        self.in_step += rows
        # Where streams end, a rank may read fewer rows than the others, and count fewer steps until it is told of one.
        self.together = self.together and self.config.at_end == "cycle"

    @rule(drain=st.booleans())
    def end_step(self, drain: bool) -> None:
        """End a step; where it is a log step, the interval holds what was read, no more and no less."""
        if drain:
            columns = zip(*(dataset.drain_measurements(self.step) for dataset in self.ranks), strict=True)
            sums = [sum(column) for column in columns]
            layout = Layout(StreamMixingDataset.metrics, self.ranks[0].modalities)
            start = layout.offsets[rows.TOKENS.name]
            tokens = sums[start : start + len(self.ranks[0].modalities)]
            assert sums[0] == self.picks
            assert tokens == [self.tokens[modality] for modality in self.ranks[0].modalities]
            self.picks, self.tokens = 0, Counter()
        else:
            for dataset in self.ranks:
                dataset.end_step(self.step)
        self.step, self.in_step, self.together = self.step + 1, 0, True

    @rule(config=CONFIGS, keep=st.booleans(), same_size=st.booleans(), own_only=st.booleans())
    def resume(self, config: Config, keep: bool, same_size: bool, own_only: bool) -> None:
        """Save and go on with another configuration, which every rank takes or every rank refuses."""
        changes = {**vars(config), "streams": config.streams | self.config.streams if keep else config.streams}
        if same_size:
            changes["world_size"] = self.config.world_size
        config = Config(**changes)
        states = [json.loads(json.dumps(dataset.state_dict())) for dataset in self.ranks]
        step, in_step = divmod(self.in_step, self.config.batch_size)
        refusals = []
        try:
            ranks = self.made(config)
        except ConfigurationError:
            return
        self.asked.clear()
        for dataset in ranks:
            try:
                dataset.load_state_dict(states[dataset.rank] if own_only and same_size else states)
            except (ConfigurationError, ValueError) as error:
                refusals.append(str(error))
        if refusals:
            assert refusals == refusals[:1] * len(ranks)
            return
        self.step, self.in_step = self.step + step, min(in_step, config.batch_size - 1)
        assert not self.together or set(self.asked) == {self.step}
        self.ranks, self.config = ranks, config
        self.row = {stream: self.row.get(stream, 0) for stream in config.streams}
        if config.at_end == "cycle":
            self.row = {stream: row % ALL[stream].length for stream, row in self.row.items()}
        gone = self.tokens.keys() - set(self.ranks[0].modalities)
        for modality in gone:
            del self.tokens[modality]

    @invariant()
    def every_stream_is_on_one_rank_at_its_row(self) -> None:
        """None is lost, none is there twice, and each is in a slot or a queue of its own modality."""
        states = [dataset.state_dict() for dataset in self.ranks]
        ended = {stream for stream, row in self.row.items() if row == ALL[stream].length}
        assert sorted(entry for state in states for entry in held(state)) == sorted(
            (stream, row) for stream, row in self.row.items() if stream not in ended
        )
        assert sorted(stream for state in states for stream in state["plan"]["finished"]) == sorted(ended)
        for dataset, state in zip(self.ranks, states, strict=True):
            playing = [entry and ALL[entry[0]].modality for entry in state["plan"]["slots"]]
            assert playing == [entry and slot for entry, slot in zip(playing, dataset.slots, strict=True)]
            assert dataset.modality_for_reader == playing
            for modality, queue in state["plan"]["queues"].items():
                assert {ALL[stream].modality for stream, _ in queue} <= {modality}
            assert dataset._plan._weights == {m: self.config.weights[m] for m in dataset.modalities}


def test_resume_laws() -> None:
    """No stream is lost or read twice, and no pick is lost, whatever configuration the job goes on with."""
    run_state_machine_as_test(
        ResumedJob,
        settings=settings(
            max_examples=70, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
