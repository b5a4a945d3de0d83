"""Deliver what rings still hold, whoever wrote them: after a job, a sidecar or a machine has ended."""

from otel_train.send.figures import DirectoryFigures, RunFigures, State
from otel_train.send.send_rings import send_rings

__all__ = ["DirectoryFigures", "RunFigures", "State", "send_rings"]
