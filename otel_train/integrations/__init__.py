"""Adapters: each makes the mix of one loader measured in a line, with the target weights that the loader has.

A module bears its loader's name and is imported by whoever uses that loader: `from otel_train.integrations import
torchdata`. Its `track(...)` returns a `SourceMeter` and what the program goes on with; the training loop reads its
batches through `meter.counted(loader)`.
"""
