"""Write the generated files into a checkout, or find those that differ from what would be written."""

from __future__ import annotations

from pathlib import Path

from otel_train.catalogue import Ranges, healthy_range
from otel_train.exceptions import ConfigurationError
from otel_train.render.alert_rules import RUNBOOKS, alerts, rules_file
from otel_train.render.dashboards import dashboard_json, dashboards
from otel_train.render.kubernetes import FOLDER, kubernetes_files
from otel_train.render.metrics_markdown import metrics_page
from otel_train.render.runbooks import runbook_index, runbook_page
from otel_train.render.shipped_configurations import shipped_files

_ALL_GENERATED = (
    "grafana/dashboards/*",
    "docs/runbooks/*",
    "prometheus/*.rules.yaml",
    f"{FOLDER}/base/files/*",
    f"{FOLDER}/chart/files/*",
    f"{FOLDER}/monitoring/*.json",
)
"""Files of which all are generated: one that no metric makes any more is drift."""


def generated_files() -> dict[str, str]:
    """Return the content of each generated file by its path in the checkout."""
    all_dashboards, all_alerts = dashboards(), alerts()
    return {
        "docs/metrics.md": metrics_page(),
        **monitoring_files(),
        "docs/runbooks/README.md": runbook_index(all_alerts),
        **{f"docs/runbooks/{alert.name}.md": runbook_page(alert, all_dashboards) for alert in all_alerts},
    }


def monitoring_files(health: Ranges = healthy_range, runbooks: str = RUNBOOKS) -> dict[str, str]:
    """Return the files that Prometheus and Grafana read, also those of a Kubernetes cluster, by path.

    Args:
        health: Gives the range of a headline key.
        runbooks: The beginning of an alert's `runbook_url`.

    Raises:
        ConfigurationError: A range can't be judged by an alert.
    """
    files = {
        "prometheus/otel_train.rules.yaml": rules_file(health, runbooks),
        **{f"grafana/dashboards/{dashboard.name}.json": dashboard_json(dashboard) for dashboard in dashboards(health)},
    }
    return files | kubernetes_files(shipped_files(), files)


def drifted(root: Path) -> list[str]:
    """Return the generated files that are missing or differ, and those that nothing makes any more, by path.

    Raises:
        ConfigurationError: `root` is not a checkout of otel_train.
    """
    _check_checkout(root)
    made = generated_files()
    return [*_differing(root, made), *_left_over(root, made)]


def write_files(root: Path) -> list[str]:
    """Write the generated files that differ, remove those that nothing makes any more, and return their paths.

    Raises:
        ConfigurationError: `root` is not a checkout of otel_train.
    """
    _check_checkout(root)
    made = generated_files()
    differing, left_over = _differing(root, made), _left_over(root, made)
    write_below(root, {name: made[name] for name in differing})
    for name in left_over:
        (root / name).unlink()
    return [*differing, *left_over]


def _check_checkout(root: Path) -> None:
    if not (root / "otel_train" / "catalogue").is_dir():
        raise ConfigurationError(
            f"{root.absolute()} is not a checkout of otel_train; run this at the top of one, or give --root; "
            "--out FOLDER writes alert rules and dashboards for an installation of your own"
        )


def write_below(folder: Path, files: dict[str, str]) -> None:
    """Write files by their paths below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def _differing(root: Path, made: dict[str, str]) -> list[str]:
    return [
        name
        for name, content in made.items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != content
    ]


def _left_over(root: Path, made: dict[str, str]) -> list[str]:
    paths = sorted(path for pattern in _ALL_GENERATED for path in root.glob(pattern) if path.is_file())
    return [name for path in paths if (name := path.relative_to(root).as_posix()) not in made]
