"""For people: what the rings, a run's files or Prometheus tell, in a terminal, as data, as a page."""

from otel_train.read.history import History, MixInterval, Track
from otel_train.read.rings import RankState, RingJob

__all__ = ["History", "MixInterval", "RankState", "RingJob", "Track"]
