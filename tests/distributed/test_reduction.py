"""Reductions over four real ranks: what they give, and that no rank's trouble is another's hang."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from logging.handlers import BufferingHandler
from typing import Any

import pytest
import torch.distributed as dist
from torch.autograd.profiler import profile
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import otel_train
from otel_train.catalogue import Metric, Reduction
from otel_train.exceptions import ConfigurationError, OtelTrainError, SchemaMismatchError
from otel_train.mixing import MixingMeter
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.step.environment import Environment
from otel_train.step.identity_agreement import agree_identity, starts_sidecar
from otel_train.step.rank_group import RankGroup
from tests.support.on_ranks import BOUND, Job

pytestmark = pytest.mark.ranks(4)


class Fails:
    """A source that fails on rank 1 at step 3."""

    metrics = (Metric("n", Reduction.SUM),)

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
        """Return what this rank adds."""
        if self.rank == 1 and step == 3:
            raise OSError("gone")
        return {"n": self.rank}


def data_mesh() -> DeviceMesh:
    """Return the data dimension of a 2 x 2 mesh: ranks 0 and 2, and ranks 1 and 3."""
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))["data"]


def subgroup(*ranks: int) -> dist.ProcessGroup | None:
    """Return a group of those ranks; None on the others, which take part in making it."""
    made = dist.new_group(list(ranks))
    return made if isinstance(made, dist.ProcessGroup) else None


def meter() -> MixingMeter:
    """Return a meter with one open slot."""
    made = MixingMeter(1, ["code"], {"code": 1.0})
    made.open(0, "code")
    return made


def test_oldest_reader_names_its_rank(job: Job) -> None:
    """At step 5 rank 2's reader was last picked in step 1, the others' in step 4: ages 1, 1, 4 and 1."""
    source = meter()
    for step in range(1, 5):
        if job.rank != 2 or step == 1:
            source.pick(0)
        source.end_step(step)
    values = otel_train.aggregate_step_metrics([source], 5)
    assert [values[f"stream_mixing/staleness_{name}"] for name in ("mean", "max", "max_rank")] == [7 / 4, 4.0, 2.0]


@pytest.mark.parametrize(
    ("before", "metrics", "of_rank_1", "complaint"),
    [
        ([{"x": 1}], {"x": 1}, {"x": 1, "y": 1}, "metric 'y' is given by rank 1 and not by rank 0"),
        ([{"x": 1, "z": 1}, {"x": 1}], {"x": 1}, {"x": 1, "z": 1}, "metric 'z' is given by rank 1 and not by rank 0"),
        ([{"x": 1}], {"x": 1}, {"x": "high"}, "rank 1: metric 'x' must be a number"),
    ],
    ids=["later key", "earlier key", "no number"],
)
def test_one_ranks_keys_raise_everywhere(
    before: list[dict[str, float]], metrics: Mapping[str, Any], of_rank_1: Mapping[str, Any], complaint: str, job: Job
) -> None:
    """A wrong key or value of one rank in a later call is an error on all, and afterwards the ranks still meet."""
    for agreed in before:
        otel_train.reduce_loss_metrics(agreed)
    with pytest.raises((ConfigurationError, SchemaMismatchError), match=f"^{complaint}"):
        otel_train.reduce_loss_metrics(of_rank_1 if job.rank == 1 else metrics)
    assert otel_train.reduce_loss_metrics({"x": float(job.rank)}) == {"x": 1.5}


def test_one_ranks_totals_raise_everywhere(job: Job) -> None:
    """A key whose total is asked for and that is missing, and a total where the others have a mean."""
    with pytest.raises(ConfigurationError, match=r"^rank 1: sum_keys names 'n'"):
        otel_train.reduce_loss_metrics({"x": 1.0, **({} if job.rank == 1 else {"n": 1.0})}, sum_keys=["n"])
    otel_train.reduce_loss_metrics({"x": 1.0})
    with pytest.raises(SchemaMismatchError, match=r"^metric 'x' is \['', 'gauge', 'mean'\] on rank 0"):
        otel_train.reduce_loss_metrics({"x": 1.0}, sum_keys=["x"] if job.rank == 1 else [])
    assert otel_train.reduce_loss_metrics({"x": float(job.rank)}) == {"x": 1.5}


def test_groups_errors_name_job_ranks(job: Job) -> None:
    """In a group of ranks 2 and 3, the second lacks a key: both are told, by their ranks within the job."""
    pair = subgroup(2, 3)
    if pair is not None:
        with pytest.raises(SchemaMismatchError, match=r"^metric 'y' is given by rank 2 and not by rank 3"):
            otel_train.reduce_loss_metrics({"x": 1.0, **({"y": 1.0} if job.rank == 2 else {})}, process_group=pair)


def test_agreed_keys_cost_one_collective(job: Job) -> None:
    """Counted of calls whose keys are agreed on: the same one, again, another one, which agrees first, and again."""
    source, steps = meter(), itertools.count(1)

    def loss() -> object:
        return otel_train.reduce_loss_metrics({"x": float(job.rank)})

    def sources() -> object:
        return otel_train.aggregate_step_metrics([source], next(steps))

    def collectives(call: Callable[[], object]) -> int:
        with profile() as recording:  # that of torch.profiler loads the whole compiler
            call()
        return sum(event.name.startswith("gloo:") for event in recording.function_events or ())

    for call in (loss, sources):
        call()
    assert [collectives(call) for call in (sources, sources, loss, loss)] == [1, 1, 2, 1]


def test_raising_source_raises_everywhere(job: Job) -> None:
    """Its own error on its rank; the others' names the rank, none of them waits, and the next step has values again."""
    source = Fails(job.rank)
    error, message = (OSError, "gone") if job.rank == 1 else (OtelTrainError, "rank 1 could not measure; its own error")
    with pytest.raises(error, match=f"^{message}"):
        otel_train.aggregate_step_metrics([source], 3)
    assert otel_train.aggregate_step_metrics([source], 4)["n"] == 6.0


def test_session_outlives_failing_source(job: Job) -> None:
    """In step 3 the others' values stay: 0 + 1 + 2 + 3 in the other steps."""
    with job.session(sources=[Fails(job.rank)], blocking=True) as telemetry:
        assert [(telemetry.step(step) or {}).get("n") for step in range(1, 6)] == [6.0, 6.0, 5.0, 6.0, 6.0]


def test_short_flush_loses_nothing(job: Job) -> None:
    """Rank 0 flushes while rank 1 is late, and has the last step's values once all have come to it."""
    with job.session() as telemetry:
        telemetry.step(1, {"x": 1.0})
        time.sleep(0.4 * (job.rank == 1))
        telemetry.step(2, {"x": 2.0})
        telemetry.flush(0.02)
        job.barrier()
        telemetry.step(3, {"x": 3.0})
        telemetry.flush(BOUND)
        assert (telemetry.latest[0], telemetry.latest[1]["x"]) == (3, 3.0)


def test_mesh_names_job_ranks(job: Job) -> None:
    """Data groups are ranks 0 and 2, and 1 and 3: the rank of a maximum is the job's, not the group's."""
    peak = Metric("peak", Reduction.MAX)
    with job.session(process_group=data_mesh(), blocking=True, metrics=[peak]) as telemetry:
        values = telemetry.step(1, {"peak": float(job.rank)}) or {}
    assert (values["peak"], values["peak_rank"]) == ((2.0, 2.0), (3.0, 3.0))[job.rank % 2]


def test_two_sessions_reduce_apart(job: Job) -> None:
    """At once, over a dimension of a mesh and over all ranks; rank 0 alone writes the cluster's values of each."""
    train, evaluation = meter(), meter()
    data = job.session("data", sources=[train], process_group=data_mesh(), blocking=True)
    everybody, key = job.session("all", sources=[evaluation], blocking=True), train.metrics[0].wandb_key
    with data, everybody:
        for step in (1, 2):
            # Tensor-parallel peers see the same data: the same picks on ranks 0 and 1, and on 2 and 3. They count once.
            train.pick(0, rows=10 ** (job.rank // 2))
            evaluation.pick(0, rows=10**job.rank)
            of_data = data.step(step, {"loss": float(job.rank // 2)}) or {}
            of_all = everybody.step(step) or {}
            assert (of_data[key], of_data["loss"], of_all[key]) == (11, 0.5, 1111)
    job.barrier()
    for name in ("data", "all"):
        readers = [RingReader(path) for path in ring_files(job.folder / name)]
        kinds = {reader.identity.rank: {record.kind for record in reader.read(0, 100)[0]} for reader in readers}
        assert [rank for rank, written in kinds.items() if Kind.CLUSTER in written] == [0]
        assert all(Kind.RANK in written for written in kinds.values())


def test_group_without_rank_0(job: Job) -> None:
    """Rank 1 says that the cluster's values go nowhere, and starts the sidecar: local rank 0 is not with them."""
    pair = subgroup(1, 2)
    if pair is None:
        return
    heard = BufferingHandler(100)
    logging.getLogger("otel_train.step.membership").addHandler(heard)
    with job.session(process_group=pair, blocking=True) as telemetry:
        values = telemetry.step(1, {"loss": float(job.rank)}) or {}
        environment, group = Environment.read(), RankGroup.of(pair, own=False)
        agreed = agree_identity(environment, group, "", lambda _: job.folder, [])
        serves = starts_sidecar(agreed, group, environment.host)
    told = ["reduce without rank 0" in record.getMessage() for record in heard.buffer]
    assert (values["loss"], told.count(True), serves) == (1.5, int(job.rank == 1), job.rank == 1)
    dist.barrier(pair)
    for path in ring_files(job.folder / "rings"):
        assert {record.kind for record in RingReader(path).read(0, 100)[0]} == {Kind.RANK}


def test_groups_share_run_and_attempt(job: Job) -> None:
    """Over a mesh all groups have one; the next session has another one, also where some ranks had one more before."""
    os.environ.pop("TORCHELASTIC_RUN_ID")  # so that run ids are made up
    pair = subgroup(1, 2)
    begun = [job.session(process_group=pair)] if pair is not None else []
    begun += [job.session(process_group=data_mesh()), job.session()]
    identities = job.gather([(session.identity.run_id, session.identity.attempt) for session in begun])
    of_pair, of_mesh, of_all = identities[1]
    assert identities == [[of_mesh, of_all], [of_pair, of_mesh, of_all], [of_pair, of_mesh, of_all], [of_mesh, of_all]]
    assert len({run_id for run_id, _ in identities[1]}) == 3
    assert of_pair[1] < of_mesh[1] < of_all[1]


def test_attempts_grow_over_new_groups(job: Job) -> None:
    """Nothing is known of the old store when process groups are made anew, and yet no ring replaces another."""
    attempts = []
    for store in (None, job.folder / "store"):
        if store is not None:
            dist.barrier()
            dist.destroy_process_group()
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=job.rank, world_size=4)
        for group in (None, data_mesh()):
            with job.session(process_group=group) as telemetry:
                telemetry.step(1)
                attempts.append(telemetry.identity and telemetry.identity.attempt)
    assert job.gather(attempts) == [sorted(set(attempts))] * 4
    assert len(ring_files(job.folder / "rings")) == 16
