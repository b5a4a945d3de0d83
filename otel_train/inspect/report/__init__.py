"""A run as a page for people: one HTML file without outside requests."""

from otel_train.inspect.report.page import render_report
from otel_train.inspect.report.run import ReportRun

__all__ = ["ReportRun", "render_report"]
