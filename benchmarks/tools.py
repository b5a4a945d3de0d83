"""Measure the commands that read a run: time and memory by the length of the run, on rings and on wandb files."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import Goal, Section
from benchmarks.tool_inputs import SCHEMA, Values
from otel_train.ring import Identity, Kind, RingWriter, ring_path

STEPS, QUICK_STEPS = (20_000, 100_000, 1_000_000), (200, 400, 800)
"""Log steps of the runs."""
RANKS, QUICK_RANKS = 512, 8
RANK_STEPS = 512
"""Log steps of each of many ranks."""
LAST = 100
"""Steps before the newest one from which on `dump --since` reads."""
ROUNDS, SHORT = 5, 3.0
"""Rounds of a command that takes less than so many seconds; of others one is measured."""
LIMIT = 180.0
"""Seconds of the processor that a command may take; one that would take longer by a shorter run is left out."""
REFRESHES = 9
FLAT = 1.25
"""Growth of the memory that is still called flat."""
LINEAR = 1.5
"""Growth of the time of a step that is still called linear: caches hold the shorter run."""


class Cost(NamedTuple):
    """Cost of one command."""

    seconds: float
    """By the clock."""
    processor: float
    """Seconds of the processor."""
    mebibytes: float
    """The largest resident set, pages of mapped files among it."""
    is_measured: bool = True
    """Whether it was run, or would have taken longer than `LIMIT` by the cost of a shorter run."""

    def __str__(self) -> str:
        about = "" if self.is_measured else "not run; about "
        return f"{about}{_time(self.processor)} ({_time(self.seconds)}), {self.mebibytes:.0f} MiB"


class Case(NamedTuple):
    """A command, and what is asked of it on the longest run."""

    command: tuple[str, ...]
    """`INPUT` stands for the run, `SINCE` for the step from which on its last ones are."""
    seconds: float
    mebibytes: float | None = None
    source: str = "ring"

    @property
    def name(self) -> str:
        """The command, as a row's name."""
        words = [word for word in self.command if word not in ("INPUT", "-o", "--out", "-")]
        return " ".join(words).replace("SINCE", f"(the last {LAST + 1} steps)")


CASES = (
    Case(("doctor", "INPUT"), 10.0, 300.0),
    Case(("report", "INPUT", "-o", "-"), 15.0, 300.0),
    Case(("dump", "INPUT"), 40.0),
    Case(("dump", "INPUT", "--since", "SINCE"), 0.2),
    Case(("top", "INPUT", "--once"), 0.5),
    Case(("doctor", "INPUT"), 10.0, 300.0, "wandb file"),
    Case(("report", "INPUT", "-o", "-"), 15.0, 300.0, "wandb file"),
    Case(("dump", "INPUT"), 40.0, 300.0, "wandb file"),
)
OF_MANY = (
    Case(("doctor", "INPUT"), 2.0),
    Case(("report", "INPUT", "-o", "-"), 15.0, 300.0),
    Case(("dump", "INPUT", "--since", "SINCE"), 2.0),
    Case(("top", "INPUT", "--once"), 2.0),
)


def cost_of(arguments: Sequence[str]) -> Cost:
    """Run the command once, in a process of its own.

    Raises:
        RuntimeError: It fails.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "otel_train", *arguments], stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):  # 1: doctor has found something
            errors.seek(0)
            raise RuntimeError(f"otel-train {' '.join(arguments)} ended with {process.returncode}: {errors.read()!r}")
    return Cost(took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def median_cost(arguments: Sequence[str], *, quick: bool) -> Cost:
    """Return the cost of a command: the median of `ROUNDS` runs after a first one, or of a single long run."""
    first = cost_of(arguments)
    if first.seconds >= SHORT or quick:
        return first
    costs = [cost_of(arguments) for _ in range(ROUNDS)]
    seconds, processor = (statistics.median(column) for column in list(zip(*costs, strict=True))[:2])
    return Cost(seconds, processor, max(cost.mebibytes for cost in costs))


def too_long(shorter: Sequence[Cost], times: float) -> Cost | None:
    """Return about what a command costs on a run so many times as long as the last of the shorter ones.

    Returns:
        None where that is less than `LIMIT`.
    """
    if not shorter or shorter[-1].processor * times <= LIMIT:
        return None
    last = shorter[-1]
    return Cost(last.seconds * times, last.processor * times, last.mebibytes * times, is_measured=False)


def refresh_cost(folder: Path, ranks: int) -> float:
    """Return the processor's milliseconds of a refresh of `top`, after each rank has written one more step."""
    from otel_train.top.frame import frame  # noqa: PLC0415  # rich, which --quick and the others go without
    from otel_train.top.one_frame import Watch  # noqa: PLC0415

    folder.mkdir()
    identities = [Identity(run_id="live", attempt=1, rank=rank, world_size=ranks, host="node") for rank in range(ranks)]
    rings = [RingWriter(ring_path(folder, one), SCHEMA, one, records=2 * RANK_STEPS) for one in identities]
    values = Values(0)

    def write(step: int) -> None:
        row, now = values.at(step), time.time_ns()
        for rank, ring in enumerate(rings):
            ring.write(step, now, Kind.RANK, row)
            if rank == 0:
                ring.write(step, now, Kind.CLUSTER, row)

    for step in range(1, RANK_STEPS + 1):
        write(step)
    watch = Watch(folder)
    took = []
    for step in range(RANK_STEPS + 1, RANK_STEPS + 1 + REFRESHES):
        write(step)
        begin = time.process_time()
        frame(watch.snapshot(), width=80, height=24)
        took.append((time.process_time() - begin) * 1000)
    watch.close()
    for ring in rings:
        ring.close(step, time.time_ns())
        ring.release()
    return statistics.median(took)


def run(*, quick: bool) -> Section:
    """Measure."""
    lengths, ranks = (QUICK_STEPS, QUICK_RANKS) if quick else (STEPS, RANKS)
    lone: dict[Case, list[Cost]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="otel-train-bench-") as temporary:
        folder = Path(temporary)
        help_cost = median_cost(["--help"], quick=quick)
        for before, steps in zip((1, *lengths), lengths, strict=False):
            inputs = {"ring": folder / f"ring-{steps}", "wandb file": folder / f"state-{steps}"}
            for case in CASES:
                cost = too_long(lone[case], steps / before)
                if cost is None:
                    source = inputs[case.source]
                    if not source.exists():
                        _make(source, "--steps", steps, *["--wandb"] * (case.source == "wandb file"))
                    cost = median_cost(_arguments(case, source, steps), quick=quick)
                lone[case].append(cost)
        _make(folder / "many", "--steps", RANK_STEPS, "--ranks", ranks)
        many = {case: median_cost(_arguments(case, folder / "many", RANK_STEPS), quick=quick) for case in OF_MANY}
        refresh = refresh_cost(folder / "live", ranks)
    header = ["command", "input", *(f"{steps:,} steps" for steps in lengths), "time a step, the longest to the middle"]
    rows = [
        [case.name, case.source, *map(str, costs), f"{_growth(costs, lengths):.2f}x"] for case, costs in lone.items()
    ]
    others = [[case.name, f"{ranks} rings of {RANK_STEPS} steps", str(cost)] for case, cost in many.items()]
    others += [
        ["--help", "", str(help_cost)],
        ["a refresh of top, of the processor", f"{ranks} rings", f"{refresh:.0f} ms"],
    ]
    goals = [goal for case, costs in lone.items() for goal in _goals(case, costs, f"{lengths[-1]:,} steps", help_cost)]
    slowest = max(_growth(costs, lengths) for costs in lone.values() if costs[-1].is_measured)
    goals.append(
        Goal(
            f"a step of the longest run at most {LINEAR}x one of the middle run",
            f"{slowest:.2f}x",
            slowest <= LINEAR,
        )
    )
    goals += [goal for case, cost in many.items() for goal in _goals(case, [cost], f"{ranks} ranks", help_cost)]
    goals.append(
        Goal(f"a refresh of top at {ranks} ranks within 50 ms of the processor", f"{refresh:.0f} ms", refresh <= 50)
    )
    goals.append(
        Goal("otel-train --help within 150 ms", f"{help_cost.processor * 1000:.0f} ms", help_cost.processor <= 0.15)
    )
    return Section(
        number=19,
        title="Tools on a long run",
        how=(
            f"Each command in a process of its own, files cached: the median of {ROUNDS} runs, or one run where it "
            f"takes {SHORT:g} s or more. Time of the processor, which the goals are about and an idle machine's clock "
            "shows, time by the clock of this one, and the largest resident set, pages of mapped files among it. A "
            "ring has a rank's own record and the cluster's of each step, 38 values each; the wandb file has a row for "
            "each step. The product's own writers make both (`benchmarks/tool_inputs.py`). `--since` reads the last "
            f"{LAST + 1} steps. What would take more than {LIMIT:g} s by a shorter run is not run."
        ),
        unit="s",
        goals=goals,
        tables=[[header, *rows], [["command", "input", "cost"], *others]],
    )


def _make(folder: Path, *arguments: object) -> None:
    """Make a run in a process of its own: the pages that it touches would count as ours, and as our children's."""
    command = [sys.executable, "-m", "benchmarks.tool_inputs", str(folder), *map(str, arguments)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])


def _arguments(case: Case, source: Path, steps: int) -> list[str]:
    replaced = {"INPUT": str(source), "SINCE": str(steps - LAST)}
    return [replaced.get(word, word) for word in case.command]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _growth(costs: Sequence[Cost], lengths: Sequence[int]) -> float:
    """Return the processor's time of a step of the longest run over that of the middle one, without the start's."""
    first, middle, longest = (cost.processor for cost in costs)
    steps, more = lengths[1] - lengths[0], lengths[2] - lengths[1]
    return (longest - middle) / more / ((middle - first) / steps) if middle > 1.2 * first else 1.0


def _goals(case: Case, costs: Sequence[Cost], of: str, start: Cost) -> list[Goal]:
    cost, about = costs[-1], "" if costs[-1].is_measured else "about "
    what = f"{case.name} of {of}" + ("" if case.source == "ring" else f" in a {case.source}")
    if "--since" in case.command:
        beyond = cost.processor - start.processor
        goals = [Goal(f"{what} within {case.seconds:g} s beyond the start", _time(beyond), beyond <= case.seconds)]
    else:
        goals = [
            Goal(f"{what} within {case.seconds:g} s", about + _time(cost.processor), cost.processor <= case.seconds)
        ]
    if case.mebibytes is not None:
        fits = cost.mebibytes <= case.mebibytes
        goals.append(Goal(f"{what} within {case.mebibytes:g} MiB", f"{about}{cost.mebibytes:.0f} MiB", fits))
    elif case.command == ("dump", "INPUT"):
        growth = cost.mebibytes / costs[0].mebibytes
        goals.append(Goal(f"memory of {what} at most {FLAT:g}x the shortest run's", f"{growth:.2f}x", growth <= FLAT))
    return goals
