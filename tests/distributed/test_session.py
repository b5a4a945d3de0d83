"""Sessions and reductions over two real ranks."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest
import torch.distributed as dist

import otel_train
from otel_train.catalogue import rows
from otel_train.exceptions import ConfigurationError, SchemaMismatchError
from otel_train.log_once import OnceLogger
from otel_train.mixing import MixingMeter
from otel_train.ring import Kind
from otel_train.step import rank_group, reduction
from otel_train.step.clock import wait_until
from otel_train.step.reduction import Reducer
from tests.support.on_ranks import BOUND, Job

pytestmark = pytest.mark.ranks(2)


def meter() -> MixingMeter:
    """Return a meter with two open slots."""
    made = MixingMeter(2, ["a", "b"], {"a": 1, "b": 3})
    made.open(0, "a")
    made.open(1, "b")
    return made


def train(job: Job, steps: range | list[int]) -> None:
    """Take those steps without waiting; the loss of step n is n on rank 0 and 10 n on rank 1."""
    with job.session(max_in_flight=20) as telemetry:
        for step in steps:
            telemetry.step(step, {"loss": float(step * 10**job.rank)})
        job.barrier()
    job.barrier()


def test_aggregate_equals_hand_worked_values(job: Job) -> None:
    """Rank 0 picks a once, rank 1 picks b twice: weighted means, the maximum with its rank, one divergence."""
    source = meter()
    source.pick(job.rank, rows=job.rank + 1, tokens=10)
    source.end_step(1)
    values = otel_train.aggregate_step_metrics([source], 3)
    # Ages at step 3 of four readers: the two that were picked in step 1, and the two that never were, 2 each.
    assert values["stream_mixing/staleness_mean"] == 2.0
    assert values["stream_mixing/picks"] == 3
    assert values["stream_mixing/staleness_max_rank"] == 0
    assert values["stream_mixing/modality_share/b"] == pytest.approx(2 / 3, rel=1e-3)
    assert values["stream_mixing/modality_target/b"] == pytest.approx(3 / 4)
    assert values["stream_mixing/tokens/a"] == 10
    assert job.gather(values) == [values] * 2


def test_loss_metrics_are_means_or_totals(job: Job) -> None:
    """Means by default, cluster totals for sum_keys, and what the largest rank has beside them; twice alike."""
    for step in (1, 2):
        values = otel_train.reduce_loss_metrics({"x": job.rank, "n": step + job.rank}, sum_keys=["n"])
        assert values == {"n": 2.0 * step + 1, "n_max": step + 1.0, "x": 0.5}


def test_other_keys_raise_everywhere(job: Job) -> None:
    """In a blocking call a key that rank 1 alone gives is named; nobody waits for who raised."""
    with pytest.raises(SchemaMismatchError, match=r"^metric 'y' is given by rank 1 and not by rank 0"):
        otel_train.reduce_loss_metrics({"x": 1.0, **({"y": 1.0} if job.rank else {})})


@pytest.mark.parametrize("call", ["init", "step"])
def test_long_wait_is_told(job: Job, call: str) -> None:
    """A rank that waits for others which don't call `init`, or make no step, says so long before the group's end."""
    told = job.folder / "told"

    class Tells(logging.Handler):
        """Lets rank 1 come as soon as rank 0 has said that it waits."""

        def emit(self, _: logging.LogRecord) -> None:
            """Note it."""
            told.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_group, "_WARNINGS", OnceLogger(rank_group.logger))
        patch.setattr(rank_group.logger, "handlers", [Tells()] if job.rank == 0 else [])
        telemetry = job.session() if call == "step" else None
        patch.setattr(rank_group, "PATIENCE", 0.01)
        if job.rank:
            assert wait_until(told.exists, BOUND)
        with telemetry or job.session() as telemetry:
            telemetry.step(1)
    assert job.rank or any("rank 0 has waited" in text and "if rank == 0" in text for text in job.warnings)


def test_missing_threads_cost_no_row(job: Job) -> None:
    """Ranks that may start no thread, as at a limit of their user's, begin, record every row of the cluster, and warn
    of nothing.
    """

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with job.session(max_in_flight=8) as telemetry:
            for step in range(1, 6):
                telemetry.step(step, {"loss": float(step + job.rank)})
    job.barrier()
    assert job.cluster() == {step: step + 0.5 for step in range(1, 6)}
    assert job.warnings == []


def test_first_keys_are_joined(job: Job) -> None:
    """A session's first step may have other keys on each rank; one that they declare differently is named."""
    with job.session(blocking=True) as telemetry:
        values = telemetry.step(1, {"loss": 1.0 + job.rank, f"of{job.rank}": 5.0})
    assert {"loss": 1.5, "of0": 5.0, "of1": 5.0}.items() <= (values or {}).items()
    declared = [otel_train.Scalar("x", "sum")] if job.rank else []
    with (
        job.session("other", metrics=declared) as telemetry,
        pytest.raises(
            SchemaMismatchError, match=r"^metric 'x' is \['', 'gauge', 'mean'\] on rank 0 and .*'sum'\] on rank 1"
        ),
    ):
        telemetry.step(1, {"x": 1.0})


def test_wrong_key_raises_everywhere(job: Job) -> None:
    """A wrong key of rank 1 alone is an error on all."""
    complaint = "^rank 1: metric '_loss': wandb keeps names that begin with '_'"
    with job.session() as telemetry, pytest.raises(ConfigurationError, match=complaint):
        telemetry.step(1, {("_loss" if job.rank else "loss"): 1.0})


def test_long_run_id_raises_everywhere(job: Job) -> None:
    """A run id that is too long on rank 1 alone is an error on all, before the first step."""
    with pytest.raises(ConfigurationError, match=r"^rank 1: run_id must be at most 128 printable characters, got 'rrr"):
        _ = job.session(run_id="r" * (129 if job.rank else 8)).identity


def test_unreadable_value_costs_itself(job: Job) -> None:
    """At the first step too, where nobody waits for that rank; it is counted."""
    with job.session(blocking=True) as telemetry:
        for step in (1, 2):
            row = telemetry.step(step, {"loss": "high" if job.rank else 2.0, "other": 1.0}) or {}
            assert (row.get("loss"), row.get("other"), row.get("telemetry/values_dropped")) == (2.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("log_every", (1, 2)),
        ("blocking", (False, True)),
        ("max_in_flight", (4, 5)),
        ("reduction_timeout", (2.0, 3.0)),
        ("close_timeout", (0.3, 0.4)),
        ("rank_interval", (10.0, 1.0)),
    ],
)
def test_other_options_raise_everywhere(option: str, values: tuple[Any, Any], job: Job) -> None:
    """The message names option, ranks and values."""
    complaint = f"^telemetry.{option} is {values[1]} on rank 1 and {values[0]} on rank 0; give all ranks the same$"
    with (
        job.session(**{option: values[job.rank]}) as telemetry,
        pytest.raises(ConfigurationError, match=complaint),
    ):
        telemetry.step(1, {"loss": 1.0})


def test_ring_sizes_may_differ(job: Job) -> None:
    """A ring is its rank's own."""
    with job.session(ring_records=(64, 128)[job.rank], blocking=True) as telemetry:
        assert (telemetry.step(1, {"loss": 1.0}) or {})["loss"] == 1.0


def test_blocking_returns_same_step(job: Job) -> None:
    """On every rank."""
    with job.session(blocking=True) as telemetry:
        for step in (1, 2, 3):
            assert (telemetry.step(step, {"loss": float(step + job.rank)}) or {})["loss"] == step + 0.5


def test_late_values_keep_their_step(job: Job) -> None:
    """However late a reduction is harvested; and the ranks have loaded torch and the standard library only."""
    source = meter()
    with job.session(sources=[source]) as telemetry:
        for step in range(1, 31):
            source.pick(0, rows=step * (job.rank + 1))
            telemetry.step(step, {"loss": float(step)})
        job.barrier()
    job.barrier()
    service_side = ("opentelemetry", "grpc", "google.protobuf", "wandb", "rich", "click")
    assert [name for name in service_side if name in sys.modules] == []
    assert job.cluster(rows.PICKS.wandb_key) == {step: 3.0 * step for step in range(1, 31)}


def test_skipped_step_costs_itself(job: Job) -> None:
    """Steps that the ranks do not share are thrown away and counted, and the next one is right."""
    with job.session(blocking=True) as telemetry:
        given = [bool(telemetry.step(step, {"loss": 1.0})) for step in ((1, 3, 4) if job.rank else (1, 2, 4))]
    assert given == [True, False, True]
    job.barrier()
    assert list(job.cluster()) == [1, 4]
    assert [job.ring(rank).progress.abandoned for rank in range(2)] == [1, 1]


@pytest.mark.parametrize(("missing", "last"), [([4], 10), ([*range(6, 13)], 12)], ids=["leaves one out", "ends early"])
def test_step_lacks_absent_rank(missing: list[int], last: int, job: Job) -> None:
    """A rank that leaves out a step, or ends earlier, costs the others nothing; it is named once."""
    train(job, [step for step in range(1, last + 1) if job.rank == 0 or step not in missing])
    steps = range(1, last + 1)
    assert job.cluster() == {step: float(step) if step in missing else 5.5 * step for step in steps}
    assert job.cluster("train/ranks") == {step: 1.0 if step in missing else 2.0 for step in steps}
    progress = job.ring().progress
    assert (progress.step, progress.closed, progress.abandoned) == (last, True, 0)
    if job.rank == 0:
        (warning,) = job.warnings
        assert f"rank 1 takes no part in the reduction of step {missing[0]}" in warning


@pytest.mark.parametrize(
    ("log_every", "steps", "steps_of_1", "picks"),
    [
        (10, range(1, 26), range(1, 26), {10: 20.0, 20: 20.0, 25: 10.0}),
        (1000, range(1, 26), range(1, 26), {25: 50.0}),
        (10, range(1, 32, 10), range(1, 32, 10), {11: 4.0, 21: 2.0, 31: 2.0}),
        # Rank 0's alone at its end, since rank 1's was another step.
        (10, range(1, 26), range(1, 24), {10: 20.0, 20: 20.0, 25: 5.0}),
    ],
    ids=["rest", "only rest", "stride", "other rests"],
)
def test_rest_makes_last_row(
    log_every: int, steps: range, steps_of_1: range, picks: dict[int, float], job: Job
) -> None:
    """It has the rest after the last log step, of all ranks that end with the same step; so the rows have all picks."""
    source, alike = meter(), steps == steps_of_1
    with job.session(sources=[source], log_every=log_every) as telemetry:
        for step in steps_of_1 if job.rank else steps:
            source.pick(0)
            telemetry.step(step, {"loss": 1.0})
    job.barrier()
    assert job.cluster(rows.PICKS.wandb_key) == picks
    assert [job.ring(rank).progress.abandoned for rank in range(2)] == [0, int(not alike)]


def test_other_numbers_warn_once(job: Job) -> None:
    """Nothing of one step is recorded with what belongs to another, and nobody waits for long."""
    train(job, range(101, 113) if job.rank else range(1, 13))
    # A row of what rank 1 still makes when rank 0 has closed is rank 1's alone.
    assert {(step > 100, ranks) for step, ranks in job.cluster("train/ranks").items()} <= {(True, 1.0)}
    assert sum(text.count("not at the same step (rank 0: 1, rank 1: 101)") for text in job.warnings) == 1
    assert job.ring().progress.abandoned == 12


@pytest.mark.parametrize(
    ("batches", "mean"),
    [(([(1, None), (2, None), (6, None)], [(7, None)]), 4.0), (([(8, 1), (4, 3)], [(2, 4)]), 3.5)],
    ids=["repeated", "added"],
)
def test_micro_batches_make_one_mean(batches: tuple[list[tuple[int, int | None]], ...], mean: float, job: Job) -> None:
    """Each call of `step` counts once, and each of `add` by its weight, however many a rank makes."""
    with job.session(max_in_flight=8) as telemetry:
        for step in range(1, 6):
            for loss, tokens in batches[job.rank]:
                values = {"loss": float(step * loss)}
                if tokens is None:
                    telemetry.step(step, values)
                else:
                    telemetry.add(values, weight=tokens)
            if tokens is not None:
                telemetry.step(step)
    job.barrier()
    assert job.cluster() == {step: step * mean for step in range(1, 6)}
    assert job.warnings == []


def test_reductions_in_flight_are_bounded(job: Job) -> None:
    """Rank 0 goes three steps ahead of rank 1, and does not end the fifth before rank 1 has come; it warns once."""

    def reducer_of(telemetry: otel_train.Telemetry) -> Reducer:
        """Return a session's reducer, which it has from the first step on."""
        assert telemetry._running is not None
        return telemetry._running.reducer

    store = dist.distributed_c10d._get_default_store()
    flights, came = [], []
    with pytest.MonkeyPatch.context() as patch, job.session(max_in_flight=3) as telemetry:
        patch.setattr(reduction, "PATIENCE", BOUND)
        for step in range(1, 7):
            if job.rank == 1 and step == 2:
                telemetry.flush(0.0)  # the first step waits for further calls of it
                store.wait(["filled"])
                time.sleep(0.3)
                store.set("came", "")
            telemetry.step(step, {"loss": 1.0})
            flights.append(len(reducer_of(telemetry)._flights))
            came.append(store.check(["came"]))
            if job.rank == 0 and step == 4:
                telemetry.flush(0.0)
                store.set("filled", "")
        telemetry.flush(BOUND)
    if job.rank == 0:
        assert (max(flights), came) == (3, [False] * 4 + [True] * 2)
        assert ["Raise log_every" in warning for warning in job.warnings] == [True]
    job.barrier()
    assert list(job.cluster()) == [1, 2, 3, 4, 5, 6]


def test_close_counts_missing_steps(job: Job) -> None:
    """Rank 0 trains on, and counts at its end all eight steps that rank 1 did not come to before."""
    store = dist.distributed_c10d._get_default_store()
    with job.session(max_in_flight=3, reduction_timeout=0.3, close_timeout=0.3) as telemetry:
        for step in range(1, 10):
            if job.rank == 1 and step == 2:
                store.wait(["ended"])
            telemetry.step(step, {"loss": 1.0})
            if step == 1:
                telemetry.flush(BOUND)
    if job.rank == 0:
        store.set("ended", "")
        told = ["8 log steps up to the end are not in the cluster's values" in text for text in job.warnings]
        assert told.count(True) == 1
    job.barrier()
    ring = job.ring()
    assert [record.step for record in ring.read(0, 100)[0] if record.kind is Kind.RANK] == list(range(1, 10))
    assert (list(job.cluster()), ring.progress.abandoned) == ([1], 8)


@pytest.mark.ranks(2, leaves=True)
def test_leaving_rank_stops_nobody(job: Job) -> None:
    """The other one trains on and closes within its bounds, and what was lost is counted."""
    with job.session(max_in_flight=2, close_timeout=0.5) as telemetry:
        for step in range(1, 21):
            telemetry.step(step, {"loss": 1.0})
            if step == 3:
                if job.rank == 1:
                    job.leave()
                assert wait_until(lambda: job.left, BOUND)
    progress = job.ring().progress
    assert (progress.step, progress.closed) == (20, True)
    assert progress.abandoned >= 16


def test_worker_outlives_closed_session(job: Job) -> None:
    """A forked worker that collects the garbage of a session which its parent has closed goes on: it used to hang."""
    gc.collect()
    gc.freeze()  # what the tests before left: their own groups would hang the worker
    gc.disable()
    with job.session(sources=[meter()], blocking=True) as telemetry:
        telemetry.step(1)
    del telemetry
    worker = os.fork()
    if not worker:
        signal.alarm(int(BOUND))
        gc.collect()
        os._exit(0)
    gc.enable()
    gc.unfreeze()
    assert os.waitpid(worker, 0)[1] == 0
