"""The one collective of a log step: launched without waiting, harvested when it is complete."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from otel_train.catalogue import Layout
from otel_train.step.group import RankGroup
from otel_train.step.packing import HEADER, Packed, PackingPlan, Reduced
from otel_train.step.recorder import Measurements

logger = logging.getLogger(__name__)

_FIRST_POLL, _POLL = 0.00002, 0.0005
"""Seconds between two looks at a reduction that is waited for, at first and later."""
_SUM = dist.AllreduceOptions()  # a sum, unless told otherwise


@dataclass(slots=True)
class _Flight:
    """One reduction under way."""

    step: int
    time_ns: int
    packed: Packed
    """Where the result will be."""
    work: Any
    """What `all_reduce` returned; None when there is one rank."""
    pinned: torch.Tensor | None = None
    """float64 [plan.size], in pinned memory: where a GPU puts the result first."""
    copied: Any = None
    """The CUDA event behind that copy."""

    def complete(self) -> bool:
        if self.copied is not None:
            return bool(self.copied.query())
        return self.work is None or bool(self.work.is_completed())


class _Loan:
    """A landed vector on loan to whoever may read its values; it goes back to be packed anew when nobody can any more.

    Args:
        packed: The vector.
        unpack: Returns its values.
        free: Where it goes back to.
    """

    __slots__ = ("_free", "_packed", "_unpack")

    def __init__(self, packed: Packed, unpack: Callable[[], Sequence[float]], free: list[Packed]) -> None:
        self._packed, self._unpack, self._free = packed, unpack, free

    def __call__(self) -> Sequence[float]:
        return self._unpack()

    def __del__(self) -> None:
        self._free.append(self._packed)


class Reducer:
    """SUM reductions of packed steps over a group, at most `max_in_flight` at a time.

    Args:
        layout: The schema's layout.
        group: The ranks; its process group must be used by nobody else.
        max_in_flight: Unfinished reductions beyond which `launch` waits for the oldest.
        timeout: Seconds that any wait takes at most; after it, no more is reduced.
    """

    def __init__(self, layout: Layout, group: RankGroup, *, max_in_flight: int, timeout: float) -> None:
        self.plan = PackingPlan.of(layout, group.world_size)
        self.group = group
        self.abandoned = 0
        self.stopped = False
        self.last_step = 0
        """The newest step that was launched."""
        self._max_in_flight = max_in_flight
        self._timeout = timeout
        self._flights: deque[_Flight] = deque()
        self._landed: list[Reduced] = []
        self._free: list[Packed] = []
        self._nothing = (0.0,) * (self.plan.sums + self.plan.peaks)
        # Where a rank of the group is not the rank of the job by that number.
        self._renamed = group.job_ranks != tuple(range(group.world_size))
        self._said_slow = self._said_mismatch = False
        self._stream = _new_stream() if group.device.type == "cuda" else None

    def launch(self, step: int, time_ns: int, measured: Measurements | None) -> None:
        """Begin the reduction of one step. Every rank of the group calls this for the same steps in the same order.

        A rank that could not measure gives None: it takes part, so that the ranks' next reductions meet, and this one
        is thrown away on all of them.
        """
        self.last_step = step
        if self.stopped or (measured is None and self.group.handle is None):
            self.abandoned += 1
            return
        usable = measured is not None
        if measured is None:
            measured = Measurements(self._nothing)
        if self.group.handle is None and measured.device is None:
            # One rank: what it measured is the cluster's.
            self._landed.append(Reduced(step, time_ns, measured.values))
            return
        if len(self._flights) >= self._max_in_flight:
            if not self._said_slow and not self._flights[0].complete():
                self._said_slow = True
                logger.warning(
                    "telemetry: a step is shorter than its reduction; the training thread waits for it. Raise log_every"
                )
            self._land_oldest(self._timeout)
            if self.stopped:
                self.abandoned += 1
                return
        try:
            packed = self.plan.pack(step, measured.values, self.group.rank, self._free.pop() if self._free else None)
        except Exception:  # noqa: BLE001  # a source gave what is no number: the ranks must meet all the same
            packed, usable = self.plan.pack(step, self._nothing, self.group.rank), False
        if not usable:
            packed.vector[:HEADER] = math.nan
        try:
            self._flights.append(self._begin(step, time_ns, packed, measured))
        except Exception as error:  # noqa: BLE001  # whatever a backend raises must not reach the training loop
            self._stop(f"it could not be launched ({error})", 1)

    def _begin(self, step: int, time_ns: int, packed: Packed, measured: Measurements) -> _Flight:
        if self._stream is not None:
            return self._begin_on_gpu(self._stream, step, time_ns, packed, measured)
        if measured.device is not None:
            # A gloo group reduces on the CPU, so a scalar on a GPU must come here first: this waits for it.
            self._add_device_part(packed.vector, measured)
        if self.group.handle is None:
            return _Flight(step, time_ns, packed, None)
        # What `dist.all_reduce` calls; its checks of the arguments would take as long as everything else here.
        return _Flight(step, time_ns, packed, self.group.handle.allreduce([packed.vector], _SUM))

    def _begin_on_gpu(
        self, stream: torch.cuda.Stream, step: int, time_ns: int, packed: Packed, measured: Measurements
    ) -> _Flight:
        """Reduce on a stream of our own: the training stream is neither waited for by the host nor made to wait."""
        pinned = packed.vector.pin_memory()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            on_gpu = pinned.to(self.group.device, non_blocking=True)
            if measured.device is not None:
                for part in measured.device:
                    part.record_stream(stream)
                self._add_device_part(on_gpu, measured)
            work = dist.all_reduce(on_gpu, group=self.group.handle, async_op=True)
            work.wait()  # NCCL: makes this stream wait, not the host
            pinned.copy_(on_gpu, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        return _Flight(step, time_ns, packed, work, pinned, copied)

    def _add_device_part(self, vector: torch.Tensor, measured: Measurements) -> None:
        assert measured.device is not None
        sums, peaks = measured.device
        end = HEADER + self.plan.sums
        if len(sums):
            vector[end - len(sums) : end] += sums.to(vector.device)
        if len(peaks):
            own = vector[end:].view(self.plan.peaks, self.plan.world_size)[-len(peaks) :, self.group.rank]
            own.copy_(torch.maximum(own, peaks.to(vector.device)))

    @property
    def full(self) -> bool:
        """Whether the next `launch` waits for the oldest reduction, unless that one completes before."""
        return len(self._flights) >= self._max_in_flight

    @property
    def settled(self) -> bool:
        """Whether no reduction is under way."""
        return all(flight.complete() for flight in self._flights)

    def harvest(self) -> list[Reduced]:
        """Return the steps whose reductions are complete, oldest first, without waiting."""
        while self._flights and self._flights[0].complete():
            self._land(self._flights.popleft())
        landed, self._landed = self._landed, []
        return landed

    def finish(self, timeout: float) -> list[Reduced]:
        """Wait for all reductions under way, `timeout` seconds at most, and return what `harvest` would."""
        deadline = time.monotonic() + timeout
        while self._flights:
            self._land_oldest(max(0.0, deadline - time.monotonic()))
        return self.harvest()

    def _land_oldest(self, timeout: float) -> None:
        flight = self._flights[0]
        deadline, pause = time.monotonic() + timeout, _FIRST_POLL
        while not flight.complete():
            if time.monotonic() >= deadline:
                self._stop(f"the one of step {flight.step} did not end within {timeout:.1f} s", 0)
                return
            time.sleep(pause)
            pause = min(_POLL, 2 * pause)
        self._land(self._flights.popleft())

    def _land(self, flight: _Flight) -> None:
        try:
            if flight.work is not None and flight.copied is None:
                flight.work.wait()
        except Exception as error:  # noqa: BLE001  # gloo raises RuntimeError and its kin when a peer is gone
            self._stop(f"the one of step {flight.step} failed ({error})", 1)
            return
        if flight.pinned is not None:
            flight.packed.vector.copy_(flight.pinned)
        reduced = self._take(flight)
        if reduced is not None:
            self._landed.append(reduced)
        else:
            self.abandoned += 1
            if not self._said_mismatch:
                self._said_mismatch = True
                logger.warning(
                    "telemetry: the ranks are not at the same step, or one could not measure; step %d is thrown away, "
                    "and so is every other one like it",
                    flight.step,
                )

    def _take(self, flight: _Flight) -> Reduced | None:
        """Return what a reduction gave, to be unpacked when somebody looks; None when the ranks' steps differ."""
        step, packed = flight.step, flight.packed
        if not self.group.emits:
            matches = self.plan.matches(packed, step)
            loan = _Loan(packed, lambda: self._unpack(packed, step) or (), self._free)
            return Reduced(step, flight.time_ns, loan) if matches else None
        values = self._unpack(packed, step)
        self._free.append(packed)
        return None if values is None else Reduced(step, flight.time_ns, values)

    def _unpack(self, packed: Packed, step: int) -> Sequence[float] | None:
        values = self.plan.unpack(packed, step)
        if values and self._renamed and self.plan.peaks:
            ranks = values[-self.plan.peaks :]
            values[-self.plan.peaks :] = [float(self.group.job_ranks[int(rank)]) for rank in ranks]
        return values

    def _stop(self, why: str, also: int) -> None:
        self.stopped = True
        self.abandoned += len(self._flights) + also
        self._flights.clear()
        logger.warning("telemetry: no more cluster-wide values, a reduction is lost: %s. Training goes on", why)


def _new_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
