"""A run as a page for people: one HTML file without outside requests."""

from otel_train.report.page import render_report
from otel_train.report.run import ReportRun

__all__ = ["ReportRun", "render_report"]
