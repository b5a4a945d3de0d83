"""A real VictoriaMetrics, which takes OTLP and answers as Prometheus does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_until

NAMES = "-opentelemetry.usePrometheusNaming"
ONCE = "-dedup.minScrapeInterval=1ms"


@contextmanager
def running_victoria_metrics(folder: Path, *flags: str) -> Iterator[Prometheus]:
    """Run VictoriaMetrics, its data and its log in a folder, until the end of the block."""
    address, log = f"127.0.0.1:{free_port()}", folder / "victoria-metrics.log"
    command = [str(programs.victoria_metrics()), f"-storageDataPath={folder}/data", f"-httpListenAddr={address}"]
    with running_process([*command, "-memory.allowedBytes=128MiB", *flags], log, clean_environment()):
        wait_until(lambda: answers(f"http://{address}/health"), 60, "VictoriaMetrics' start", log=log)
        yield Prometheus(f"http://{address}")
