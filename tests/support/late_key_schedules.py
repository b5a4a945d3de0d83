"""Schedules of keys: which rank gives which key when, drawn at random, and what must be recorded of it.

The expected values are computed from the schedule alone, call by call, from what docs say of `step`, `add` and `log`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

SUM, MAX = "tokens", "peak"
"""Keys that a session declares, beside those that are means."""
MEANS = ("loss", "lr", "eval/loss", "a/b c")
"""Keys of which it knows nothing before."""
Values = dict[int, dict[str, float]]
"""Values by step and key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of one rank."""

    method: str
    """step (a value of its own), add or log."""
    gap: int
    """Steps that the rank has ended before the call."""
    rank: int
    key: str
    value: float
    weight: float = 1.0
    step: int | None = None
    """Step that it is logged for."""

    @property
    def logged_for(self) -> int:
        """Step that a call of log belongs to."""
        return self.gap if self.step is None else self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What the ranks of a job do, from its first step to the end of the session."""

    log_every: int
    ends: tuple[int, ...]
    """Steps that each rank makes."""
    calls: tuple[Call, ...]

    def of(self, rank: int, gap: int, *methods: str) -> Iterator[Call]:
        """Yield what a rank calls after so many steps."""
        return (call for call in self.calls if (call.rank, call.gap) == (rank, gap) and call.method in methods)

    @property
    def made(self) -> list[Call]:
        """The calls that are made: a rank that has ended makes none."""
        return [call for call in self.calls if call.gap + (call.method == "step") <= self.ends[call.rank]]

    def record_step(self, call: Call, *, own: bool) -> int | None:
        """Return the step of the record that has a call's value; None where there is none.

        A step's values come with the log step that ends its interval. Those of the last interval come with the last
        step: in the rank's own record, and in the cluster's where the ranks close at the same step.
        """
        every, last = self.log_every, self.ends[call.rank]
        end = (call.gap // every + 1) * every
        if end <= last:
            return end
        if not own and last < max(self.ends):
            return None
        return last + 1 if last % every == 0 else last

    def step_values(self, rank: int | None = None) -> Values:
        """Return what is recorded of `step` and `add`, of one rank or of all together."""
        given: dict[int, dict[str, list[Call]]] = defaultdict(lambda: defaultdict(list))
        for call in self.made:
            step = self.record_step(call, own=rank is not None)
            if call.method != "log" and rank in (None, call.rank) and step is not None:
                given[step][call.key].append(call)
        return {step: {key: joined(key, calls) for key, calls in keys.items()} for step, keys in given.items()}

    def logged_calls(self) -> dict[tuple[int, str], list[list[Call]]]:
        """Return the calls of `log` by step and key, those before each reduction together."""
        given: dict[tuple[int, str], dict[int, list[Call]]] = defaultdict(lambda: defaultdict(list))
        for call in self.made:
            if call.method == "log":
                given[call.logged_for, call.key][call.gap // self.log_every].append(call)
        return {where: list(groups.values()) for where, groups in given.items()}


def joined(key: str, calls: list[Call]) -> float:
    """Return the one value of some calls."""
    if key == SUM:
        return sum(call.value for call in calls)
    if key == MAX:
        return max(call.value for call in calls)
    return sum(call.value * call.weight for call in calls) / sum(call.weight for call in calls)


# -- drawing -------------------------------------------------------------------------------------------------------

_numbers = st.integers(-9, 9).map(float)
_weights = st.sampled_from([1.0, 2.0, 5.0])


@st.composite
def schedules(draw: st.DrawFn, ranks: int, *, evaluations: bool = True) -> Schedule:
    """Draw a schedule.

    Args:
        draw: Hypothesis' own.
        ranks: Of the job.
        evaluations: Whether logs are as evaluations are: a reduction brings one step of a key at most.
    """
    every, last = draw(st.sampled_from([1, 1, 3, 10])), draw(st.integers(1, 7))
    ends = [last] * ranks
    if draw(st.booleans()):
        ends[draw(st.integers(1, ranks - 1))] = draw(st.integers(1, last))  # with rank 0 the cluster's records end
    place = {"gap": st.integers(0, last), "rank": st.integers(0, ranks - 1)}
    means = {"key": st.sampled_from(MEANS), "value": _numbers}
    any_key = {"key": st.sampled_from([*MEANS, SUM, MAX]), "value": _numbers}
    adds = st.builds(Call, method=st.just("add"), **place, **any_key, weight=_weights)
    steps = st.builds(Call, method=st.just("step"), **place, **any_key)
    logs = st.builds(
        Call, method=st.just("log"), **place, **means, weight=_weights, step=st.none() | st.integers(0, last + 2)
    )
    calls = draw(st.lists(adds | steps, max_size=12))
    calls += draw(_evaluations(every, last, ranks) if evaluations else st.lists(logs, max_size=8))
    # A dictionary has a key once, and nobody gives a step twice here.
    single = {(call.gap, call.rank, call.key): call for call in calls if call.method == "step"}
    return Schedule(
        log_every=every,
        ends=tuple(ends),
        calls=(*single.values(), *(call for call in calls if call.method != "step")),
    )


@st.composite
def _evaluations(draw: st.DrawFn, every: int, last: int, ranks: int) -> list[Call]:
    calls = []
    for key in draw(st.lists(st.sampled_from([*MEANS, SUM]), max_size=3, unique=True)):
        for number in draw(st.sets(st.integers(0, last // every), max_size=3)):
            gaps = st.integers(number * every, min(last, (number + 1) * every - 1))
            gap, step = draw(gaps), draw(st.none() | st.integers(0, last + 2))
            some = draw(st.lists(st.integers(0, ranks - 1), min_size=1, max_size=ranks + 1))
            calls += [
                Call(
                    method="log", gap=gap if step is None else draw(gaps), rank=rank, key=key, value=draw(_numbers),
                    weight=draw(_weights), step=step,
                )
                for rank in some
            ]  # fmt: skip
    return calls
