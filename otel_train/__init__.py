"""Telemetry for distributed PyTorch jobs that mix many data streams and keep per-stream state in a sharded ledger.

Names are resolved when they are first used, so that a training process loads torch and the standard library only,
and the sidecar, the bridge and the commands never load torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from otel_train.import_errors import naming_extra as _naming_extra

if TYPE_CHECKING:
    from otel_train.catalogue import Metric, Phase, Reduction
    from otel_train.exceptions import ConfigurationError, OtelTrainError
    from otel_train.ledger import LedgerMeter, StateLedger
    from otel_train.mixing import Collate, MixingMeter, SourceMeter, StreamMixingDataset, TaggedDataset
    from otel_train.step import (
        ClockedSource,
        DescribedSource,
        FlatSource,
        ModalSource,
        PerRow,
        RowSource,
        Scalar,
        Source,
        SteppedSource,
        Telemetry,
        WatchedSource,
        aggregate_step_metrics,
        init,
        reduce_loss_metrics,
    )

# Modules are loaded later too, and a job may have changed its directory by then.
__path__ = [os.path.abspath(path) for path in __path__]  # noqa: PTH100  # links stay

_HOMES = {
    "ClockedSource": "otel_train.step",
    "Collate": "otel_train.mixing",
    "ConfigurationError": "otel_train.exceptions",
    "DescribedSource": "otel_train.step",
    "FlatSource": "otel_train.step",
    "LedgerMeter": "otel_train.ledger",
    "Metric": "otel_train.catalogue",
    "MixingMeter": "otel_train.mixing",
    "ModalSource": "otel_train.step",
    "OtelTrainError": "otel_train.exceptions",
    "PerRow": "otel_train.step",
    "Phase": "otel_train.catalogue",
    "Reduction": "otel_train.catalogue",
    "RowSource": "otel_train.step",
    "Scalar": "otel_train.step",
    "Source": "otel_train.step",
    "SourceMeter": "otel_train.mixing",
    "StateLedger": "otel_train.ledger",
    "SteppedSource": "otel_train.step",
    "StreamMixingDataset": "otel_train.mixing",
    "TaggedDataset": "otel_train.mixing",
    "Telemetry": "otel_train.step",
    "WatchedSource": "otel_train.step",
    "aggregate_step_metrics": "otel_train.step",
    "init": "otel_train.step",
    "reduce_loss_metrics": "otel_train.step",
}

__version__ = "0.1.0"
__all__ = [
    "ClockedSource",
    "Collate",
    "ConfigurationError",
    "DescribedSource",
    "FlatSource",
    "LedgerMeter",
    "Metric",
    "MixingMeter",
    "ModalSource",
    "OtelTrainError",
    "PerRow",
    "Phase",
    "Reduction",
    "RowSource",
    "Scalar",
    "Source",
    "SourceMeter",
    "StateLedger",
    "SteppedSource",
    "StreamMixingDataset",
    "TaggedDataset",
    "Telemetry",
    "WatchedSource",
    "aggregate_step_metrics",
    "init",
    "reduce_loss_metrics",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with _naming_extra(f"{__name__}.{name}"):
            value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'otel_train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
