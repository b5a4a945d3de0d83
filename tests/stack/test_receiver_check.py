"""`doctor --receiver` through the stack's collector, with Prometheus behind it."""

from __future__ import annotations

import pytest

from otel_train.probe.check_receiver import check_receiver
from tests.support.compose_stack import ENDPOINT, Stack


@pytest.mark.stack
def test_stack_lacks_no_setting(stack: Stack) -> None:
    """The points arrive through the collector, late, repeated and compressed ones too, under the dashboards' names."""
    findings = check_receiver(ENDPOINT, stack.prometheus.url, environ={}).findings
    assert {finding.check: finding.severity for finding in findings if finding.severity != "ok"} == {}
    assert "arrival" in {finding.check for finding in findings}
