"""The objects of deploy/kubernetes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.support import crd_schemas

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.29", "1.37"
"""Versions of Kubernetes; the first is the oldest with native sidecars, which the chart names too."""


def objects(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file, or of what a folder's kustomization names."""
    if path.is_dir():
        names = yaml.safe_load((path / "kustomization.yaml").read_text())["resources"]
        return [document for name in names for document in objects(path / name)]
    return parsed(path.read_text(encoding="utf-8"))


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the objects of a text."""
    return [document for document in yaml.safe_load_all(text) if document]


def check(document: dict[str, Any]) -> None:
    """Check an object as the API server would, in the oldest version and in the newest.

    Raises:
        Exception: It does not fit the schema of its kind.
    """
    if (crd_schemas.FOLDER / f"{document['kind']}.json").exists():
        crd_schemas.check(document)
    else:
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(document, version, strict=True)
    if document["kind"] in ("JobSet", "PyTorchJob"):
        for template in pod_templates(document):
            check({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "of-a-job"}, "template": template})


def pod_templates(node: object) -> list[dict[str, Any]]:
    """Return the pod templates anywhere in an object."""
    if isinstance(node, list):
        return [template for item in node for template in pod_templates(item)]
    if not isinstance(node, dict):
        return []
    if "containers" in node.get("spec", {}):
        return [node]
    return [template for item in node.values() for template in pod_templates(item)]


def job_templates() -> list[dict[str, Any]]:
    """Return the pod templates of all templates of jobs."""
    paths = sorted((FOLDER / "jobs").glob("*.yaml"))
    return [template for path in paths for document in objects(path) for template in pod_templates(document)]


def sidecar_of(template: dict[str, Any]) -> dict[str, Any]:
    """Return a job's sidecar, a container."""
    (sidecar,) = template["spec"]["initContainers"]
    assert isinstance(sidecar, dict)
    return sidecar


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """Return a container's variables: a value, or where from."""
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container.get("env", [])}


def environment(container: dict[str, Any]) -> dict[str, str]:
    """Return a container's environment as the kubelet makes it, with the path of a field instead of what it holds."""
    values: dict[str, str] = {}
    for name, value in variables(container).items():
        text = value if isinstance(value, str) else str(value["fieldRef"]["fieldPath"])
        values[name] = re.sub(r"\$\((\w+)\)", lambda match: values.get(match[1], match[0]), text)
    return values
