"""All alerts, and the rule file that Prometheus reads."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import yaml

from otel_train.catalogue import Ranges, healthy_range
from otel_train.render.alert import Alert
from otel_train.render.headline_alerts import headline_alerts
from otel_train.render.pipeline_alerts import pipeline_alerts

RUNBOOKS = "docs/runbooks/"
"""Address of the pages, unless another one is given: the beginning of each `runbook_url`."""
_NOTICE = "# Made by `otel-train render` from the catalogue; edit otel_train/render/*_alerts.py instead.\n"


def alerts(health: Ranges = healthy_range) -> tuple[Alert, ...]:
    """Return every alert, by area.

    Args:
        health: Gives the range of a headline key.
    """
    return (*headline_alerts(health), *pipeline_alerts())


def rules_file(health: Ranges = healthy_range, runbooks: str = RUNBOOKS) -> str:
    """Return the rule file, ending in a newline.

    Args:
        health: Gives the range of a headline key.
        runbooks: The address that the pages' names are appended to.
    """
    rules: dict[str, list[dict[str, Any]]] = defaultdict(list)  # Prometheus refuses a file that names a group twice
    for alert in alerts(health):
        rules[alert.group].append(_rule(alert, runbooks))
    groups = [{"name": f"otel_train.{name}", "rules": of_group} for name, of_group in rules.items()]
    return _NOTICE + yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _rule(alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": str(alert.severity), "metric": alert.metric},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{runbooks.rstrip('/')}/{alert.name}.md",
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it reads."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
