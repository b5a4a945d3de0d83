"""Time of a step's work within a fault and, in the same process, right before and after it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from tests.support.fault_job import Job, Window

FILE = Path(__file__).parents[2] / ".faults" / "step_times.json"


@dataclass(frozen=True)
class Comparison:
    """A fault's steps beside those of the calm around it; microseconds."""

    fault: str
    inside: int
    outside: int
    median_inside: float
    median_outside: float
    p99_inside: float
    p99_outside: float

    @property
    def line(self) -> str:
        """Return it as a row of the table."""
        return (
            f"{self.fault:<44} {self.inside:>6} {self.outside:>6}"
            f" {self.median_inside:>9.0f} {self.median_outside:>9.0f} {self.median_inside / self.median_outside:>6.2f}"
            f" {self.p99_inside:>9.0f} {self.p99_outside:>9.0f} {self.p99_inside / self.p99_outside:>6.2f}"
        )


HEADING = (
    f"{'microseconds of a step':<44} {'steps':>6} {'calm':>6} {'median':>9} {'calm':>9} {'ratio':>6}"
    f" {'p99':>9} {'calm':>9} {'ratio':>6}"
)
COMPARISONS: list[Comparison] = []


def compare(fault: str, job: Job, window: Window, others: Iterable[Window] = ()) -> None:
    """Note how the steps of a window compare to as long a time before and after it that is in no other window."""
    begin, end = window
    length = end - begin
    inside, outside = [], []
    for rank in job.ranks:
        for step, began, took in job.lines(rank):
            if begin <= began <= end:
                inside.append(took / 1000)
            # The first steps agree on the schema and wait for the other rank.
            elif step > 5 and begin - length <= began <= end + length and not _within(began, others):
                outside.append(took / 1000)
    (p99_inside, p99_outside) = (quantiles(times, n=100, method="inclusive")[-1] for times in (inside, outside))
    COMPARISONS.append(
        Comparison(fault, len(inside), len(outside), median(inside), median(outside), p99_inside, p99_outside)
    )


def _within(moment: int, windows: Iterable[Window]) -> bool:
    return any(begin <= moment <= end for begin, end in windows)


def write(comparisons: Sequence[Comparison]) -> None:
    """Write them as JSON."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps([asdict(comparison) for comparison in comparisons], indent=2) + "\n")
