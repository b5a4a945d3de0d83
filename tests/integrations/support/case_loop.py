"""
What each rank of a loader's job does: train through each case, and write down what the loop consumed.

Runs in the loader's own environment: torch, otel_train and the loader are there, the tools for tests are not.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import otel_train
from tests.integrations.support.terminated import call_in_fork
from tests.support.patience import BOUNDS, have_nobody_send

STEPS = 40
"""Steps of a case."""
TERMINATED = "terminated"
"""Variant that SIGTERM ends."""
SAVED_AFTER = 17
"""Steps after which a resumed case is saved and begun anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to run a loader."""

    variant: str
    """Name of what the job does in its own way, such as another mode of the loader."""
    workers: int = 0
    """Worker processes of each rank's loader."""
    resumed: bool = False
    """Whether the loop is saved after `SAVED_AFTER` steps, and a new one goes on from there."""

    @property
    def name(self) -> str:
        """Name of the case's folder, and its id in the tests."""
        return f"{self.variant}-{self.workers}-{'resumed' if self.resumed else 'straight'}"


class Row(NamedTuple):
    """A row that the loop consumed, by its payload."""

    source: str
    tokens: int
    repeat: int = 0
    """Number of the pass over the source's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """A loader that yields tagged batches, with the meter that counts them."""

    meter: Any
    batches: Any
    """The loader, for `meter.counted`; begun again where it ends."""
    rows: Callable[[Any], list[Row]]
    """Reads the rows of a batch from its payload, as the user's loop gets it."""
    save: Callable[[], Any] = dict
    """Returns the loader's state, for the `begin` of the loop that goes on."""


Begin = Callable[[Case, Any], Loading]
"""Makes the loading of a case, from the beginning (None) or from what `save` has returned."""


def cases_of(*variants: str, workers: Sequence[int] = (0, 2)) -> list[Case]:
    """Return the cases of some variants: each number of workers, straight and resumed."""
    return [
        Case(variant=variant, workers=number, resumed=resumed)
        for variant in variants
        for number in workers
        for resumed in (False, True)
    ]


def run_cases(begin: Begin, steps: Mapping[str, int] | None = None) -> None:
    """Train through the cases that the test asks for, each with the loader that `begin` makes.

    Args:
        begin: Makes the loading of a case.
        steps: By variant, where `STEPS` are too few.
    """
    call_cases(lambda case, folder: run_case(begin, case, folder, (steps or {}).get(case.variant, STEPS)))


def call_cases(run: Callable[[Case, Path], None]) -> None:
    """Call a function for each case that the test asks for, with its folder, on this rank; all in one process group.

    A case that SIGTERM ends comes first, in a fork. Nobody is to send what is recorded: no end of a session waits for
    it.
    """
    have_nobody_send()
    folder, *names = map(str, sys.argv[1:])
    for name in [name for name in names if name.startswith(TERMINATED)]:
        names.remove(name)
        path = Path(folder, name)
        call_in_fork(partial(run, Case(variant=TERMINATED), path), path)
    dist.init_process_group("gloo")
    for name in names:
        variant, workers, how = name.rsplit("-", 2)
        run(Case(variant=variant, workers=int(workers), resumed=how == "resumed"), Path(folder, name))
        dist.barrier()
    dist.destroy_process_group()


def run_case(begin: Begin, case: Case, folder: Path, steps: int = STEPS) -> None:
    """Run the steps of a case, in one part or two, and write each step's rows into this rank's file."""
    consumed: list[list[Row]] = []
    state: dict[str, Any] | None = None
    for last in (SAVED_AFTER, steps) if case.resumed else (steps,):
        loading = begin(case, state and state["loader"])
        session = otel_train.init(
            sources=[loading.meter], ring_dir=folder / "rings", run_id=case.name, max_in_flight=steps, **BOUNDS
        )
        with session as telemetry:
            if state is not None:
                loading.meter.load_state_dict(state["meter"])
            batches = endless(loading)
            for step in range(len(consumed) + 1, last + 1):
                consumed.append(loading.rows(next(batches)))
                telemetry.step(step)
            state = {"loader": loading.save(), "meter": loading.meter.state_dict()}
            batches.close()
        end_workers()
        del loading, batches, session, telemetry
        gc.collect()  # leaves no process group to the workers of the next part
    write_consumed(folder, consumed)


def end_workers() -> None:
    """End the workers of each DataLoader; those of one that is garbage get no word, and are waited for 5 s each."""
    for loading in gc.get_objects():
        if type(loading) is _MultiProcessingDataLoaderIter:
            loading._shutdown_workers()


def write_consumed(folder: Path, consumed: Sequence[Sequence[Row]]) -> None:
    """Write down the rows that this rank consumed in each step."""
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(consumed))


def endless(loading: Loading) -> Generator[Any]:
    """Yield the loader's batches, counted, pass after pass."""
    while True:
        number = 0
        for batch in loading.meter.counted(loading.batches):
            number += 1
            yield batch
        if not number:
            raise RuntimeError("the loader has no batch")
