"""One reduction on its way: what a rank gives to it, and the collective itself, on a CPU or a GPU."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from otel_train.step.late_values import LateValue
from otel_train.step.packing import HEADER, Packed, PackingPlan
from otel_train.step.rank_group import RankGroup
from otel_train.step.scalar_recorder import DevicePart

_SUM = dist.AllreduceOptions()  # a sum, unless told otherwise
# A peer may be away for longer than the half an hour after which gloo would give up the whole group.
_SUM.timeout = dt.timedelta(days=365)


@dataclass(slots=True, eq=False, repr=False)  # one is like no other
class Flight:
    """One reduction, before it is launched and after."""

    step: int
    time_ns: int
    packed: Packed
    """Vector of this rank; once it has landed, the result."""
    device: DevicePart | None = None
    """Part of the values that is still on a GPU."""
    late: Sequence[tuple[int, torch.Tensor]] = ()
    """Offset in the vector of each value under a late key that is still on a GPU, and that value, float64 []."""
    logged: Mapping[int, Sequence[LateValue]] = field(default_factory=dict)
    """Values of this rank that were logged beside the steps, by their lane in the vector."""
    extra: bool = False
    """Whether it is not a step of the session, and is launched only because peers launch theirs."""
    closes: bool = False
    """Whether it says that the session is closed; then it gives this rank nothing."""
    number: int = 0
    """Number of reductions launched before it; the ranks' reductions of one number are one collective."""
    work: Any = None
    """Handle that `all_reduce` returned; None when there is one rank."""
    pinned: torch.Tensor | None = None
    """float64 [plan.size], in pinned memory: where a GPU puts the result."""
    sent: Packed | None = None
    """Vector of this rank, once the result has landed there."""
    ready: Any = None
    """CUDA event after what `device` is made of, where the launch has to wait."""
    copied: Any = None
    """CUDA event after that copy."""

    @property
    def owed(self) -> bool:
        """Whether it has something of the session's."""
        return bool(self.logged) or not self.extra

    def complete(self) -> bool:
        """Tell whether the result is there, or the reduction has failed."""
        if self.copied is not None:
            return bool(self.copied.query())
        return self.work is None or bool(self.work.is_completed())


class Collective:
    """The sum over the ranks of what they packed.

    Args:
        plan: The shape of the packed vectors.
        group: The ranks.
    """

    def __init__(self, plan: PackingPlan, group: RankGroup) -> None:
        self._plan, self._group = plan, group
        self._stream = _new_stream() if group.device.type == "cuda" else None
        # What `dist.all_reduce` calls; its checks of the arguments would take as long as everything else here.
        self._all_reduce = None if group.handle is None else group.handle.allreduce

    @property
    def on_gpu(self) -> bool:
        """Whether a reduction that waits for a peer keeps a part of the GPU busy."""
        return self._stream is not None

    def prepare(self, flight: Flight, *, waits: bool) -> None:
        """See that a flight can be launched by any thread, from any stream.

        Args:
            flight: It was packed by the training thread just now.
            waits: Whether its launch has to wait.
        """
        if flight.device is None and not flight.late:
            return
        if self._stream is None:
            # A gloo group reduces on the CPU, so a scalar on a GPU must come here first: this waits for it.
            self._add_device_part(flight.packed.vector, flight)
            flight.device, flight.late = None, ()
        elif waits:
            flight.ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            flight.ready.record()

    def launch(self, flight: Flight) -> None:
        """Begin a reduction. What it raises is the backend's."""
        if self._stream is not None:
            self._launch_on_gpu(self._stream, flight)
        elif self._all_reduce is not None:
            flight.work = self._all_reduce([flight.packed.vector], _SUM)

    def _launch_on_gpu(self, stream: torch.cuda.Stream, flight: Flight) -> None:
        """Reduce on a stream of our own: the training stream is neither waited for by the host nor made to wait."""
        if flight.ready is not None:
            stream.wait_event(flight.ready)
        else:
            stream.wait_stream(torch.cuda.current_stream(self._group.device))
        with torch.cuda.stream(stream):
            packed = flight.packed
            given = packed.vector if packed.own else packed.vector.pin_memory()
            flight.pinned = torch.empty_like(given, pin_memory=True)
            on_gpu = given.to(self._group.device, non_blocking=True)
            for part in (*(flight.device or ()), *(value for _, value in flight.late)):
                part.record_stream(stream)
            self._add_device_part(on_gpu, flight)
            flight.work = dist.all_reduce(on_gpu, group=self._group.handle, async_op=True)
            flight.work.wait()  # NCCL: makes this stream wait, not the host
            flight.pinned.copy_(on_gpu, non_blocking=True)
            flight.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            flight.copied.record(stream)

    def _add_device_part(self, vector: torch.Tensor, flight: Flight) -> None:
        for offset, value in flight.late:
            vector[offset] += value.to(vector.device)
        if flight.device is None:
            return
        sums, peaks = flight.device
        end = HEADER + self._plan.sums
        if len(sums):
            vector[end - len(sums) : end] += sums.to(vector.device)
        if len(peaks):
            candidates = vector[end : end + self._plan.peaks * self._plan.world_size]
            own = candidates.view(self._plan.peaks, self._plan.world_size)[-len(peaks) :, self._group.rank]
            own.copy_(torch.maximum(own, peaks.to(vector.device)))

    def land(self, flight: Flight) -> None:
        """See that a complete reduction's packed vector is the result.

        Raises:
            RuntimeError: It has failed; gloo raises its kin when a peer is gone.
        """
        if flight.work is not None and flight.copied is None:
            flight.work.wait()
        if flight.pinned is not None:
            flight.sent, flight.packed = flight.packed, self._plan.over(flight.pinned, own=False)


def _new_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
