"""The sending end of OTLP: one request at a time over gRPC or HTTP, and what the receiver's answer means."""

from otel_train.otlp.answers import TAKEN, Answer, Verdict
from otel_train.otlp.exporter import Exporter

__all__ = ["TAKEN", "Answer", "Exporter", "Verdict"]
