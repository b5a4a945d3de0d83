"""The resource that values belong to, as OpenTelemetry's standard variables give it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import otel_train
from otel_train.catalogue import MAX_TEXT
from otel_train.ring import MAX_ATTRIBUTES, Identity, RingReader, ring_files
from otel_train.sidecar.points import resource_of
from otel_train.step.environment import Environment
from otel_train.step.resource import resource_attributes
from tests.support.launcher_environments import TASK

pytestmark = pytest.mark.usefixtures("external_sidecar")

HERE = socket.gethostname()


def sent(directory: Path) -> dict[str, str]:
    """Take a step and return the texts of the resource that a sidecar makes of its ring."""
    with otel_train.init(ring_dir=directory, run_id="r", close_timeout=0.0) as telemetry:
        telemetry.step(1)
    reader = RingReader(ring_files(directory)[0])
    return {name: value for name, value in resource_of(reader.identity).attributes.items() if isinstance(value, str)}


@pytest.mark.parametrize(
    ("service", "attributes", "expected"),
    [
        ("", "", ("otel_train", HERE, None)),
        ("", "service.name=a%20b,host.name=node7,team=x", ("a b", "node7", "x")),
        ("named", "service.name=a, host.name = ,team=x=y", ("named", HERE, "x=y")),
    ],
)
def test_service_name_has_precedence(
    service: str,
    attributes: str,
    expected: tuple[str, str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OTEL_SERVICE_NAME overrides OTEL_RESOURCE_ATTRIBUTES, and that ours, whatever the sidecar has."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", service)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    resource = sent(tmp_path)
    assert (resource["service.name"], resource["host.name"], resource.get("team")) == expected


def test_rank_overrides_sidecar_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's variables override those of an external sidecar, which override what the rank made up itself."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=node7,team=platform,service.name=agents")
    resource = resource_of(Identity(run_id="r", attempt=1, host="pod-x", attributes={"team": "x"})).attributes
    assert (resource["host.name"], resource["team"], resource["service.name"]) == ("node7", "x", "agents")


def test_variables_set_no_identity(caplog: pytest.LogCaptureFixture) -> None:
    """A variable, which all ranks share, sets no attribute that differs between ranks."""
    text = "train.rank=7,service.instance.id=one,train.run.id=x,kept=1"
    assert resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": text}) == {"kept": "1"}
    assert len(caplog.records) == 3


@pytest.mark.parametrize("bad", ["nothing", "=x", f"long={'x' * (MAX_TEXT + 1)}", f"{'x' * (MAX_TEXT + 1)}=1"])
def test_unsendable_attribute_is_dropped(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    """An attribute that can't be sent is left out with a warning, and the others are sent."""
    assert resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": f"a=1,{bad},,b=2"}) == {"a": "1", "b": "2"}
    assert len(caplog.records) == 1


def test_attributes_are_bounded() -> None:
    """No more attributes are kept than receivers take of a resource."""
    text = ",".join(f"a{number}=1" for number in range(200))
    assert len(resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": text})) == MAX_ATTRIBUTES


def test_slurm_job_is_attribute() -> None:
    """Cluster, job, partition and node are attributes, the user is not; the variable overrides them and goes first."""
    given = {**TASK, "OTEL_RESOURCE_ATTRIBUTES": "slurm.node.name=mine,team=x"}
    assert resource_attributes(given) == {
        "slurm.cluster.name": "pilot",
        "slurm.job.id": "43",
        "slurm.job.partition": "batch",
        "slurm.node.name": "mine",
        "team": "x",
    }
    full = ",".join(f"a{number}=1" for number in range(MAX_ATTRIBUTES))
    assert not {"slurm.job.id"} & resource_attributes({**TASK, "OTEL_RESOURCE_ATTRIBUTES": full}).keys()
    assert "slurm.job.id" not in resource_attributes({**TASK, "SLURM_JOB_ID": "", "SLURM_JOBID": ""})


def test_undecodable_host_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name of any bytes, which Linux allows, is made a valid text."""
    monkeypatch.setattr(socket, "gethostname", lambda: "box\udcff")
    assert sent(tmp_path)["host.name"] == "box?"
    assert Environment.read({"OTEL_SERVICE_NAME": "a\udcff"}).attributes == {"service.name": "a?"}
