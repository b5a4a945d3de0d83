"""Section 17: what a fetch and a store of the ledger cost on one rank, beside the build before the native core.

What the ledger adds to the copies of the states is its own work: hashing the ids, looking them up, their order of use,
evictions. There are no exchanges in it: section 5 has those.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import report
from benchmarks.builds import BASELINE, Contender, baseline, running, take_turns, training_core
from benchmarks.contender import CAPACITY, KEYS, WIDTH
from benchmarks.measure import Figures, Goal, Section

HITS, EVICTS = "all hits", "all evictions, each a false one"
STREAMS = {HITS: CAPACITY, EVICTS: 2 * CAPACITY}
LIMITS = {HITS: 60.0, EVICTS: 110.0}
"""Microseconds of its own work."""
OURS, PURE, BASE = "StateLedger", "StateLedger, its twins in Python", f"StateLedger at {BASELINE}"
COPIES = "the copies of the states alone"


def contenders(root: Path) -> dict[str, Contender]:
    """Return the copies, and in each case this build, its twins in Python and the baseline in `root`."""
    core = training_core()
    made = {COPIES: Contender(name="copies", core=core)}
    for case, streams in STREAMS.items():
        made |= {
            f"{OURS}, {case}": Contender(name="ledger", streams=streams, core=core),
            f"{PURE}, {case}": Contender(
                name="ledger", streams=streams, core=core, environment={"OTEL_TRAIN_PURE": "1"}
            ),
            f"{BASE}, {case}": Contender(name="ledger", streams=streams, core=core, root=root),
        }
    return made


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, steps = (4, 12) if quick else (40, 32)
    with baseline() as root, running(contenders(root)) as processes:
        loop = take_turns(processes, "loop", rounds=rounds, steps=steps, cpu=True)
        torch = take_turns(processes, "torch", rounds=rounds, steps=steps // 4, cpu=True)
    goals = []
    for case, limit in LIMITS.items():
        own, before = (own_work(loop, f"{name}, {case}") for name in (OURS, BASE))
        text = f"{own:.0f} µs ({BASELINE}: {before:.0f})"
        goals.append(Goal(f"its own work, {case}: <= {limit:.0f} µs", text, own <= limit))
    (_, *header), *rows = report.table(Section(0, "", "", "µs", torch, f"{OURS}, {HITS}"))
    return Section(
        number=17,
        title="The ledger's own work",
        how=(
            f"One rank, without a group: a fetch and a store of {KEYS} ids in text with states of {WIDTH} float32, "
            f"capacity {CAPACITY}. {STREAMS[HITS]} streams in turn are all hits; {STREAMS[EVICTS]} are all misses, and "
            "each was evicted before. The strings are the same objects each time. A process for each, bound to one "
            f"core, which take turns, {rounds} blocks of {steps} steps, in a tight loop; CPU time of the thread. Its "
            "own work is what it takes over the copies. The second table is after a training step in torch, as in "
            "section 15."
        ),
        unit="µs",
        figures=loop,
        ours=f"{OURS}, {HITS}",
        goals=goals,
        tables=[[["after a training step", *header], *rows]],
    )


def own_work(figures: dict[str, Figures], name: str) -> float:
    """Return what a ledger takes over the copies, the median of the rounds'."""
    return statistics.median(
        own - copies for own, copies in zip(figures[name].medians, figures[COPIES].medians, strict=True)
    )
