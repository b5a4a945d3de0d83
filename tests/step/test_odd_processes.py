"""A rank whose process lacks what others have: open descriptors, a home, a directory, modes, room for descriptors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import otel_train
from otel_train.catalogue import cluster_name
from otel_train.ring import Kind, RingReader, is_served, ring_files
from otel_train.testing import OtlpReceiver
from tests.support.waiting import wait_until

ROOT = Path(otel_train.__file__).parents[1]


def test_bare_process_is_recorded(tmp_path: Path) -> None:
    """A process without descriptors 0 to 2, home, passwd entry or directory, with umask 0777 and 64 descriptors, is
    recorded and sent.
    """
    program = """
        import json, os, pwd, resource, sys, time
        def no_entry(uid): raise KeyError(uid)
        pwd.getpwuid = no_entry
        import torch  # with MKL it can't be imported in a directory that is gone
        os.rmdir(os.getcwd())
        os.umask(0o777)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        import otel_train
        def opened():
            files = {}
            for number in os.listdir("/proc/self/fd"):
                try: files[number] = os.readlink(f"/proc/self/fd/{number}")
                except OSError: pass
            return files
        with otel_train.init(ring_dir=sys.argv[1], close_timeout=90.0) as telemetry:
            for step in (1, 2, 3):
                telemetry.step(step, {"loss": 2.0})
            for _ in range(300):  # a thread may just be reading a file
                if not {"0", "1", "2"} & {*(open_files := opened())}: break
                time.sleep(0.1)
        report = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(report, json.dumps(open_files).encode())
    """
    (tmp_path / "gone").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    arguments = [tmp_path / "run", tmp_path / "fds"]
    with OtlpReceiver() as receiver:
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", dedent(program), *arguments],
            cwd=tmp_path / "gone",
            env={
                **kept,
                "LANG": "C",
                "PYTHONPATH": str(ROOT),
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
            },
            timeout=120,
            check=False,
        )
    log = tmp_path / "run" / "sidecar.log"
    assert done.returncode == 0, log.read_text() if log.exists() else "no sidecar"
    records = RingReader(ring_files(tmp_path / "run")[0]).read(0, 100)[0]
    assert [record.step for record in records if record.kind is Kind.RANK] == [1, 2, 3]
    assert not {"0", "1", "2"} & set(json.loads((tmp_path / "fds").read_bytes()))
    assert receiver.values(cluster_name("loss")) == [2.0, 2.0, 2.0]


def test_sessions_leak_no_resource(tmp_path: Path) -> None:
    """A session that is closed, or left to the interpreter's end, leaves no ResourceWarning."""
    program = """
        import sys
        import otel_train
        from otel_train.step import sidecar_process
        sidecar_process.LONGEST_JOIN = 60.0  # a busy machine may be late to tell the thread
        for number in range(2):
            telemetry = otel_train.init(ring_dir=sys.argv[1] + str(number), close_timeout=0.0)
            telemetry.step(1, {"loss": 2.0})
            if number:
                telemetry.close()
        del telemetry
    """
    with OtlpReceiver() as receiver:  # it stays until both sidecars have left, which would go on for an hour
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", dedent(program), tmp_path / "run"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        wait_until(lambda: len(receiver.values(cluster_name("loss"))) == 2)
        wait_until(lambda: not any(is_served(tmp_path / f"run{number}") for number in range(2)))
    assert (done.returncode, "ResourceWarning" in done.stderr) == (0, False), done.stderr
