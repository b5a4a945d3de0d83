"""Generate dashboards, alert rules and pages from the catalogue, and find those that are committed and differ."""

from otel_train.import_errors import naming_extra as _naming_extra

with _naming_extra(__name__):
    from otel_train.render.alert import Alert, Severity
    from otel_train.render.alert_rules import RUNBOOKS, alerts, rules_file
    from otel_train.render.dashboards import Query, dashboards, queries
    from otel_train.render.files import drifted, generated_files, monitoring_files, write_below, write_files
    from otel_train.render.metrics_markdown import metrics_page
    from otel_train.render.shipped_configurations import shipped_files

__all__ = [
    "RUNBOOKS",
    "Alert",
    "Query",
    "Severity",
    "alerts",
    "dashboards",
    "drifted",
    "generated_files",
    "metrics_page",
    "monitoring_files",
    "queries",
    "rules_file",
    "shipped_files",
    "write_below",
    "write_files",
]
