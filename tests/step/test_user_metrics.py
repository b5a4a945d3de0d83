"""What a user may call and declare a scalar: kept whole on its way, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import otel_train
from otel_train import Scalar
from otel_train.catalogue import BY_NAME, HealthyRange, Instrument, Metric, Reduction
from otel_train.exceptions import ConfigurationError
from otel_train.ring import RingReader, ring_files
from otel_train.step.user_metrics import check_names, check_row

pytestmark = pytest.mark.usefixtures("external_sidecar")


@pytest.mark.parametrize(
    "names",
    [
        ("train_step", "train.step"),
        ("train_ranks", "train.ranks"),
        ("ledger_entries", "ledger.entries"),
        ("ledger/cluster_evictions_max", "ledger.evictions"),
        ("stream_mixing_switch_rate_ratio", "stream_mixing.switch_rate"),
        ("bridge_rows_total", "bridge.rows"),
        ("ledger_reuse_distance_count", "ledger.reuse_distance"),
        ("target_info", "target_info"),
        ("train/loss", "train_loss"),
        ("loss.a", "loss/a"),
        ("loss µ", "loss"),
        ("x", "cluster_x"),
        ("peak", "peak_rank"),
        ("count", "count_total"),
    ],
)
def test_colliding_names_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    """Two names that are one after Prometheus' translation, or as a maximum's sibling, are refused with both."""
    declared: list[Scalar | Metric] = [Scalar("peak", "max"), Metric("count", Reduction.SUM, Instrument.COUNTER)]
    mine, other = names
    with otel_train.init(ring_dir=tmp_path, metrics=declared, close_timeout=0.01) as telemetry:
        scalars = {name: 1.0 for name in names if name not in BY_NAME}
        with pytest.raises(ConfigurationError) as error:
            telemetry.step(1, scalars)
    assert repr(mine) in str(error.value)
    assert repr(other) in str(error.value)


@pytest.mark.parametrize(
    "key",
    [
        *("train/step", "train/attempt", "telemetry/partial", "train/cluster/loss", "_step", "_loss"),
        *("", "损失", "a\nb", "x\udcff", "x" * 250, 7, None, ("a", "b"), b"loss"),
    ],
)
def test_lost_keys_are_refused(key: Any, tmp_path: Path) -> None:
    """A key that is one of ours or wandb's, or not a name where it goes, is refused."""
    telemetry = otel_train.init(ring_dir=tmp_path, close_timeout=0.01)
    with telemetry, pytest.raises(ConfigurationError, match="metric"):
        telemetry.step(1, {"fine": 1.0, key: 1.0})


@pytest.mark.parametrize("key", ["acc@1", "loss (ema) µ", "Loss", "effective_rank", "grad norm", "0_loss", "x" * 247])
def test_unusual_keys_are_kept(key: str) -> None:
    """A key beyond OpenTelemetry's syntax for instruments, which receivers take, is kept whole."""
    check_row(Metric(key))
    check_names([Metric(key), Metric("loss")])


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (Metric("x", wandb_key="y"), "wandb_key must be empty or the name, got 'y'"),
        (Metric("x", bounds=(1.0,)), "bounds, healthy and remedy are the catalogue's only"),
        (Metric("x", healthy=HealthyRange()), "bounds, healthy and remedy are the catalogue's only"),
        (Metric("x", remedy="Do."), "bounds, healthy and remedy are the catalogue's only"),
        (Metric("x", Reduction.SUM, Instrument.HISTOGRAM), "must have the instrument gauge or counter, got histogram"),
        (Metric("x", Reduction.MEAN, Instrument.COUNTER), "must have the instrument gauge, got counter"),
        (Metric("x", unit="s" * 64), "unit must be at most 63 printable characters"),
        (Metric("x", unit=None), "unit must be at most 63 printable characters, got None"),  # type: ignore[arg-type]
        (Metric("x", description="two\nlines"), "description must be at most 512 printable characters"),
    ],
)
def test_init_refuses_lossy_metrics(metric: Metric, complaint: str, tmp_path: Path) -> None:
    """A declared metric arrives as it was declared, or is refused in init."""
    with pytest.raises(ConfigurationError, match=f"metric 'x'.*{complaint}"):
        otel_train.init(ring_dir=tmp_path, metrics=[metric])


@pytest.mark.parametrize(
    ("metrics", "complaint"),
    [
        ([Scalar("x"), Metric("x", Reduction.SUM)], "metric 'x' is declared twice"),
        (["x"], "metrics must be otel_train.Scalar, got 'x'"),
    ],
)
def test_init_names_wrong_declarations(metrics: Any, complaint: str, tmp_path: Path) -> None:
    """A metric that is declared twice, or what is not a declaration, is named by init."""
    with pytest.raises(ConfigurationError, match=complaint):
        otel_train.init(ring_dir=tmp_path, metrics=metrics)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"name": ""}, "metric name must be 1 to 255"),
        ({"name": "train/step"}, "is one of otel_train's own"),
        ({"reduction": "average"}, "metric 'x': reduction must be one of mean, sum, max, min, norm, got 'average'"),
        ({"reduction": Reduction.HISTOGRAM}, "metric 'x': reduction must be one of mean, "),
        ({"unit": "s" * 64}, "unit must be at most 63"),
    ],
)
def test_scalar_refuses_bad_fields(given: Any, complaint: str) -> None:
    """A scalar that can't be carried is refused where it is made."""
    with pytest.raises(ConfigurationError, match=complaint):
        Scalar(**{"name": "x", **given})


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "min", "norm"])
def test_scalar_declares_as_metric(reduction: Any, tmp_path: Path) -> None:
    """A scalar and the metric of its name, reduction and unit make one schema."""
    schemas = []
    declarations: list[Scalar | Metric] = [Scalar("x", reduction, "By"), Metric("x", Reduction(reduction), unit="By")]
    for number, declared in enumerate(declarations):
        folder = tmp_path / str(number)
        with otel_train.init(ring_dir=folder, metrics=[declared], close_timeout=0.01) as telemetry:
            telemetry.step(1, {"x": 1.0})
        schemas.append(RingReader(ring_files(folder)[0]).schema)
    assert schemas[0] == schemas[1]
    assert schemas[0].metrics[-1].unit == "By"


@pytest.mark.parametrize("given", [{"reduction": "average"}, {"instrument": "meter"}, {"reduction": None}])
def test_metric_names_wrong_field(given: Any) -> None:
    """A metric of an unknown reduction or instrument is refused with the field and all that there are."""
    with pytest.raises(ConfigurationError, match=f"metric 'x': {next(iter(given))} must be one of "):
        Metric("x", **given)


@pytest.mark.parametrize(
    ("metrics", "sums", "complaint"),
    [
        ({"x": 1, "x_max": 2}, ["x"], "metric 'x_max' is what the largest of 'x' is called"),
        ({7: 1.0}, [], "metric name must be 1 to 255 printable characters, got 7"),
        ({"x": None}, [], "metric 'x' must be a number"),
        ({"x": 10**400}, [], "metric 'x' is an integer beyond what a float holds"),
    ],
)
def test_unreduced_values_raise(metrics: Any, sums: list[str], complaint: str) -> None:
    """A value that can't be reduced raises, in a call that waits."""
    with pytest.raises(ConfigurationError, match=complaint):
        otel_train.reduce_loss_metrics(metrics, sum_keys=sums)
