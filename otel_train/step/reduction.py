"""The reductions of a session: launched without waiting, harvested when they are complete, whoever else is there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from otel_train.catalogue import Layout
from otel_train.ring import MOST_LATE_KEYS
from otel_train.step.alignment import Alignment
from otel_train.step.clock import LOG_APART_NS
from otel_train.step.flight import Collective, Flight
from otel_train.step.late_packing import LANES
from otel_train.step.late_transport import LateTransport
from otel_train.step.late_values import LateValue
from otel_train.step.packed_vectors import PackedVectors
from otel_train.step.packing import PackingPlan, Presence, RankSign, Reduced
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.reduction_warnings import ReductionWarnings
from otel_train.torch_modes import outside_modes

PATIENCE = 1.0
"""Seconds that a training thread which needs no values at once waits for peers at most, once."""
_FIRST_POLL, _POLL = 0.00002, 0.0005
"""Seconds between two looks at a reduction that is waited for, at first and later."""
_MOST_WAITING, _WAITING_BYTES = 1000, 1 << 23
"""Steps that wait for their launch at most, and what they may take."""


class Reducer:
    """SUM reductions of packed steps over a group, at most `max_in_flight` at a time.

    A step that finds as many under way waits for the oldest. Where peers do not come (they have fewer batches, or left
    the loop), that wait ends after `PATIENCE` seconds; until the peers are back, steps wait for their launch without
    the training thread, as many as memory is meant for, and further ones are left out. A peer that is back takes part
    in what it missed without values, so that the others' values of these steps are there; a closed session goes on
    taking part like this while its process lives.

    One thread at a time may call this, outside the modes that a caller may have set in torch.

    Args:
        layout: The schema's layout.
        group: The ranks; nothing else may use its process group.
        max_in_flight: Unfinished reductions beyond which `launch` waits for the oldest.
        timeout: Seconds that any wait takes at most.
    """

    @outside_modes
    def __init__(self, layout: Layout, group: RankGroup, *, max_in_flight: int, timeout: float) -> None:
        self.plan = PackingPlan.of(layout, group.world_size, MOST_LATE_KEYS)
        self.group = group
        self.abandoned = 0
        """Steps of this rank whose reduction was thrown away, or left out."""
        self.stopped = False
        self.last_step = -1
        """The newest step that was launched."""
        self.log_stride: Callable[[], int] = int  # how far log steps are apart, absences aside; 0 where nobody knows
        self.overdue = False
        """Whether a peer has kept a reduction waiting for too long, and what was launched since has not landed yet."""
        self.hurries = False
        """Whether the process is about to end, so that a training thread waits for nobody."""
        self._collective = Collective(self.plan, group)
        self._max_in_flight = max_in_flight
        self._timeout = timeout
        self._flights: deque[Flight] = deque()
        self._waiting: deque[Flight] = deque()
        """Steps whose launch waits until fewer are under way."""
        self._most_waiting = max(1, min(_MOST_WAITING, _WAITING_BYTES // (8 * self.plan.size)))
        self._alignment = Alignment(max_in_flight + self._most_waiting)
        self._landed: list[Reduced] = []
        self._vectors = PackedVectors(self.plan, group)
        self.warnings = ReductionWarnings()
        """Warnings about them."""
        self._landed_ns = 0
        """The time stamp of what landed last."""
        self._time_ns = 0
        """The time stamp of the newest step that was launched."""
        self._closing: Flight | None = None
        """Flight that closes the session; its values, if any, are of an interval that had not ended."""
        self._rest: Measurements | None = None
        self._some_closed = self._all_closed = False
        self._late = LateTransport(self._vectors, group, self.warnings, max_in_flight=max_in_flight)

    # -- launching -----------------------------------------------------------------------------------------------

    def launch(self, step: int, time_ns: int, measured: Measurements | None) -> None:
        """Begin the reduction of one step. Every rank of the group calls this for the same steps in the same order.

        A rank that could not measure gives None: it takes part, and the cluster's values are those of the others.
        """
        self.last_step = step
        if self.stopped or (measured is None and self.group.handle is None):
            self.abandoned += 1
            return
        if measured is not None and self.group.handle is None and not (measured.on_device or self._late.waiting):
            # One rank: what it measured is the cluster's.
            self._landed.append(Reduced(step, time_ns, measured.values, measured.late))
            return
        has_room = len(self._flights) < self._max_in_flight or self._make_room()
        if not has_room or not self._alignment.follows(step):
            comes = self._comes_to(step, time_ns, has_room=has_room)
            if self.group.handle is not None and not comes:
                self.abandoned += 1
                return
        self._time_ns = time_ns
        flight = self._vectors.pack(step, time_ns, measured)
        self._late.put(flight, measured, self._alignment.count)
        self._submit(flight)

    def log(self, values: Sequence[LateValue]) -> None:
        """Give values that were logged beside the steps to the next reductions."""
        self._late.log(values)

    def _comes_to(self, step: int, time_ns: int, *, has_room: bool) -> bool:
        """Take note of a step, make up for those that were missed, and tell whether this one is to be reduced."""
        if self._alignment.leaves_out(step):
            return False
        missed = self._alignment.missed(step, self.log_stride())
        if missed and has_room:
            self._make_up(missed, time_ns)
        return has_room

    def _make_up(self, missed: range, time_ns: int) -> None:
        """Take part in the reductions of steps that this rank did not come to: its peers may have launched theirs."""
        began_ns = min(self._time_ns, time_ns)
        for number, step in enumerate(missed, start=1):
            # Each with a time stamp of its own, between the last one and this one.
            between_ns = began_ns + (time_ns - began_ns) * number // (len(missed) + 1)
            self._submit(self._vectors.absent(RankSign(step, Presence.ABSENT), between_ns, extra=True))

    def _make_room(self) -> bool:
        """Wait for the oldest reduction, unless a wait has been in vain already; tell whether there is room."""
        self._land_complete()
        if len(self._flights) >= self._max_in_flight and not self.lags:
            self.warnings.lacked = False
            self._land_oldest(min(self._timeout, PATIENCE))
            if not (self.overdue or self.stopped or self.hurries or self.warnings.lacked):
                self.warnings.slow()
        if len(self._waiting) < self._most_waiting:
            return not self.stopped
        self.warnings.full(self._most_waiting)
        return False

    def _submit(self, flight: Flight) -> None:
        if self.stopped:
            self.abandoned += not flight.extra
            return
        waits = len(self._flights) >= self._max_in_flight
        if flight.device is not None or flight.late:
            self._collective.prepare(flight, waits=waits)
        flight.number = self._alignment.count
        self._alignment.count += 1
        if waits:
            self._waiting.append(flight)
        else:
            self._begin(flight)

    def _begin(self, flight: Flight) -> None:
        self._flights.append(flight)
        try:
            self._collective.launch(flight)
        except Exception as error:  # noqa: BLE001  # whatever a backend raises must not reach the training loop
            self._stop(f"it could not be launched ({error})")

    def _launch_waiting(self) -> None:
        while self._waiting and len(self._flights) < self._max_in_flight:
            self._begin(self._waiting.popleft())

    # -- landing -------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the next `launch` waits for the oldest reduction, unless that one completes before."""
        return len(self._flights) >= self._max_in_flight and not self.lags

    @property
    def oldest(self) -> Flight | None:
        """The oldest reduction that has not landed."""
        return self._flights[0] if self._flights else None

    @property
    def lags(self) -> bool:
        """Whether steps wait for their launch, or a peer is overdue: a training thread does not wait for these."""
        return self.overdue or bool(self._waiting)

    @property
    def under_way(self) -> bool:
        """Whether anything was launched, or waits for that, which has not landed."""
        return bool(self._flights or self._waiting)

    @property
    def settled(self) -> bool:
        """Whether no reduction of a step is under way."""
        return not self._owed()

    def _owed(self) -> int:
        """Return how many of the session's steps are under way and not complete."""
        # Of copies: who asks may have no lock, and another thread lands some meanwhile.
        under_way = sum(flight.owed and not flight.complete() for flight in tuple(self._flights))
        return under_way + sum(flight.owed for flight in tuple(self._waiting))

    def harvest(self) -> list[Reduced]:
        """Return the steps whose reductions are complete, oldest first, without waiting."""
        self._land_complete()
        landed, self._landed = self._landed, []
        return landed

    def _land_complete(self) -> None:
        while self._flights and self._flights[0].complete():
            self._land(self._flights.popleft())

    def finish(self, timeout: float) -> list[Reduced]:
        """Wait for the reductions of all steps under way, `timeout` seconds at most, and return what `harvest` would.

        Where a peer is overdue already, it does not wait.
        """
        deadline = time.monotonic() + timeout
        while self._owed() and not (self.overdue or self.hurries):
            self._land_oldest(deadline - time.monotonic())
        return self.harvest()

    def _land_oldest(self, timeout: float) -> None:
        flight, hurries = self._flights[0], self.hurries
        deadline, pause = time.monotonic() + timeout, _FIRST_POLL
        while not flight.complete():
            if self.hurries is not hurries:
                return
            if time.monotonic() >= deadline:
                self.overdue = True
                return
            time.sleep(pause)
            pause = min(_POLL, 2 * pause)
        self._land_complete()

    def _land(self, flight: Flight) -> None:
        try:
            self._collective.land(flight)
        except Exception as error:  # noqa: BLE001  # gloo raises RuntimeError and its kin when a peer is gone
            self._flights.appendleft(flight)
            self._stop(f"the one of step {flight.step} failed ({error})")
            return
        late: Sequence[LateValue] = ()
        has_late = self.plan.late.is_filled(flight.packed.doubles)
        if flight.closes:  # others' steps, and what was logged before each, have times of their own
            flight.time_ns = max(flight.time_ns, self._landed_ns + (1 + has_late * LANES) * LOG_APART_NS)
        if has_late:
            rows, late = self._late.land(flight, self._landed_ns)
            if rows:
                self._landed += rows
                self._landed_ns = rows[-1].time_ns
        if self.plan.everybody(flight.packed, flight.step) or self._is_of_others(flight):
            self._landed.append(self._vectors.reduced(flight, late))
            self._landed_ns = flight.time_ns
        elif flight.closes and (step := self.plan.step_of_others(flight.packed)) is not None:
            self._landed.append(self._vectors.reduced(replace(flight, step=step), late))  # they have more batches
            self._landed_ns = flight.time_ns
        else:
            self.abandoned += not flight.extra
            self._vectors.give_back(flight)
        if self._waiting:
            self._launch_waiting()
        if self.overdue and not self._waiting and len(self._flights) < self._max_in_flight:
            self.overdue = False

    def _stop(self, why: str) -> None:
        """Reduce no more: the group's next collective would fail, or meet another one."""
        lost = sum(not flight.extra for flight in (*self._flights, *self._waiting))
        self._flights.clear()
        self._waiting.clear()
        self.stopped = True
        self.abandoned += lost
        if lost or self._closing is None:
            self.warnings.stopped(why)

    # -- who takes part ------------------------------------------------------------------------------------------

    def _is_of_others(self, flight: Flight) -> bool:
        """Name who is missing in a reduction without values of all ranks, and tell whether it is one of a step."""
        others, jobs = self.plan.others(flight.packed, flight.step), self.group.job_ranks
        closed = [sign for sign in others.values() if sign.closed]
        steps = {sign.step for sign in others.values() if not sign.closed}
        absent = [jobs[rank] for rank, sign in others.items() if sign.presence is not Presence.PRESENT]
        if len(others) < len(jobs):
            steps.add(flight.step)
        is_of_others = len(absent) < len(jobs) and steps == {flight.step}
        if is_of_others and not self.hurries:
            self.warnings.missing(absent, flight.step, come_back=len(absent) > len(closed))
        elif len(steps) > 1:
            self._alignment.correct(flight.number, flight.step, max(steps))
            self.warnings.mismatch(jobs, self.plan.signs(flight.packed))
        if closed and not self._all_closed:
            self._look_who_closed(closed, flight)
        return is_of_others and not flight.closes

    # -- the end -------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether no rank will launch anything more, and nothing is under way."""
        all_closed = self._all_closed or self._closing is None  # on a GPU a rank does not wait for the others' sign
        return self.stopped or (all_closed and not self.under_way)

    def close(self, step: int, time_ns: int, rest: Measurements | None, timeout: float) -> list[Reduced]:
        """Take part for the last time, wait for what is under way, `timeout` seconds at most, and return what landed.

        Args:
            step: The session's last step.
            time_ns: The time stamp of `rest`.
            rest: What was measured since the last log step. It is reduced where all ranks close at the same step.
            timeout: Seconds that it takes at most.
        """
        deadline = time.monotonic() + timeout
        if self.group.handle is None and rest is not None:
            self.launch(step, time_ns, rest)
            rest = None
        if self.group.handle is not None:
            self._leave_logs(deadline)
        while self._late.waiting and self.group.handle is None:
            flight = self._vectors.absent(RankSign(step, Presence.ABSENT), time_ns, extra=True)
            self._late.put(flight, None, self._alignment.count)
            self._submit(flight)
        takes_part = self.group.handle is not None and not self._collective.on_gpu
        if not self.stopped and (rest is not None or takes_part):
            self._rest = rest
            sign = RankSign(step, Presence.CLOSED if rest is None else Presence.CLOSED_EARLY)
            self._closing = self._vectors.absent(sign, time_ns, extra=True)
            self._submit(self._closing)
        while self._flights and self._awaits_end() and time.monotonic() < deadline:
            self._land_oldest(deadline - time.monotonic())
        landed = self.harvest()
        self._count_unfinished()
        if self.group.handle is not None and self.group.emits:
            begin_ns, rest_of_time = max(self._landed_ns, time_ns), max(0.0, deadline - time.monotonic())
            landed += self._late.collect(begin_ns, rest_of_time, waits=self._collective.on_gpu)
        return landed

    def _awaits_end(self) -> bool:
        """Tell whether what is under way has values: this rank's, or those of others that have not closed yet."""
        others = self.group.emits and self._closing is not None and not self.overdue
        return others or self._rest is not None or bool(self._owed())

    def _leave_logs(self, deadline: float) -> None:
        """Leave what was logged beside the steps, and no reduction has taken, for the rank that emits."""
        while any(flight.logged for flight in (*self._flights, *self._waiting)) and time.monotonic() < deadline:
            self._land_oldest(deadline - time.monotonic())  # they may come back
        self._late.leave(max(0.0, deadline - time.monotonic()))

    def _count_unfinished(self) -> None:
        """Count what is not going to be recorded, and warn of it."""
        unfinished = [flight for flight in (*self._flights, *self._waiting) if flight.owed]
        for flight in unfinished:
            flight.extra, flight.logged = True, {}
        lost = len(unfinished) + (self._rest is not None)
        self._rest = None
        self.abandoned += lost
        if lost:
            self.warnings.unfinished(lost)

    def _look_who_closed(self, closed: Sequence[RankSign], flight: Flight) -> None:
        """Do the rest where all ranks have closed, and where not, take part in what the others launch."""
        last = flight.number + self._max_in_flight
        if len(closed) < self.group.world_size:
            self._some_closed = True
            if self._closing is not None and not self._collective.on_gpu:
                self._take_part_until(last)
            return
        self._all_closed = True
        if self._some_closed:  # one that closed earlier has launched this many
            self._take_part_until(last - 1)
        early = {sign.step for sign in closed if sign.presence is Presence.CLOSED_EARLY}
        if early:
            newest = max(sign.step for sign in closed)
            # A step that some rank has recorded is out; what is left belongs to the one after it.
            self._reduce_rest(newest if newest in early else newest + 1)

    def _take_part_until(self, number: int) -> None:
        assert self._closing is not None
        while self._alignment.count <= number and not self.stopped:
            # A rank that a signal ends a little later than this one takes what is left here too.
            early = self.hurries and self._rest is not None
            sign = RankSign(self._closing.step, Presence.CLOSED_EARLY if early else Presence.CLOSED)
            self._submit(self._vectors.absent(sign, self._closing.time_ns, extra=True))

    def _reduce_rest(self, step: int) -> None:
        """Reduce what is left after the last log step; a rank's at an earlier one is lost, unless a signal ends it."""
        assert self._closing is not None
        rest, self._rest = self._rest, None
        time_ns = max(self._closing.time_ns, self._landed_ns + LOG_APART_NS)
        if rest is not None and (self._closing.step == step or self.hurries):
            flight = self._vectors.pack(step, time_ns, rest)
            self._late.put(flight, rest, self._alignment.count)
            self._submit(flight)
        else:
            if rest is not None:
                self.abandoned += 1
                self.warnings.left_behind(self._closing.step)
            self._submit(self._vectors.absent(RankSign(step, Presence.ABSENT), time_ns, extra=True))
