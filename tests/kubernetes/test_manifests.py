"""The shipped manifests before a real API server, which takes them all, and policy "restricted", which admits them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import stack_programs as programs
from tests.support.kube_control import ControlPlane
from tests.support.manifests import FOLDER, objects, parsed, pod_templates
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
TRAINING = "github.com/kubeflow/training-operator@v1.8.1"
DEFINITIONS = {
    "prometheusrules": (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
    "servicemonitors": (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    "pytorchjobs": (TRAINING, "manifests/base/crds/kubeflow.org_pytorchjobs.yaml"),
}
"""Where other projects publish their kinds. JobSet's module is not served: of its kind only the pods are seen here."""

NODE = {"path": "/"}


@pytest.fixture(scope="module")
def namespace(plane: ControlPlane) -> Iterator[str]:
    """Make the shipped namespace, which takes only pods of policy "restricted", and the kinds of other projects."""
    (document,) = objects(FOLDER / "base" / "namespace.yaml")
    plane.apply([document])
    for name, (module, path) in DEFINITIONS.items():
        plane.kubectl("apply", "--server-side", f"--filename={programs.module(module) / path}")
        wait_until(lambda: not plane.run("get", name).returncode, 60, f"{name}", pause=0.5)  # noqa: B023
    assert document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    yield document["metadata"]["name"]
    plane.kubectl("delete", "namespace", document["metadata"]["name"], "--wait=false")


def pods_of(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a pod of each template: the policy refuses pods, and only warns of what will make them."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod{number}", "labels": template["metadata"]["labels"]},
            # A StatefulSet gives its pods what their claims promise.
            "spec": {key: value for key, value in template["spec"].items() if key != "volumes"}
            | {"volumes": [*template["spec"].get("volumes", ()), *_claimed(template["spec"])]},
        }
        for number, template in enumerate(pod_templates(documents))
    ]


def _claimed(spec: dict[str, Any]) -> list[dict[str, Any]]:
    mounted = {mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", ())}
    names = sorted(mounted - {volume["name"] for volume in spec.get("volumes", ())})
    return [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]


@pytest.mark.parametrize("folder", ["base", "monitoring"])
def test_installation_is_taken(folder: str, plane: ControlPlane, namespace: str) -> None:
    """Every object has only fields that its kind has, and the policy admits every pod."""
    documents = parsed(plane.kubectl("kustomize", str(FOLDER / folder)))
    plane.dry_run(documents, namespace)
    pods = pods_of(documents)
    assert len(pods) == {"base": 3, "monitoring": 0}[folder]
    if pods:
        plane.dry_run(pods, namespace)


@pytest.mark.parametrize("name", ["indexed-job", "jobset", "pytorchjob"])
def test_job_is_taken(name: str, plane: ControlPlane, namespace: str) -> None:
    """The templates of jobs likewise; there is a service account that they need not name."""
    documents = objects(FOLDER / "jobs" / f"{name}.yaml")
    plane.dry_run([*(one for one in documents if one["kind"] != "JobSet"), *pods_of(documents)], namespace)


def test_page_shows_taken_jobs(plane: ControlPlane, namespace: str) -> None:
    """The jobs that the how-to page shows likewise."""
    page = (FOLDER.parents[1] / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(apiVersion: batch/v1\n.*?)```", page, re.DOTALL)
    documents = [document for block in blocks for document in parsed(block)]
    assert documents
    plane.dry_run([*documents, *pods_of(documents)], namespace)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hostNetwork": True}, "host namespaces"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser=0"),
        ({"volumes": [{"name": "rings", "hostPath": NODE}, {"name": "shared-memory", "hostPath": NODE}]}, "hostPath"),
        ({"restartPolicy": "Now and then"}, "restartPolicy"),
        ({"grace": 60}, "not declared"),
    ],
)
def test_wrong_pod_is_refused(change: dict[str, Any], reason: str, plane: ControlPlane, namespace: str) -> None:
    """The tests above would notice a pod that the policy does not admit, a wrong value and a field that is unknown."""
    (pod,) = pods_of(objects(FOLDER / "jobs" / "indexed-job.yaml"))
    pod["spec"] |= change
    with pytest.raises(AssertionError, match=reason):
        plane.dry_run([pod], namespace)
