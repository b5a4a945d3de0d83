"""Adapters: each makes the mix of one loader measured in a line, with the target weights that the loader has.

A module bears its loader's name and is imported by whoever uses that loader: `from otel_train.integrations import
torchdata`. Its `track(...)` returns a `SourceMeter` and what the program goes on with; the training loop reads its
batches through `meter.counted(loader)`.
"""

from otel_train.extras import is_installed
from otel_train.import_errors import naming_extra

with naming_extra(__name__):  # torch itself is imported by those modules that a process uses
    if not is_installed("torch"):
        raise ModuleNotFoundError(name="torch")
