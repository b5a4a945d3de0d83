"""Mix many data streams by weight, and measure the mix at the pick site.

`plan` picks, `dataset` reads and counts each pick when the training loop consumes it, and `meter` measures: all of
`catalogue.mixing_rows` comes from `MixingMeter.drain_measurements`.
"""

from otel_train.import_errors import naming_extra as _naming_extra

with _naming_extra(__name__):
    from otel_train.event_sink import EventSink
    from otel_train.mixing.batch import MixedBatch, MixedCollate
    from otel_train.mixing.batch_tags import Collate, TaggedDataset
    from otel_train.mixing.dataset import StreamMixingDataset
    from otel_train.mixing.meter import MixingMeter
    from otel_train.mixing.plan import AtEnd
    from otel_train.mixing.source_meter import SourceMeter
    from otel_train.mixing.streams import FileStream, Stream
    from otel_train.mixing.tags import Tag, Tagged, pack_tag, sample_code
    from otel_train.mixing.weights import WeightSchedule

__all__ = [
    "AtEnd",
    "Collate",
    "EventSink",
    "FileStream",
    "MixedBatch",
    "MixedCollate",
    "MixingMeter",
    "SourceMeter",
    "Stream",
    "StreamMixingDataset",
    "Tag",
    "Tagged",
    "TaggedDataset",
    "WeightSchedule",
    "pack_tag",
    "sample_code",
]
