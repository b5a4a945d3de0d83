"""Measure what running telemetry takes from the training around it: steps of a millisecond of Python, with and without.

Everything is real: `otel_train.init` starts the sidecar, which exports to a receiver in a process of its own. Blocks
of steps alternate in one process: nothing, ours, and the OTel SDK in the training process. Then ours again, with a real
`otel-train top` on a terminal attached to its rings and, in turn, stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import otel_train
from benchmarks.fresh import in_fresh_process, sidecar_left
from benchmarks.hot_path import meter
from benchmarks.measure import Figures, Goal, Section, Step, quantile, time_steps
from benchmarks.peers import sdk_gauges
from benchmarks.receiver import running_receiver
from tests.support.waiting import wait_until

OFF = "off"
OURS = "otel_train: pick + telemetry.step, a loss; sidecar and receiver running"
SDK = "OTel SDK in the process, 15 gauges"
ALONE, WATCHED = "ours, nobody looks", "ours, otel-train top attached"
WORK = 1e-3
"""Seconds of pure Python in a step."""
SHORT = 10
"""Blocks that make a 99th percentile together: one is too short for it."""
LOOKS = 1.0
"""Seconds of a block with top attached, and of one without: it looks once in each, when it goes on."""
ON_A_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))"


def run(*, quick: bool) -> Section:
    """Measure."""
    rounds, steps = (10, 50) if quick else (200, 100)
    with running_receiver() as receiver, tempfile.TemporaryDirectory() as folder:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_TRAIN_RING_DIR": folder}
        blocks = in_fresh_process(environment, _measure, receiver.endpoint, rounds, steps)
        sidecar_left(Path(folder))
        wait_until(lambda: receiver.requests() > 1, what="the work of the sidecar")
    return _section(blocks, rounds, steps)


def _section(blocks: Mapping[str, list[list[int]]], rounds: int, steps: int) -> Section:
    figures = {
        name: Figures(
            [statistics.median(times) / 1000 for times in rounds_times],
            list(_p99s(rounds_times, 1 if name in (ALONE, WATCHED) else SHORT)),
        )
        for name, rounds_times in blocks.items()
    }
    rows = [["", "median (5 % to 95 %)", "p99", "sum of all steps"]]
    ratios: dict[str, tuple[float, float]] = {}
    for name, other in ((OURS, OFF), (SDK, OFF), (WATCHED, ALONE)):
        middle, low, high = figures[name].ratio(figures[other])
        p99 = statistics.median(a / b for a, b in zip(figures[name].p99s, figures[other].p99s, strict=True))
        total = _mean(blocks[name]) / _mean(blocks[other])
        ratios[name] = middle, p99
        label = name if other == OFF else f"{name}, over the same without"
        rows.append([label, f"{middle:.4f} ({low:.4f} to {high:.4f})", f"{p99:.3f}", f"{total:.4f}"])
    middle, p99 = ratios[OURS]
    del figures[ALONE], figures[WATCHED]
    return Section(
        number=3,
        title="The step beside running telemetry",
        how=(
            f"A step is {WORK * 1e3:.0f} ms of pure Python, always the same work on the same words; {rounds} blocks of "
            f"{steps} steps of each, which take turns at each step: this machine's speed changes within seconds. Our "
            "sidecar exports every step to an OTLP receiver in a third process all the while. The SDK's reader exports "
            f"every 60 s, its default, so that what is seen of it is the setting of gauges. p99: of {SHORT} blocks "
            "together. The second table has the ratios to 'off', block by block; its last column is the mean of all "
            "steps over that of all steps without. Its last row is the step with `otel-train top` on a terminal, which "
            f"is stopped and goes on in turn, {LOOKS:.0f} s each."
        ),
        unit="µs",
        figures=figures,
        ours=OFF,
        goals=[
            Goal("<= 0.5 % of the step", f"{(middle - 1) * 100:+.2f} %", middle <= 1.005),
            Goal("p99 <= 1.02x", f"{p99:.3f}x", p99 <= 1.02),
        ],
        tables=[rows],
        notes=[
            (
                "After a millisecond of other work a step's code runs cold, out of caches that hold the work's: it "
                "takes several times the hot path's time, and so do the peers'. Steps of 10 ms have a tenth of the "
                "share."
            ),
            (
                "Tried and kept: one record where a rank is alone, whose values are the cluster's too, and scalars "
                "that are added without a call: a quarter less of the hot path, and a third to a half of this share. "
                "Less code alone would take more of it away."
            ),
        ],
    )


def _mean(blocks: Sequence[Sequence[int]]) -> float:
    return sum(map(sum, blocks)) / sum(map(len, blocks))


def _p99s(blocks: Sequence[Sequence[int]], together: int) -> Iterator[float]:
    """Yield the 99th percentile of each so many blocks together."""
    for first in range(0, len(blocks), together):
        yield quantile([time for block in blocks[first : first + together] for time in block], 0.99) / 1000


def _measure(endpoint: str, rounds: int, steps: int) -> dict[str, list[list[int]]]:
    """Return the nanoseconds of each step, by contender and block."""
    words = calibrated()
    source = meter(4)
    with otel_train.init(sources=[source]) as telemetry, sdk_gauges(endpoint) as set_gauges:

        def off(_number: int) -> None:
            work(words)

        def ours(number: int) -> None:
            work(words)
            source.pick(number % 4, tokens=64)
            telemetry.step(number, {"train/loss": 1.5})

        def sdk(number: int) -> None:
            work(words)
            set_gauges(number)

        contenders: dict[str, Step] = {OFF: off, OURS: ours, SDK: sdk}
        blocks: dict[str, list[list[int]]] = {name: [] for name in contenders}
        order = list(contenders)
        first = 1
        for number in range(rounds + 1):
            times: dict[str, list[int]] = {name: [] for name in contenders}
            for step in range(first, first + steps):
                for name in order:
                    times[name] += time_steps(contenders[name], step, 1)
                order.append(order.pop(0))
            first += steps
            if number:
                for name in contenders:
                    blocks[name].append(times[name])
        numbers = itertools.count(first)
        blocks |= watched(telemetry.ring_dir, lambda: ours(next(numbers)), max(2, rounds // 4))
        wait_until(lambda: telemetry.flush(10.0), what="the work of the sidecar")
    return blocks


def watched(rings: Path | None, step: Callable[[], None], rounds: int) -> dict[str, list[list[int]]]:
    """Return the nanoseconds of each step, by whether top looks at the rings, and block."""
    blocks: dict[str, list[list[int]]] = {ALONE: [], WATCHED: []}
    with attached(rings) as pid:
        for number in range(rounds + 1):
            for name in (ALONE, WATCHED) if number % 2 else (WATCHED, ALONE):
                os.kill(pid, signal.SIGCONT if name == WATCHED else signal.SIGSTOP)
                times, clock, end = [], time.perf_counter_ns, time.monotonic() + LOOKS
                while time.monotonic() < end:
                    begin = clock()
                    step()
                    times.append(clock() - begin)
                if number:
                    blocks[name].append(times)
    return blocks


@contextlib.contextmanager
def attached(rings: Path | None) -> Iterator[int]:
    """Run `otel-train top` on a terminal of its own during the block, and give its pid."""
    command = [sys.executable, "-c", ON_A_TERMINAL, sys.executable, "-m", "otel_train", "top", str(rings)]
    terminal = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}
    )
    children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children")
    try:
        wait_until(lambda: bool(children.read_text().split()), what="top")
        pid = int(children.read_text().split()[0])
        time.sleep(LOOKS)
        yield pid
        os.kill(pid, signal.SIGCONT)
        if terminal.poll() is not None:
            raise RuntimeError(f"top ended with {terminal.returncode}")
    finally:
        terminal.kill()
        terminal.wait()


def work(words: list[str]) -> int:
    """Split and count words, in the pure Python of the standard library.

    Not a loop of a few instructions: that one the processor learns by heart, and any other code between two steps, not
    telemetry's only, then costs it a tenth.
    """
    counts: dict[str, int] = {}
    for word in shlex.split(" ".join(words)):
        counts[word] = counts.get(word, 0) + 1
    return len(textwrap.wrap(" ".join(sorted(counts, key=lambda word: (counts[word], word)))))


def calibrated() -> list[str]:
    """Return what to work through for `WORK` seconds on this machine when nothing disturbs them."""
    some = [f"w{number * number % 97}-{number % 13}" for number in range(200)]
    words = some
    for _ in range(3):  # not all of the work grows with the words
        best = float("inf")
        for _ in range(100):
            begin = time.perf_counter()
            work(words)
            best = min(best, time.perf_counter() - begin)
        words = (some * 20)[: int(len(words) * WORK / best)]
    return words
