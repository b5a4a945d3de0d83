"""Play histories of a session in this process, one for each line of input: what they leave is a line of output.

A history is what a training loop does, as JSON: `{"dir", "readers", "modalities", "every", "ledger", "calls"}`, each
call a list of its name and its arguments. Numbers that JSON has not are texts: "nan", "inf", "-inf", "-0.0", "int:…".
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import otel_train
from otel_train.ring import RingReader, ring_files


def number(value: Any) -> Any:
    """Return what stands for a number, or for something else."""
    if isinstance(value, str) and value.startswith("int:"):
        return int(value.removeprefix("int:"))
    return float(value) if value in ("nan", "inf", "-inf", "-0.0") else value


def exact(value: Any) -> Any:
    """Return saved state with each float as its bits."""
    if isinstance(value, Mapping):
        return {key: exact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [exact(one) for one in value]
    return struct.pack("<d", value).hex() if isinstance(value, float) else value


def call(meter: otel_train.MixingMeter, telemetry: otel_train.Telemetry, name: str, arguments: list[Any]) -> None:
    """Make one call."""
    match name:
        case "step" | "add" | "log":
            scalars = {key: number(value) for key, value in arguments[-1].items()}
            if name == "step":
                telemetry.step(number(arguments[0]), scalars or None)
            elif name == "add":
                telemetry.add(scalars, weight=arguments[0])
            else:
                telemetry.log(scalars, arguments[0])
        case "pick":
            slot, rows, tokens = map(number, arguments)
            meter.pick(slot, rows, tokens=tokens)
        case "reload":
            meter.load_state_dict(meter.state_dict())
        case _:
            getattr(meter, name)(*arguments)


def play(history: Mapping[str, Any]) -> dict[str, Any]:
    """Play a history, and return what it leaves: records without times, the meter's state, the newest values."""
    modalities = [f"m{index}" for index in range(history["modalities"])]
    meter = otel_train.MixingMeter(history["readers"], modalities, dict.fromkeys(modalities, 1.0), horizon=50)
    for slot in range(history["readers"]):
        meter.open(slot, modalities[slot % len(modalities)])
    ledger = otel_train.LedgerMeter(capacity=4)
    sources: list[otel_train.Source] = [meter, ledger] if history["ledger"] else [meter]
    declared = [otel_train.Scalar("total", "sum"), otel_train.Scalar("peak", "max")]
    directory = Path(history["dir"])
    telemetry = otel_train.init(
        sources=sources,
        metrics=declared,
        ring_dir=directory,
        log_every=history["every"],
        ring_records=64,
        close_timeout=0.0,
    )
    state: dict[str, Any] = {}
    with telemetry:
        raised = []
        for name, *arguments in history["calls"]:
            try:
                call(meter, telemetry, name, arguments)
            except Exception as error:  # noqa: BLE001  # what a call raises is part of what it does
                raised.append(repr(error))
        latest = telemetry.latest
        state = meter.state_dict()
    records = []
    for path in ring_files(directory):  # none where no step was made
        reader = RingReader(path)
        for record in reader.read(0, 10**6)[0]:
            timed = {record.layout.offsets.get(name) for name in ("train.step.seconds", "train.data.wait_seconds")}
            values = [value for index, value in enumerate(record.values) if index not in timed]
            records.append(
                [record.sequence, record.step, record.kind.name, record.ordinal, record.logged, exact(values)]
            )
        reader.close()
    newest = {key: value for key, value in (latest[1] if latest else {}).items() if "duration" not in key}
    return {
        "records": records,
        "state": exact(state),
        "latest": [latest[0] if latest else None, exact(newest)],
        "refused": telemetry.refused,
        "raised": raised,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(play(json.loads(line))), flush=True)
