"""A real Thanos: its receiver, which takes OTLP, and its querier, which answers as Prometheus does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import answers, free_port
from tests.support.prometheus import Prometheus, Store
from tests.support.waiting import wait_until

WINDOW = "--tsdb.out-of-order.time-window=24h"
PROMOTED = tuple(
    f"--receive.otlp-promote-resource-attributes={name}"
    for name in ("train.run.id", "train.attempt", "train.rank", "host.name")
)


@contextmanager
def running_thanos(folder: Path, *flags: str) -> Iterator[Store]:
    """Run both, their data and logs in a folder, until the end of the block."""
    series, takes, ready, asked, *unused = (f"127.0.0.1:{free_port()}" for _ in range(6))
    receive = [
        *(str(programs.thanos()), "receive", f"--tsdb.path={folder}/data", '--label=store="test"', "--log.level=warn"),
        *(f"--grpc-address={series}", f"--http-address={ready}", f"--remote-write.address={takes}"),
        *(f"--receive.capnproto-address={unused[0]}", *flags),
    ]
    query = [
        *(str(programs.thanos()), "query", f"--endpoint={series}", "--log.level=warn"),
        *(f"--http-address={asked}", f"--grpc-address={unused[1]}"),
    ]
    environment, querier = clean_environment(), Prometheus(f"http://{asked}")
    with running_process(receive, folder / "receive.log", environment):
        wait_until(lambda: answers(f"http://{ready}/-/ready"), 60, "Thanos' start", log=folder / "receive.log")
        with running_process(query, folder / "query.log", environment):
            wait_until(lambda: answers(f"http://{asked}/-/ready"), 60, "its querier's start", log=folder / "query.log")
            yield Store(f"http://{takes}/api/v1/otlp", querier)
