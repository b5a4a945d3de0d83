"""A step's values: drained, packed, reduced once over the ranks, recorded.

`telemetry` is what a training loop calls. The modules on a value's way, in its order: `value_source` (what a source
gives) and `scalar_recorder` (the user's scalars), joined by `recorder`; `packing`; `reduction` and `flight`;
`recording` (the rank's record in the ring) and `cluster_values` (the cluster's).
"""

from typing import TYPE_CHECKING

from otel_train.lazy_names import lazy_names

if TYPE_CHECKING:
    from otel_train.step.aggregate import aggregate_step_metrics, reduce_loss_metrics
    from otel_train.step.declarations import Scalar
    from otel_train.step.options import SessionOptions
    from otel_train.step.per_row import PerRow
    from otel_train.step.session import init
    from otel_train.step.source_protocols import (
        ClockedSource,
        DescribedSource,
        FlatSource,
        ModalSource,
        RowSource,
        Source,
        SteppedSource,
        WatchedSource,
    )
    from otel_train.step.telemetry import Telemetry
else:
    __getattr__, __dir__ = lazy_names(
        globals(),
        {
            "aggregate": "aggregate_step_metrics reduce_loss_metrics",
            "declarations": "Scalar",
            "options": "SessionOptions",
            "per_row": "PerRow",
            "session": "init",
            "source_protocols": (
                "ClockedSource DescribedSource FlatSource ModalSource RowSource Source SteppedSource WatchedSource"
            ),
            "telemetry": "Telemetry",
        },
    )

__all__ = [
    "ClockedSource",
    "DescribedSource",
    "FlatSource",
    "ModalSource",
    "PerRow",
    "RowSource",
    "Scalar",
    "SessionOptions",
    "Source",
    "SteppedSource",
    "Telemetry",
    "WatchedSource",
    "aggregate_step_metrics",
    "init",
    "reduce_loss_metrics",
]
