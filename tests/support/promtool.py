"""Series and expected alerts in the notation of promtool's tests, and its run on the rendered rules."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from otel_train.render import Alert, rules_file

RULES = "otel_train.rules.yaml"
OF_ATTEMPT = {"train_run_id": "run-1", "train_attempt": "7"}


def series(name: str, values: str, rank: int = 0, **labels: str) -> dict[str, str]:
    """Return a series of a rank in promtool's notation, one value each 10 s."""
    own = {"job": "otel_train", "instance": f"run-1/7/{rank}", **OF_ATTEMPT}
    own |= {"train_rank": str(rank), "host_name": f"host-{rank}"}
    return plain(name, values, **{**own, **labels})


def plain(name: str, values: str, **labels: str) -> dict[str, str]:
    """Return a series with just these labels."""
    inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def run_promtool(promtool: Path, folder: Path, *tests: dict[str, Any]) -> None:
    """Run promtool's test groups on the rendered rules; what it finds is the failure's text."""
    (folder / RULES).write_text(rules_file())
    groups = [{"interval": "10s", **test} for test in tests]
    (folder / "test.yaml").write_text(  # JSON is YAML
        json.dumps({"rule_files": [RULES], "evaluation_interval": "15s", "tests": groups})
    )
    done = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expectation(alert: Alert, at: str, firing: Sequence[tuple[dict[str, str], str]]) -> dict[str, Any]:
    """Return what promtool compares: the labels and the summary of each firing alert."""
    fixed = {"description": alert.description, "runbook_url": f"docs/runbooks/{alert.name}.md"}
    return {
        "eval_time": at,
        "alertname": alert.name,
        "exp_alerts": [
            {
                "exp_labels": {**labels, "severity": str(alert.severity), "metric": alert.metric},
                "exp_annotations": {"summary": summary, **fixed},
            }
            for labels, summary in firing
        ],
    }
