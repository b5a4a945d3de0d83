"""Packing, scalars, sources, environment: what a step does before and after the collective. No other process needed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

import otel_train
from otel_train.catalogue import ABSENT, LEDGER, MIXING, Layout, Metric, Reduction, rows
from otel_train.exceptions import ConfigurationError, StateMismatchError
from otel_train.mixing import MixingMeter
from otel_train.ring import Kind, RingReader, ring_files
from otel_train.step.environment import Environment
from otel_train.step.packing import Packed, PackingPlan
from otel_train.step.recorder import Recorder
from otel_train.step.scalar_recorder import ScalarRecorder
from otel_train.step.value_source import drain_of

pytestmark = pytest.mark.usefixtures("external_sidecar")

PEAK = Metric("peak", Reduction.MAX)
LAYOUT = Layout((*MIXING, *LEDGER, Metric("loss"), PEAK), ("a", "b"))
COUNTS = st.integers(0, 2**53 // 8)
RANK = st.tuples(
    st.lists(COUNTS, min_size=LAYOUT.sums, max_size=LAYOUT.sums),
    st.lists(st.one_of(st.just(ABSENT), COUNTS.map(float)), min_size=LAYOUT.peaks, max_size=LAYOUT.peaks),
)


def add_up(packed: Sequence[Packed]) -> Packed:
    """Do what the collective does, in place."""
    for each in packed[1:]:
        packed[0].vector.add_(each.vector)
    return packed[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(RANK, min_size=1, max_size=8), st.integers(1, 2**31), st.randoms())
def test_packed_sum_reduces_each_metric(ranks: list[tuple[list[int], list[float]]], step: int, random: Any) -> None:
    """One sum of packed vectors gives what a reduction metric by metric does, exact to 2**53, with the lowest rank of
    each maximum.
    """
    plan = PackingPlan.of(LAYOUT, len(ranks))
    used = [plan.pack(0, [1.0] * (plan.sums + plan.peaks), rank) for rank in reversed(range(len(ranks)))]
    packed = [plan.pack(step, [*sums, *peaks], rank, used[rank]) for rank, (sums, peaks) in enumerate(ranks)]
    random.shuffle(packed)
    reduced = plan.unpack(add_up(packed), step)
    assert reduced is not None
    sums, peaks, peak_ranks = LAYOUT.split(reduced)
    assert sums == [sum(column) for column in zip(*(sums for sums, _ in ranks), strict=True)]
    candidates = list(zip(*(peaks for _, peaks in ranks), strict=True))
    assert peaks == [max(column) for column in candidates]
    assert peak_ranks == [column.index(max(column)) for column in candidates]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_nan_stays_in_its_scalar(poison: float) -> None:
    """NaN and infinity reach the cluster's value of their scalar, and no other value."""
    layout = Layout((rows.PICKS, Metric("loss"), PEAK, Metric("other", Reduction.MAX)))
    plan = PackingPlan.of(layout, 2)
    packed = [plan.pack(1, [3.0, poison, 1.0, poison, 5.0], 0), plan.pack(1, [4.0, 2.0, 1.0, ABSENT, 6.0], 1)]
    reduced = plan.unpack(add_up(packed), 1)
    assert reduced is not None
    values = layout.by_key(*layout.split(reduced))
    assert (values["stream_mixing/picks"], values["other"], values["other_rank"]) == (7.0, 6.0, 1.0)
    assert values["loss"] == pytest.approx(poison, nan_ok=True)
    assert values.get("peak", -math.inf) == pytest.approx(poison, nan_ok=True)


@pytest.mark.parametrize("world_size", [3, 1000])
@pytest.mark.parametrize("top", [8.0, math.nan])
def test_lowest_rank_has_maximum(top: float, world_size: int) -> None:
    """The lowest rank has a maximum that several share, and a NaN stays, in a job of any size."""
    plan = PackingPlan(1, 4, world_size)
    ranks = [[1.0, top if rank == 1 else 7.0, ABSENT, 5.0, 2.0 * (rank > 0)] for rank in range(world_size)]
    reduced = add_up([plan.pack(1, values, rank) for rank, values in enumerate(ranks)])
    assert plan.unpack(reduced, 1) == pytest.approx(
        [world_size, top, ABSENT, 5.0, 2.0, 1.0, 0.0, 0.0, 1.0], nan_ok=True
    )


@pytest.mark.parametrize("steps", [(5, 6), (6, 4), (5, 4)])
def test_different_steps_give_nothing(steps: tuple[int, int]) -> None:
    """Ranks at different steps each see the mismatch, and the vector gives no values."""
    plan = PackingPlan(1, 1, 2)
    reduced = add_up([plan.pack(step, [1.0, 1.0], rank) for rank, step in enumerate(steps)])
    assert [plan.unpack(reduced, step) for step in steps] == [None, None]


@pytest.mark.modes
def test_scalars_follow_their_reductions() -> None:
    """Scalars are accumulated by their reductions: means keep weights, and a tensor with a gradient is a number."""
    metrics = [Metric("m"), Metric("s", Reduction.SUM), Metric("h", Reduction.MAX), Metric("l", Reduction.MIN)]
    recorder = ScalarRecorder(metrics)
    recorder.add({"m": torch.ones(1, requires_grad=True), "s": 2, "h": 3, "l": 4})
    dropped = recorder.add({"m": 5.0, "s": 6, "h": 1, "l": 9, "new": 1.0})
    sums, peaks, _ = recorder.drain()
    assert (sums, peaks, list(dropped)) == ([6.0, 2.0, 8.0], [3.0, -4.0], ["new"])
    assert recorder.drain()[:2] == ([0.0, 0.0, 0.0], [ABSENT, ABSENT])


def test_maximum_keeps_nan() -> None:
    """The largest of a NaN and a number is NaN."""
    recorder = ScalarRecorder([PEAK])
    for value in (1.0, math.nan, 2.0):
        recorder.add({"peak": value})
    assert math.isnan(recorder.drain()[1][0])


class OwnSource:
    """A source of a user's own."""

    metrics = (Metric("hits", Reduction.SUM), Metric("depth", Reduction.MIN), Metric("cost"))

    def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:  # noqa: ARG002  # the protocol's
        """Return one interval."""
        return {"hits": 3, "depth": 7, "cost": (10.0, 4.0)}


class KeptList:
    """A source that fills one list anew in each interval."""

    metrics = (Metric("hits", Reduction.SUM), Metric("depth", Reduction.MAX))

    def __init__(self) -> None:
        self.kept = [3.0, 7.0]

    def drain_step_metrics(self, step: int | None = None) -> dict[str, Any]:
        """Return one interval."""
        raise NotImplementedError(step)

    def drain_measurements(self, step: int | None = None) -> list[float]:  # noqa: ARG002  # the protocol's
        """Return one interval."""
        return self.kept


def test_source_list_is_not_changed() -> None:
    """A source's list is not added to, and one of another length than its metrics is refused."""
    source = KeptList()
    recorder = Recorder([source], [])
    assert [recorder.drain(step, (0.5, 1, 0.0))[:2] for step in (1, 2)] == [(3.0, 0.5)] * 2
    assert source.kept == [3.0, 7.0]
    for wrong in ([3.0], [3.0, 7.0, 8.0]):
        source.kept = wrong
        with pytest.raises(ConfigurationError, match="its metrics have 2"):
            recorder.drain(3, (0.5, 1, 0.0))


def test_mapping_source_is_packed() -> None:
    """A user's source gives sums, minima and weighted means as a mapping, without the packed order."""
    layout, drain = drain_of(OwnSource())
    values = drain(1)
    sums, given = values[: layout.sums], values[layout.sums :]
    assert layout.by_key(sums, layout.complete_peaks(sums, given)) == {"hits": 3.0, "depth": 7.0, "cost": 2.5}


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"RANK": "one"}, "RANK must be a whole number, got 'one'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be at least 1, got 0"),
        ({"OTEL_TRAIN_SIDECAR": "none"}, "OTEL_TRAIN_SIDECAR must be embedded or external, got 'none'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTLP_PROTOCOL must be grpc or http/protobuf, got 'http/json'"),
        ({"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "GRPC"}, "METRICS_PROTOCOL must be grpc or http/protobuf, got 'GRPC'"),
    ],
)
def test_wrong_variable_is_named(environ: dict[str, str], complaint: str) -> None:
    """A variable of the environment that breaks a rule is refused with its name."""
    with pytest.raises(ConfigurationError, match=complaint):
        Environment.read(environ)


def test_disabled_job_skips_endpoint() -> None:
    """A disabled job does not check an endpoint or temporality that is set for a whole cluster."""
    preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    assert Environment.read({**preference, "OTEL_SDK_DISABLED": "true"}).disabled
    with pytest.raises(ConfigurationError, match="TEMPORALITY_PREFERENCE must be cumulative"):
        Environment.read(preference)


def session(tmp_path: Path, **options: Any) -> otel_train.Telemetry:
    """Return a session of one process without a sidecar, which nobody waits for."""
    return otel_train.init(ring_dir=tmp_path / "rings", **{"close_timeout": 0.01, **options})


def test_disabled_session_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled session makes no directory and no process, and drains no interval."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    meter = MixingMeter(1, ["a"], {"a": 1})
    with session(tmp_path, sources=[meter]) as telemetry:
        assert telemetry.step(1, {"loss": 1.0}) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.modes
def test_lone_process_is_cluster(tmp_path: Path) -> None:
    """Without torch.distributed a job is a cluster of one; steps between two log steps are in the interval."""
    meter = MixingMeter(1, ["a"], {"a": 1})
    meter.open(0, "a")
    with session(tmp_path, sources=[meter], log_every=2) as telemetry:
        for step in range(1, 6):
            meter.pick(0)
            telemetry.step(step, {"loss": float(step)})
        latest = telemetry.latest
    assert latest is not None
    assert (latest[0], latest[1]["stream_mixing/picks"], latest[1]["loss"]) == (4, 2.0, 3.5)
    records, _, _ = RingReader(ring_files(tmp_path / "rings")[0]).read(0, 100)
    # They are the same, so one record holds both. The last interval was not whole when the session ended.
    assert [(each.sequence, each.step, each.kind) for each in records] == [
        (0, 2, Kind.RANK),
        (0, 2, Kind.CLUSTER),
        (1, 4, Kind.RANK),
        (1, 4, Kind.CLUSTER),
        (2, 5, Kind.RANK),
        (2, 5, Kind.CLUSTER),
    ]


@pytest.mark.parametrize(
    ("key", "complaint"),
    [("ledger/evictions", "is one of otel_train's own"), ("train/cluster/loss", "marks cluster-wide values")],
)
def test_wrong_key_raises_first(key: str, complaint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong key raises at the first step; later it is dropped, with one warning."""
    with session(tmp_path) as telemetry, pytest.raises(ConfigurationError, match=complaint):
        telemetry.step(1, {key: 1.0})
    with session(tmp_path) as telemetry:
        for step in (1, 2, 3):
            telemetry.step(step, {"fine": 1.0} if step == 1 else {"fine": 1.0, key: 2.0})
        assert telemetry.latest is not None
        assert telemetry.latest[0] == 3
    assert len([record for record in caplog.records if repr(key) in record.getMessage()]) == 1


@pytest.mark.parametrize("again", [2, 1])
def test_old_step_is_not_recorded(again: int, tmp_path: Path) -> None:
    """A step that was made already makes no second record."""
    with session(tmp_path) as telemetry:
        for step in (1, 2, again, 3):
            telemetry.step(step, {"x": float(step)})
    records, _, _ = RingReader(ring_files(tmp_path / "rings")[0]).read(0, 100)
    assert [record.step for record in records if record.kind is Kind.RANK] == [1, 2, 3]


def test_forked_child_writes_nothing(tmp_path: Path) -> None:
    """A child of os.fork that steps, or exits as a program does, leaves its parent's ring alone."""
    with session(tmp_path) as telemetry:
        telemetry.step(1)
        child = os.fork()
        if not child:
            telemetry.step(2)
            telemetry.close()
            os._exit(0)
        os.waitpid(child, 0)
        reader = RingReader(ring_files(tmp_path / "rings")[0])
        assert (reader.progress.step, reader.progress.closed) == (1, False)


def test_disabled_session_ages_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A ledger drops idle entries with telemetry off too: training does not depend on it."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ledger = otel_train.StateLedger((1,), capacity=4, max_idle_steps=1)
    ledger.store(["x"], torch.ones(1, 1))
    telemetry = session(tmp_path, sources=[ledger])
    for step in (1, 2, 3):
        telemetry.step(step)
    assert len(ledger) == 0


def test_full_disk_costs_records(tmp_path: Path) -> None:
    """A ring that can't be made is one warning, and the session goes on without it."""
    code = (
        "import otel_train, resource, sys\n"
        "sys.dont_write_bytecode = True\n"  # cut at the limit, a module's file would break each later import
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))\n"
        "with otel_train.init(ring_dir=sys.argv[1], blocking=True) as telemetry:\n"
        "    print(telemetry.step(1, {'loss': 2.0})['loss'])"
    )
    environment = {**os.environ, "OTEL_TRAIN_SIDECAR": "external"}
    command = [sys.executable, "-c", code, str(tmp_path / "rings")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "2.0"
    assert run.stderr.count("nothing is recorded on this rank") == 1


UUID = "53a3445f-bddf-4efd-b7bb-6a9d7307310e"


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (("mine", "set", "saved", UUID), "mine"),
        ((None, "set", "saved", UUID), "set"),
        ((None, "", "saved", UUID), "saved"),
        ((None, "", "", UUID), UUID),
        ((None, "", "saved", "none"), "saved"),  # what torchrun says where none was given
    ],
)
def test_given_run_overrides_saved(
    ids: tuple[str | None, str, str, str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run id that is given overrides the saved one, and that overrides torchrun's."""
    argument, variable, saved, rendezvous = ids
    monkeypatch.setenv("OTEL_TRAIN_RUN_ID", variable)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", rendezvous)
    with session(tmp_path, run_id=argument) as telemetry:
        telemetry.load_state_dict({"run_id": saved})
        telemetry.step(1)
        assert telemetry.state_dict() == {"run_id": wanted}
        assert RingReader(ring_files(tmp_path / "rings")[0]).identity.run_id == wanted


def test_given_run_survives_meeting(tmp_path: Path) -> None:
    """A session that knows its ranks from the beginning keeps the given id over a saved one as well."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with session(tmp_path, run_id="mine") as telemetry:
            telemetry.load_state_dict({"run_id": "saved"})
            telemetry.step(1)
            assert telemetry.state_dict() == {"run_id": "mine"}
    finally:
        dist.destroy_process_group()


def test_wrong_state_is_refused(tmp_path: Path) -> None:
    """A state of something else, or one that is loaded after the first step, is refused."""
    with session(tmp_path) as telemetry:
        with pytest.raises(StateMismatchError, match="must have a 'run_id'"):
            telemetry.load_state_dict({"step": 3})
        telemetry.step(1)
        with pytest.raises(StateMismatchError, match="before the first step"):
            telemetry.load_state_dict({"run_id": "saved"})


def test_disabled_session_keeps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled session keeps the saved run's id, so that one attempt without telemetry does not cut a run in two."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = otel_train.init()
    telemetry.load_state_dict({"run_id": "saved"})
    assert telemetry.state_dict() == {"run_id": "saved"}
