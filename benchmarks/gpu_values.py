"""A ledger on the GPU in a group of one rank, and scalars there that are DTensors or of 8-bit floats.

    python -m benchmarks.gpu_check

The states that come back are compared with those that were stored, and the values in the ring with those given.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh

import otel_train
from benchmarks.device import device_name, group_of_one, our_warnings, synchronize, waiting_forbidden
from benchmarks.fresh import in_fresh_process
from benchmarks.measure import Figures, Goal, Section, Step, quantile
from otel_train.ledger import StateLedger

KEYS, WIDTH, CAPACITY = 256, 512, 1024
STREAMS = {"all hits": CAPACITY, "all evictions": 4 * CAPACITY}
"""Ids that the steps go through in turn: as many as the ledger holds, or four times as many."""
BARE = "index_select and index_copy_ of as many rows, nothing else"
WARM_UP, CHECKED = 20, 100


def measure(device: str, *, quick: bool) -> Section:
    """Measure on a device; "cpu" shows that it runs."""
    return in_fresh_process({"OTEL_TRAIN_SIDECAR": "external"}, _measure, device, quick=quick)


def _measure(device: str, *, quick: bool) -> Section:
    rounds, steps = (2, 20) if quick else (20, 50)
    with tempfile.TemporaryDirectory() as folder, group_of_one(Path(folder), device):
        wrong = [problem for case in STREAMS for problem in _returned(device, case)]
        contenders = {f"StateLedger, {case}": _ledger(device, case) for case in STREAMS} | {BARE: _bare(device)}
        figures = _take_turns(contenders, device, rounds=rounds, steps=steps)
        times, problems = _scalars(Path(folder), device)
    return Section(
        number=16,
        title="A ledger and odd scalars on the GPU",
        how=(
            f"{device_name(device)}; a NCCL group of one rank, {rounds} rounds of {steps} steps of each in turn. A "
            f"step of the ledger is a fetch and a store of {KEYS} ids in text with states of {WIDTH} float32 on the "
            f"GPU, capacity {CAPACITY}; the GPU is waited for after each, and the wait is in the figure."
        ),
        unit="µs",
        figures=figures,
        ours="StateLedger, all hits",
        goals=[
            Goal("states come back as they were stored", "; ".join(wrong) or "all of them", not wrong),
            Goal("the scalars are right, and nothing waits", "; ".join(problems) or f"{CHECKED} steps", not problems),
        ],
        notes=[
            (
                "A step with a float32, a DTensor of parts and a float8 on the GPU took "
                f"{quantile(times, 0.5):.0f} µs of the caller at the median, {quantile(times, 0.99):.0f} at p99, over "
                f"{CHECKED} steps; it waits for none."
            )
        ],
    )


def _ids(case: str, step: int) -> list[str]:
    return [f"stream-{number % STREAMS[case]}" for number in range(step * KEYS, (step + 1) * KEYS)]


def _ledger(device: str, case: str) -> Step:
    """Return a fetch and a store of ids that came longest ago."""
    ledger, states = StateLedger((WIDTH,), capacity=CAPACITY, device=device), torch.randn(KEYS, WIDTH, device=device)

    def step(number: int) -> None:
        ids = _ids(case, number)
        ledger.fetch(ids)
        ledger.store(ids, states)

    return step


def _bare(device: str) -> Step:
    """Return the reads and writes of rows that a table without keys needs."""
    table, states = torch.zeros(CAPACITY, WIDTH, device=device), torch.randn(KEYS, WIDTH, device=device)

    def step(number: int) -> None:
        rows = (torch.arange(KEYS) + number * KEYS).remainder(CAPACITY).to(device, non_blocking=True)
        table.index_select(0, rows)
        table.index_copy_(0, rows, states)

    return step


def _take_turns(contenders: dict[str, Step], device: str, *, rounds: int, steps: int) -> dict[str, Figures]:
    """Time each step until the GPU is done, a block of each contender in turn; the first round warms up."""
    blocks: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, step in contenders.items():
            times = []
            for index in range(number * steps, (number + 1) * steps):
                begin = time.perf_counter()
                step(index)
                synchronize(device)
                times.append((time.perf_counter() - begin) * 1e6)
            if number:
                blocks[name].append(times)
    return {
        name: Figures([quantile(times, 0.5) for times in taken], [quantile(times, 0.99) for times in taken])
        for name, taken in blocks.items()
    }


def _returned(device: str, case: str) -> list[str]:
    """Return where a ledger's states are not what was stored, over a turn through all ids and back."""
    ledger, wrong = StateLedger((WIDTH,), capacity=CAPACITY, device=device), []
    turn = STREAMS[case] // KEYS
    for number in range(2 * turn):
        ids = _ids(case, number)
        states, hits = ledger.fetch(ids)
        expected = float(number % turn + 1) if number >= turn and case == "all hits" else 0.0
        if bool(hits.any()) != bool(expected) or not bool((states == expected).all()):
            wrong.append(f"{case}, step {number}")
        ledger.store(ids, torch.full((KEYS, WIDTH), float(number % turn + 1), device=device))
    return wrong


def _scalars(folder: Path, device: str) -> tuple[list[float], list[str]]:
    """Log a number of each kind at each step; return the microseconds of each call, and what went wrong."""
    from torch.distributed.tensor import DTensor, Partial  # noqa: PLC0415  # loads the compiler

    mesh, clock, times = init_device_mesh(device, (1,)), time.perf_counter_ns, []
    work = torch.randn(512, 512, device=device)
    with (
        our_warnings() as problems,
        otel_train.init(ring_dir=folder / "rings", close_timeout=0.0) as telemetry,
    ):
        for step in range(1, WARM_UP + CHECKED + 1):
            work = torch.tanh(work @ work)
            number = work.sum() * 0 + float(step % 8)  # each of them is exact in 8 bits
            values = {
                "plain": number,
                "parts": DTensor.from_local(number, mesh, [Partial()]),
                "float8": number.to(torch.float8_e4m3fn),
            }
            with waiting_forbidden(device, forbidden=step > WARM_UP):
                begin = clock()
                telemetry.step(step, values)
                times.append((clock() - begin) / 1000)
        synchronize(device)
        telemetry.flush(1.0)
        newest, last = telemetry.latest, float(step % 8)
        read = {key: newest[1].get(key) for key in ("plain", "parts", "float8")} if newest else {}
        if newest is None or newest[0] != step or set(read.values()) != {last}:
            problems.append(f"step {step} should have {last} three times, got {newest and newest[0]}: {read}")
    return times[WARM_UP:], problems
