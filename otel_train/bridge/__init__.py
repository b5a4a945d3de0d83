"""Turn OTLP into wandb rows: the points of each step become one row, exactly once and in order.

`bridge_service` is the process. `server` receives, `decode` makes points of a request, `inbox` keeps them, `row_order`
says which step's row is due, `wandb_rows` builds it, `row_writer` and `wandb_sink` write it.

Names are resolved when they are first used: a reader of an inbox loads neither gRPC nor wandb.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from otel_train.import_errors import naming_extra as _naming_extra

if TYPE_CHECKING:
    from otel_train.bridge.bridge_service import Bridge, BridgeConfig, run_bridge
    from otel_train.bridge.errors import BridgeError, WandbFileError
    from otel_train.bridge.inbox import Inbox
    from otel_train.bridge.inbox_reader import InboxReader, StepRow, delivered_steps
    from otel_train.bridge.safe_names import safe_id
    from otel_train.bridge.wandb_file import HistoryRow, read_history, read_run, wandb_files

_HOMES = {
    "Bridge": "bridge_service",
    "BridgeConfig": "bridge_service",
    "BridgeError": "errors",
    "HistoryRow": "wandb_file",
    "Inbox": "inbox",
    "InboxReader": "inbox_reader",
    "StepRow": "inbox_reader",
    "WandbFileError": "errors",
    "delivered_steps": "inbox_reader",
    "read_history": "wandb_file",
    "read_run": "wandb_file",
    "run_bridge": "bridge_service",
    "safe_id": "safe_names",
    "wandb_files": "wandb_file",
}

__all__ = [
    "Bridge",
    "BridgeConfig",
    "BridgeError",
    "HistoryRow",
    "Inbox",
    "InboxReader",
    "StepRow",
    "WandbFileError",
    "delivered_steps",
    "read_history",
    "read_run",
    "run_bridge",
    "safe_id",
    "wandb_files",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with _naming_extra(f"{__name__}.{name}"):
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
