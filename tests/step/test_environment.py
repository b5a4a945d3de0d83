"""The environment of a rank's process."""

from __future__ import annotations

import pytest

from otel_train.exceptions import ConfigurationError
from otel_train.step.environment import Environment


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
