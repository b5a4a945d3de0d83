"""The manifests for Kubernetes that are made from others: the chart's templates, and copies of configurations.

The objects are written once, in `deploy/kubernetes/base`, as kustomize takes them. Comments in them say what the Helm
chart has instead:

    image: otel-train-bridge:0.1.0 # {{ .Values.image }}      instead of the value; of the lines below a key without one
    # {{- if .Values.tls.enabled }}                           a line of the chart's alone
    #+ nodeSelector: {{- toYaml . | nindent 8 }}              likewise, of YAML
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

FOLDER = "deploy/kubernetes"
WRITTEN = (
    "base/agent.yaml",
    "base/bridge.yaml",
    "base/gateway.yaml",
    "base/kustomization.yaml",
    "base/namespace.yaml",
    "base/network-policies.yaml",
    "chart/.helmignore",
    "chart/Chart.yaml",
    "chart/templates/NOTES.txt",
    "chart/templates/configuration.yaml",
    "chart/templates/monitoring.yaml",
    "chart/templates/tokens.yaml",
    "chart/trial.yaml",
    "chart/values.yaml",
    "host-queue/kustomization.yaml",
    "jobs/indexed-job.yaml",
    "jobs/jobset.yaml",
    "jobs/pytorchjob.yaml",
    "monitoring/kustomization.yaml",
    "monitoring/service-monitor.yaml",
    "secrets.sh",
)
"""Files below FOLDER that are written by hand."""
TEMPLATED = (
    "base/agent.yaml",
    "base/bridge.yaml",
    "base/gateway.yaml",
    "base/network-policies.yaml",
    "monitoring/service-monitor.yaml",
)
"""Those of which the chart's templates are made."""
_BASE_CONFIGURATIONS = ("agent.yaml", "gateway.yaml")
_CHART_CONFIGURATIONS = (
    *_BASE_CONFIGURATIONS,
    "agent-plaintext.yaml",
    "gateway-no-bridge.yaml",
    "gateway-plaintext.yaml",
)
_FREE = ("resources", "nodeSelector", "labels", "dashboardLabels")
"""Values of the chart that hold what the user likes: they go into the objects as they are."""
_CHOICES = {"pullPolicy": ("Always", "IfNotPresent", "Never"), "wandbMode": ("offline", "online")}
_TYPES = {bool: "boolean", int: "integer", str: "string", list: "array"}
_RULE = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: otel-train
  labels:
    app.kubernetes.io/name: otel-train
spec:
"""
_INSTEAD = re.compile(r"^(?P<before> *(?:- )?(?:[\w./-]+:(?= )|(?<=- )))(?P<value>.*?) # (?P<template>\{\{.*\}\})$")
_LINE = re.compile(r"^(?P<indent> *)#(?: (?P<action>\{\{.*\}\})|\+(?: (?P<text>.*))?)$")


def kubernetes_files(written: Mapping[str, str], monitoring: Mapping[str, str]) -> dict[str, str]:
    """Return the manifests that are made, by path.

    Args:
        written: The files that are written by hand, by path.
        monitoring: The rules and dashboards, by path.
    """
    dashboards = {PurePosixPath(path).name: text for path, text in monitoring.items() if path.endswith(".json")}
    (rules,) = (text for path, text in monitoring.items() if path.endswith(".rules.yaml"))
    files = {
        **{f"base/files/{name}": written[f"collector/{name}"] for name in _BASE_CONFIGURATIONS},
        **{f"chart/files/{name}": written[f"collector/{name}"] for name in _CHART_CONFIGURATIONS},
        **{f"chart/files/{name}": text for name, text in dashboards.items()},
        "chart/files/otel_train.rules.yaml": rules,
        **{f"monitoring/{name}": text for name, text in dashboards.items()},
        "chart/values.schema.json": values_schema(written[f"{FOLDER}/chart/values.yaml"]),
        "monitoring/prometheus-rule.yaml": _prometheus_rule(rules),
        **{f"chart/templates/{PurePosixPath(path).name}": _template(path, written) for path in TEMPLATED},
    }
    return {f"{FOLDER}/{name}": text for name, text in files.items()}


def chart_template(text: str) -> str:
    """Return the Helm template of a manifest whose comments say what the chart has instead.

    Args:
        text: YAML.

    Examples:
        >>> print(chart_template("replicas: 1 # {{ .Values.replicas }}"), end="")
        replicas: {{ .Values.replicas }}
    """
    lines: list[str] = []
    below: int | None = None
    """Indentation of the key whose value has been replaced."""
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if below is not None and indent > below:
            continue
        below = None
        if whole := _LINE.match(line):
            lines.append((whole["indent"] + (whole["action"] or whole["text"] or "")).rstrip())
        elif instead := _INSTEAD.match(line):
            lines.append(f"{instead['before'].rstrip()} {instead['template']}")
            if not instead["value"].strip():
                below = indent
        else:
            lines.append(line)
    return "\n".join([*lines, ""])


def values_schema(values: str) -> str:
    """Return the schema by which Helm refuses a value that the chart does not have, or one of another type.

    Args:
        values: The chart's default values, YAML.
    """
    note = {"$comment": f"Made by `otel-train render` from {FOLDER}/chart/values.yaml.", "type": "object"}
    return json.dumps(note | _value_schema("", yaml.safe_load(values)), indent=2) + "\n"


def _value_schema(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"type": _TYPES[type(value)]} | ({"enum": list(_CHOICES[name])} if name in _CHOICES else {})
    if name in _FREE:
        return {"type": "object"}
    # Helm itself adds `global`.
    parts = {part: _value_schema(part, content) for part, content in value.items()} | ({} if name else {"global": {}})
    return {"type": "object", "properties": parts, "additionalProperties": False}


def _template(path: str, written: Mapping[str, str]) -> str:
    source = f"{FOLDER}/{path}"
    return f"{{{{- /* Made by `otel-train render` from {source}; edit that. */ -}}}}\n{chart_template(written[source])}"


def _prometheus_rule(rules: str) -> str:
    """Return the operator's object of a file of rules, with the file's own lines."""
    comment, _, groups = rules.partition("\n")
    return "\n".join([comment, _RULE + "\n".join(f"  {line}".rstrip() for line in groups.splitlines()), ""])
