"""An OTLP/gRPC receiver in a process of its own, so that answering costs the measured process nothing but the call.

It takes metrics and traces, answers at once, and counts; a line on its standard input asks for the counts, the end of
its standard input ends it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"
TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver that runs."""

    address: str
    """Host and port."""
    process: subprocess.Popen[str]

    @property
    def endpoint(self) -> str:
        """Value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://{self.address}"

    def requests(self, service: str = METRICS) -> int:
        """Return how many requests it has answered."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(json.loads(self.process.stdout.readline()).get(service, 0))


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Run a receiver until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.receiver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
    ) as process:  # its end closes the pipes and waits
        assert process.stdout is not None
        yield Receiver(process.stdout.readline().strip(), process)


def main() -> None:
    """Serve until standard input ends."""
    counts: Counter[str] = Counter()

    def answering(service: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        def export(_request: bytes, _context: grpc.ServicerContext) -> bytes:
            counts[service] += 1
            return b""  # an empty response message: all of it was taken

        return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(ThreadPoolExecutor(2))
    for service in (METRICS, TRACES):
        handlers = {"Export": answering(service)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(counts), flush=True)
    server.stop(None).wait()


if __name__ == "__main__":
    main()
