"""The errors of the bridge."""

from __future__ import annotations

from otel_train.exceptions import OtelTrainError


class BridgeError(OtelTrainError, RuntimeError):
    """The bridge can't start or go on: its state, its lock or its address is not usable; the message says why."""


class InboxFullError(BridgeError):
    """The inbox is full until wandb has taken rows from it."""


class WandbFileError(OtelTrainError, ValueError):
    """A file is not a `.wandb` transaction log, or is damaged; the message names file and offset."""


class WandbKeyError(BridgeError):
    """The wandb server refuses the key, or there is none."""


class BusyError(BridgeError):
    """A request can't be kept now; its sender is to try again."""


class InvalidRequestError(OtelTrainError, ValueError):
    """A request is not OTLP's; to send it again is of no use."""
