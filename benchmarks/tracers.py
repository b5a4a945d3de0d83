"""The peers that trace a training loop by its steps: NVIDIA's one-logger and TraceML; see `benchmarks.peers`."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.measure import Step
from tests.support.waiting import wait_until


@contextlib.contextmanager
def one_logger(folder: Path) -> Iterator[Step]:
    """Tell NVIDIA's one-logger of an iteration's start and end, with the settings and exporter of its README.

    By its defaults the spans of single iterations are measured and not exported, but summed up every ten.
    """
    # `make bench` only
    from nv_one_logger.api.config import LoggerConfig, OneLoggerConfig  # noqa: PLC0415
    from nv_one_logger.exporter.file_exporter import FileExporter  # noqa: PLC0415
    from nv_one_logger.training_telemetry.api import callbacks  # noqa: PLC0415
    from nv_one_logger.training_telemetry.api.config import TrainingTelemetryConfig  # noqa: PLC0415
    from nv_one_logger.training_telemetry.api.training_telemetry_provider import (  # noqa: PLC0415
        TrainingTelemetryProvider,
    )

    file = folder / "training_telemetry.json"
    logs = LoggerConfig(log_file_path_for_info=folder / "info.log", log_file_path_for_err=folder / "error.log")
    provider = TrainingTelemetryProvider.instance()
    provider.with_base_config(
        OneLoggerConfig(application_name="bench", session_tag_or_fn="bench", world_size_or_fn=1, logger_config=logs)
    ).with_exporter(FileExporter(file_path=file)).configure_provider()
    callbacks.on_app_start()
    provider.set_training_telemetry_config(
        TrainingTelemetryConfig(
            is_log_throughput_enabled_or_fn=True,
            flops_per_sample_or_fn=100,
            global_batch_size_or_fn=32,
            log_every_n_train_iterations=10,
            perf_tag_or_fn="bench",
        )
    )
    # Throughput wants to know where training begins and ends; far enough away for any run.
    callbacks.on_train_start(
        train_iterations_start=0,
        train_samples_start=0,
        train_iterations_target_or_fn=10**9,
        train_samples_target_or_fn=32 * 10**9,
    )

    def step(_number: int) -> None:
        callbacks.on_training_single_iteration_start()
        callbacks.on_training_single_iteration_end()

    yield step
    callbacks.on_train_end()
    callbacks.on_app_end()
    wait_until(lambda: "training_metrics_update" in file.read_text().lower(), what="the work of nv-one-logger")


@contextlib.contextmanager
def traceml(folder: Path) -> Iterator[Step]:
    """Wrap an empty step in TraceML's `trace_step`, its aggregator (`traceml serve`) running beside."""
    # `make bench` only
    import traceml_ai  # noqa: PLC0415
    from traceml_ai.runtime.lifecycle import get_active_runtime_handle  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [sys.executable, "-m", "traceml_ai.launcher.cli", "serve", "--logs-dir", str(folder)]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*serve, "--run-name", "bench", "--aggregator-port", str(port)], stdout=log, stderr=log
        )
    with contextlib.ExitStack() as stack:
        stack.callback(server.wait)
        stack.callback(server.terminate)
        # Not before it listens: what tries to connect to a free port of this range may meet itself there.
        wait_until(lambda: b"Aggregator ready" in (folder / "serve.log").read_bytes(), what="the work of traceml serve")
        traceml_ai.init(session_id="bench", logs_dir=str(folder), aggregator_port=port, on_missing_aggregator="raise")
        model = torch.nn.Linear(1, 1)

        def step(_number: int) -> None:
            with traceml_ai.trace_step(model):
                pass

        yield step
        get_active_runtime_handle().stop()  # its server waits for that
        wait_until(lambda: _traceml_rows(folder) > 0, what="the work of TraceML")


def _traceml_rows(folder: Path) -> int:
    file = folder / "bench" / "aggregator" / "telemetry"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT COUNT(*) FROM step_time_samples").fetchone()[0])
