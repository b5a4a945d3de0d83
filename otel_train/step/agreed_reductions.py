"""Reduce, and wait, by a schema that the ranks of a group have agreed on: one collective, whatever a rank asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch.distributed as dist

from otel_train.exceptions import OtelTrainError
from otel_train.ring import Schema
from otel_train.step.flight import Collective, Flight
from otel_train.step.packing import PackingPlan, Presence, RankSign
from otel_train.step.rank_group import RankGroup
from otel_train.step.recorder import Measurements
from otel_train.step.schema_agreement import agree_schema
from otel_train.torch_modes import outside_modes

_TIMEOUT = 600.0
_POLL = 0.0005
"""Seconds between two looks; a wait within the collective could not be interrupted."""
_MOST_AGREED = 64
"""Schemas that a group remembers: a job may make up keys as it goes."""


class AgreedReductions:
    """The schemas that the ranks of a group have agreed on.

    All ranks have the same ones in the same order, and know which was used last, so that the size of the next
    collective is certain. A rank that has another schema says in it which one; if that is not the same one on all
    ranks, they agree anew. Ranks must not decide alone whether to agree: gloo ends a process whose collective meets
    another one.
    """

    def __init__(self) -> None:
        # Nothing here keeps the process group: it is to go when the job gives it back.
        self._agreed: dict[str, PackingPlan] = {}
        self._newest: str | None = None

    @outside_modes
    def reduce(
        self, group: RankGroup, schema: Schema, step: int, measure: Callable[[], Measurements], problem: str = ""
    ) -> Sequence[float]:
        """Return the values over all ranks; a collective that waits.

        Args:
            group: The ranks, the same ones at each call.
            schema: What this rank measures.
            step: The step that it belongs to.
            measure: Returns what it has measured; called once, when it is certain that all ranks have the same schema.
            problem: What is wrong on this rank. It is raised on all of them.

        Raises:
            SchemaMismatchError: The ranks measure different things.
            ConfigurationError: Some rank has a problem.
            OtelTrainError: A rank is gone, at another step, or could not measure.
        """
        key = "" if problem else json.dumps([schema.modalities, schema.describe()])
        measured: Measurements | None = None
        failure: Exception | None = None
        while True:
            if self._newest is None:
                agree_schema(None if problem else schema, group, problem)
                self._remember(key, PackingPlan.of(schema.layout(), group.world_size))
            assert self._newest is not None, "either it was, or it was remembered just now"
            plan = self._agreed[self._newest]
            if key == self._newest:
                try:
                    measured = measured or measure()
                    flight = Flight(step, 0, plan.pack(step, measured.values, group.rank), measured.device)
                except Exception as error:  # noqa: BLE001  # a source's own; the others must not wait for this rank
                    failure = error
                    flight = Flight(step, 0, plan.pack_absent(RankSign(step, Presence.CLOSED), group.rank))
            else:
                number = list(self._agreed).index(key) + 1 if key in self._agreed else 0
                flight = Flight(step, 0, plan.pack_absent(RankSign(number, Presence.ABSENT), group.rank))
            _run(Collective(plan, group), flight)
            if failure is not None:
                raise failure
            if plan.everybody(flight.packed, step):
                values = plan.unpack(flight.packed, step)
                assert values is not None, "all ranks have values of the step"
                plan.name_ranks(values, group.job_ranks)
                return values
            self._choose(list(zip(group.job_ranks, plan.signs(flight.packed), strict=True)))

    def _remember(self, key: str, plan: PackingPlan) -> None:
        if len(self._agreed) >= _MOST_AGREED:
            self._agreed.clear()
        self._agreed[key] = plan
        self._newest = key

    def _choose(self, jobs: Sequence[tuple[int, RankSign]]) -> None:
        """Choose the schema that all ranks ask for; none, so that they agree anew, where they ask for several.

        Raises:
            OtelTrainError: They have the same schema, and no values of one step.
        """
        failed = [rank for rank, sign in jobs if sign.presence is Presence.CLOSED]
        if failed:
            raise OtelTrainError(f"rank {failed[0]} could not measure; its own error says why")
        if all(sign.presence is Presence.PRESENT for _, sign in jobs):
            steps = ", ".join(f"rank {rank}: {sign.step}" for rank, sign in jobs[:8])
            raise OtelTrainError(f"the ranks are at different steps ({steps}); call it for the same step on all ranks")
        asked = {sign.step if sign.presence is Presence.ABSENT else 0 for _, sign in jobs}
        number = asked.pop() if len(asked) == 1 else 0
        self._newest = list(self._agreed)[number - 1] if number else None


def _run(collective: Collective, flight: Flight) -> None:
    try:
        collective.prepare(flight, waits=False)
        collective.launch(flight)
        deadline = time.monotonic() + _TIMEOUT
        while not flight.complete():
            if time.monotonic() >= deadline:
                raise OtelTrainError(f"the values were not reduced within {_TIMEOUT:.0f} s: a rank does not come")
            time.sleep(_POLL)
        collective.land(flight)
    except RuntimeError as error:  # gloo's, and those that torch.distributed derives from it
        raise OtelTrainError(f"the values could not be reduced: a rank is gone ({error})") from error


def agreed_reductions(group: RankGroup) -> AgreedReductions:
    """Return what the ranks of a group have agreed on so far."""
    if group.handle is None:
        return AgreedReductions()
    return _GROUPS.setdefault(group.handle, AgreedReductions())


_GROUPS: WeakKeyDictionary[dist.ProcessGroup, AgreedReductions] = WeakKeyDictionary()
