"""Figures of a delivery, for people and for scripts: what was delivered, what is left, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a directory's delivery ended."""

    DELIVERED = "delivered"
    """All that its rings held is acknowledged, now or before."""
    LEFT = "left"
    """Something is left; the reason says why."""
    SKIPPED = "skipped"
    """It is a job's that was to have no receiver."""
    EMPTY = "empty"
    """It holds no rings."""
    MISSING = "missing"
    """There is no such directory."""


@dataclass(slots=True, kw_only=True)
class RunFigures:
    """Counts of one run's rings in one directory. A job's late values are records of their own."""

    run: str
    attempts: list[int] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    """Machines that the rings were written on."""
    rings: int = 0
    live: int = 0
    """Rings whose rank lives and goes on."""
    delivered: int = 0
    """Records that were acknowledged during the call, of which the receiver has taken a point at least."""
    left: int = 0
    """Records that are not acknowledged, of those that were there at the call."""
    overwritten: int = 0
    """Records that were overwritten, or are torn: nobody has them."""
    points: int = 0
    """Data points that the receiver has taken from this process."""
    refused: int = 0
    """Data points that the receiver refused for good."""
    refusals: dict[str, int] = field(default_factory=dict)
    """The same by reason."""
    refused_records: int = 0
    """Records of which the receiver has taken no point."""


@dataclass(slots=True, kw_only=True)
class DirectoryFigures:
    """Result of the delivery of one directory."""

    directory: str
    state: State
    by: str = ""
    """Who has delivered: `send`, or `another` process that served the directory (its sidecar, or another send)."""
    receiver: str = ""
    """Address of the receiver; empty where none was asked."""
    reason: str = ""
    """Why something is left, skipped or missing, and what to do."""
    refusal: str = ""
    """Receiver's words about points that it refused for good."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason, by name, of each file that is not a ring which this release can read."""
    runs: list[RunFigures] = field(default_factory=list)
    freed: int = 0
    """Bytes of its files that were removed, after all was delivered."""

    def total(self, count: str) -> int:
        """Return the sum of one count over the runs."""
        return sum(getattr(run, count) for run in self.runs)

    @property
    def refusals(self) -> Counter[str]:
        """Points that the receiver refused for good, by reason, over the runs."""
        return sum((Counter(run.refusals) for run in self.runs), Counter[str]())

    def add(self, before: DirectoryFigures) -> None:
        """Count what was done for the directory before.

        Examples:
            >>> from otel_train.send.figures import DirectoryFigures, RunFigures, State
            >>> runs = [RunFigures(run="a", delivered=1, left=left) for left in (3, 2)]
            >>> first, last = (DirectoryFigures(directory="/rings", state=State.LEFT, runs=[run]) for run in runs)
            >>> last.add(first)
            >>> last.total("delivered"), last.total("left")
            (2, 2)
        """
        runs = {run.run: run for run in self.runs}
        for earlier in before.runs:
            run = runs.get(earlier.run)
            if run is None:
                self.runs.append(replace(earlier, left=0))
            else:
                for count in DONE:
                    setattr(run, count, getattr(run, count) + getattr(earlier, count))
                run.refusals = dict(Counter(run.refusals) + Counter(earlier.refusals))
        self.by, self.receiver = self.by or before.by, self.receiver or before.receiver
        self.refusal = self.refusal or before.refusal


DONE = ("delivered", "overwritten", "points", "refused", "refused_records")
COUNTS = ("delivered", "left", "overwritten", "points", "refused", "refused_records")


def as_json(directories: Sequence[DirectoryFigures]) -> dict[str, Any]:
    """Return the figures as JSON has them: sums first, then each directory.

    Examples:
        >>> from otel_train.send.figures import DirectoryFigures, RunFigures, State, as_json
        >>> run = RunFigures(run="my-run", rings=1, delivered=60, points=900)
        >>> figures = DirectoryFigures(directory="/dev/shm/rings", state=State.DELIVERED, runs=[run])
        >>> as_json([figures])["delivered"], as_json([figures])["left"]
        (60, 0)
    """
    sums = {count: sum(figures.total(count) for figures in directories) for count in COUNTS}
    refusals = sum((figures.refusals for figures in directories), Counter[str]())
    return {
        **sums,
        "refusals": dict(refusals),
        "exit_code": exit_code(directories),
        "directories": [asdict(figures) for figures in directories],
    }


def from_json(content: dict[str, Any]) -> DirectoryFigures:
    """Return one directory's figures from what `as_json` made of them."""
    runs = [RunFigures(**run) for run in content["runs"]]
    return DirectoryFigures(**{**content, "state": State(content["state"]), "runs": runs})


def exit_code(directories: Sequence[DirectoryFigures]) -> int:
    """Return 1 where something is left, else 2 where a directory is missing, else 0."""
    states = {figures.state for figures in directories}
    return 1 if State.LEFT in states else 2 if State.MISSING in states else 0
