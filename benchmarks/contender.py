"""One contender in a process of its own, with nothing of the others in it: runs blocks of steps when its parent asks.

    PYTHONSAFEPATH=1 PYTHONPATH=CHECKOUT python benchmarks/contender.py '{"contender": "otel_train", ...}'

It is run by path, and finds `otel_train` where PYTHONPATH says, so that it runs builds of other commits too: it imports
of the benchmarks only what sets up a peer. A line of JSON on its standard input asks for a block, a line on its
standard output answers; the end of its input ends it, and it looks then whether its steps have done their work.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

Step = Callable[[int], object]
LOSS = 1.5
NOTHING = "nothing"
WORK = 1e-3
"""Seconds of pure Python in a step."""
FIRST_READERS = 4
WORDS = [f"w{number * number % 97}-{number % 13}" for number in range(200)] * 20
KEYS, WIDTH, CAPACITY = 256, 512, 1024
"""A ledger's step: ids, float32 of a state, and entries that the ledger holds."""
WARM = 3
"""Steps in front of each block that do not count: another contender's code and data are in the caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a contender is, as its parent says."""

    contender: str
    """Name in `CONTENDERS`."""
    folder: str
    """Empty folder for its rings and files."""
    streams: int = 0
    """Ids that a ledger's steps go through in turn."""
    core: int | None = None
    """CPU that the training thread is bound to; None leaves it free."""
    bound_first: bool = False
    """Whether it is bound before the contender is set up, as a launcher that binds ranks has it, or only then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of steps that is asked for."""

    before: str
    """What each step comes after: a name in `SURROUNDINGS`."""
    count: int
    """Steps that are timed."""
    steps: tuple[str, ...]
    """What takes turns at each step, by name: the contender's own name, or `NOTHING`."""
    readers: int = FIRST_READERS
    """Open slots of the meter (K); another number than the block's before begins another session."""
    words: int = 0
    """Words that the Python work goes through, so that processes do the same; 0 has this one choose by the clock."""
    cpu: bool = False
    """Whether the thread's CPU time is read: of steps that are longer than what a busy machine gives at a time."""
    whole: bool = False
    """Whether what a step comes after is timed with it."""


@contextlib.contextmanager
def nothing(_options: Options, _readers: int) -> Iterator[Step]:
    """Do nothing: what reading the clock costs."""
    yield lambda _number: None


@contextlib.contextmanager
def floor(_options: Options, _readers: int) -> Iterator[Step]:
    """Make a dict of a loss and call C twice, to keep a number and the dict: what the user's own lines take."""
    slots: deque[int] = deque(maxlen=64)
    keep, table = slots.append, dict[str, float]()
    update = table.update

    def step(number: int) -> None:
        keep(number % 4)
        update({"train/loss": LOSS})

    yield step


@contextlib.contextmanager
def otel_train_step(options: Options, readers: int) -> Iterator[Step]:
    """Make a pick and call `telemetry.step` with a loss, on one rank; see that the last step's values are there."""
    import otel_train  # noqa: PLC0415  # of the build that PYTHONPATH names; no peer has it in its process

    meter = otel_train.MixingMeter(readers, ["code", "prose"], {"code": 1.0, "prose": 1.0})
    for slot in range(readers):
        meter.open(slot, ("code", "prose")[slot % 2])
    rings, sends = Path(options.folder) / f"rings-{readers}", os.environ.get("OTEL_TRAIN_SIDECAR") != "external"
    last = 0
    with otel_train.init(sources=[meter], ring_dir=rings, close_timeout=10.0 * sends) as telemetry:

        def step(number: int) -> None:
            nonlocal last
            meter.pick(number % readers, tokens=64)
            telemetry.step(number, {"train/loss": LOSS})
            last = number

        yield step
        newest = telemetry.latest
        if last and (newest is None or (newest[0], newest[1]["train/loss"]) != (last, LOSS)):
            raise RuntimeError(f"step {last} was not recorded: {newest}")
        if last and sends and not telemetry.flush(20.0):
            raise RuntimeError(f"step {last} was not sent")


@contextlib.contextmanager
def ledger_step(options: Options, _readers: int) -> Iterator[Step]:
    """Fetch and store the states of 256 ids in text, on one rank; see that all hit, or that all were evicted."""
    from otel_train.ledger import StateLedger  # noqa: PLC0415  # of the build that PYTHONPATH names

    ledger, states = StateLedger((WIDTH,), capacity=CAPACITY), torch.randn(KEYS, WIDTH)
    ids = [f"stream-{number}" for number in range(options.streams)]
    turn = [ids[first : first + KEYS] for first in range(0, options.streams, KEYS)]
    steps = 0

    def step(number: int) -> None:
        nonlocal steps
        streams = turn[number % len(turn)]
        ledger.fetch(streams)
        ledger.store(streams, states)
        steps += 1

    for number in range(2 * len(turn)):  # from here on each of them was seen
        step(number)
    ledger.drain_step_metrics()
    steps = 0
    yield step
    counted = ledger.drain_step_metrics()
    kind = "hits" if options.streams == CAPACITY else "false_evictions"
    if counted[f"ledger/{kind}"] < 0.98 * steps * KEYS:  # a block begins where the one before it may not have ended
        raise RuntimeError(f"{steps} steps of {KEYS} ids had {counted}")


@contextlib.contextmanager
def state_copies(_options: Options, _readers: int) -> Iterator[Step]:
    """Read and write as many rows of a table of states, which is what a ledger's step can't do without."""
    table, states = torch.zeros(CAPACITY, WIDTH), torch.randn(KEYS, WIDTH)
    turn = [torch.arange(first, first + KEYS) for first in range(0, CAPACITY, KEYS)]

    def step(number: int) -> None:
        rows = turn[number % len(turn)]
        table.index_select(0, rows)
        table.index_copy_(0, rows, states)

    yield step


@contextlib.contextmanager
def peer(options: Options, _readers: int) -> Iterator[Step]:
    """Set up a peer as `benchmarks.peers` has it."""
    # What no other contender has in its process.
    from benchmarks import peers, tracers  # noqa: PLC0415
    from benchmarks.receiver import running_receiver  # noqa: PLC0415

    folder = Path(options.folder)
    with contextlib.ExitStack() as stack:
        if options.contender == "sdk":
            receiver = stack.enter_context(running_receiver())
            yield stack.enter_context(peers.sdk_gauges(receiver.endpoint))
        elif options.contender == "prometheus_client":
            yield stack.enter_context(peers.prometheus_client())
        elif options.contender == "wandb":
            yield stack.enter_context(peers.wandb_offline(folder))
        else:
            yield stack.enter_context(tracers.traceml(folder))


CONTENDERS = {
    NOTHING: nothing,
    "floor": floor,
    "otel_train": otel_train_step,
    "ledger": ledger_step,
    "copies": state_copies,
    "sdk": peer,
    "prometheus_client": peer,
    "wandb": peer,
    "traceml": peer,
}


def training(_block: Block) -> Callable[[], object]:
    """Return a small training step: six linear layers of 256, 64 rows, forward, backward and SGD, on one thread."""
    torch.set_num_threads(1)
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(6)))
    optimizer, rows = torch.optim.SGD(model.parameters(), lr=1e-3), torch.randn(64, 256)

    def train() -> None:
        model(rows).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def python_work(block: Block) -> Callable[[], object]:
    """Return a millisecond of pure Python."""
    words = WORDS[: block.words] if block.words else calibrated()
    return lambda: work(words)


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
    words = WORDS[:200]
    for _ in range(3):  # not all of the work grows with the words
        best = float("inf")
        for _ in range(100):
            begin = time.perf_counter()
            work(words)
            best = min(best, time.perf_counter() - begin)
        words = WORDS[: int(len(words) * WORK / best)]
    return words


SURROUNDINGS: dict[str, Callable[[Block], Callable[[], object]]] = {
    "torch": training,
    "python": python_work,
    "loop": lambda _block: lambda: None,
}


def timed(block: Block, before: Callable[[], object], steps: dict[str, Step], first: int) -> dict[str, list[int]]:
    """Return the nanoseconds of each step that counts, by name."""
    clock = time.thread_time_ns if block.cpu else time.perf_counter_ns
    times = {name: [0] * (WARM + block.count) for name in block.steps}
    order = list(block.steps)
    for index in range(WARM + block.count):
        for name in order:
            step = steps[name]
            began = clock()
            before()
            begin = clock()
            step(first + index)
            end = clock()
            times[name][index] = end - (began if block.whole else begin)
        order.append(order.pop(0))
    return {name: taken[WARM:] for name, taken in times.items()}


def main(options: Options) -> None:
    """Set up, say what runs, and answer until the input ends."""
    if options.bound_first and options.core is not None:
        os.sched_setaffinity(0, {options.core})
    surroundings: dict[str, Callable[[], object]] = {}
    readers, first = FIRST_READERS, 1
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(CONTENDERS[options.contender](options, readers))
        if options.core is not None:  # this thread alone: what a peer runs beside it goes where it likes
            os.sched_setaffinity(0, {options.core})
        answer(build())
        for line in sys.stdin:
            asked = json.loads(line)
            block = Block(**asked | {"steps": tuple(asked["steps"])})
            if block.readers != readers:
                stack.close()
                readers, first = block.readers, 1
                own = stack.enter_context(CONTENDERS[options.contender](options, readers))
            if block.before not in surroundings:
                surroundings[block.before] = SURROUNDINGS[block.before](block)
            steps: dict[str, Step] = {NOTHING: lambda _number: None, options.contender: own}
            answer(timed(block, surroundings[block.before], steps, first))
            first += WARM + block.count


def build() -> dict[str, str]:
    """Return where this process has otel_train from, and which of its implementations runs; empty where it has none."""
    package = sys.modules.get("otel_train")
    native = sys.modules.get("otel_train.native")
    return {
        "file": str(package.__file__) if package else "",
        "implementation": getattr(native, "IMPLEMENTATION", "python") if package else "",
    }


def answer(value: object) -> None:
    """Write one line for the parent."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(Options(**json.loads(sys.argv[1])))
