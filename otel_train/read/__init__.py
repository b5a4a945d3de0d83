"""Read a run from its rings, a bridge's wandb files or Prometheus, all into one `History`."""

from otel_train.read.history import History, MixInterval, Track
from otel_train.read.rank_ring import RankState, RankStatus
from otel_train.read.rings import RingJob

__all__ = ["History", "MixInterval", "RankState", "RankStatus", "RingJob", "Track"]
