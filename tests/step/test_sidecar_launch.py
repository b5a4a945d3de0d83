"""How a rank starts its sidecar: nothing of the job's directory, search path or place on the machine gets into it."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import otel_train
from otel_train.catalogue import cluster_name
from otel_train.sidecar.machine_share import NICENESS, SET_MEMPOLICY
from otel_train.step.sidecar_process import SidecarProcess
from otel_train.testing import OtlpReceiver
from tests.support.rank_ring import Rank
from tests.support.waiting import wait_until

PACKAGE = Path(otel_train.__file__).parent
JOB = """
import sys
{before}
import otel_train
with otel_train.init(ring_dir=sys.argv[1], close_timeout=90.0) as telemetry:
    for step in (1, 2, 3):
        telemetry.step(step, {{"loss": 2.0}})
"""
POISON = "import sys; open({trap!r}, 'a').write(' '.join(sys.orig_argv) + '\\n')\n"


def run(command: list[str], directory: Path, *, python: str = sys.executable, **environment: str) -> None:
    """Run a job to its end in a directory."""
    # A busy machine may answer late, and a request that is given up comes again.
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "60", **environment}
    done = subprocess.run(
        [python, *command, str(directory / "rings")],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    log = directory / "rings" / "sidecar.log"
    print(done.stderr, log.read_text() if log.exists() else "no sidecar")
    assert done.returncode == 0


def test_sidecar_ignores_job_modules(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """No module of the job's gets into the sidecar: not by the working directory, the script's, PYTHONPATH, or a
    sitecustomize.
    """
    (tmp_path / "job.py").write_text(JOB.format(before=""))
    trap = tmp_path / "trap"
    for name in ("grpc", "requests", "google", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(POISON.format(trap=str(trap)))
    run(["job.py"], tmp_path, PYTHONPATH=f":{tmp_path}:.:{PACKAGE.parent}", PYTHONWARNINGS="error", PYTHONINSPECT="")
    assert receiver.values(cluster_name("loss")) == [2.0, 2.0, 2.0]
    assert "otel_train.sidecar" not in (trap.read_text() if trap.exists() else "")


@pytest.mark.parametrize("how", ["zipapp", pytest.param("search path", marks=pytest.mark.faults)])
def test_sidecar_uses_ranks_package(how: str, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """The sidecar runs the copy of the package that the rank has, in a zip file or in a directory of its path."""
    bundle = zipfile.ZipFile(tmp_path / "job.pyz", "w")
    before = "" if how == "zipapp" else f"sys.path.insert(0, {str(tmp_path / 'libraries')!r})"
    with bundle:
        for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "sidecar" / "__init__.py"}:
            bundle.write(path, path.relative_to(PACKAGE.parent))
        bundle.writestr("otel_train/sidecar/__init__.py", POISON.format(trap=str(tmp_path / "trap")))
        bundle.writestr("__main__.py", JOB.format(before=before))
    if how != "zipapp":
        bundle = zipfile.ZipFile(tmp_path / "job.pyz")
        bundle.extractall(tmp_path / "libraries")
        (tmp_path / "job.py").write_text(JOB.format(before=before))
    run(["job.pyz" if how == "zipapp" else "job.py"], tmp_path)
    assert receiver.values(cluster_name("loss")) == [2.0, 2.0, 2.0]
    assert "otel_train.sidecar" in (tmp_path / "trap").read_text()


def test_sidecar_uses_ranks_libraries(receiver: OtlpReceiver, tmp_path: Path) -> None:
    """The sidecar finds its libraries in directories that only the rank's search path has, as in a pex file."""
    if sys.prefix == sys.base_prefix:
        pytest.skip("not in a virtual environment, whose interpreter has no packages of its own")
    before = f"sys.path += {[str(PACKAGE.parent), sysconfig.get_path('purelib')]!r}"
    (tmp_path / "job.py").write_text(JOB.format(before=before))
    run(["job.py"], tmp_path, python=sys._base_executable)  # type: ignore[attr-defined]
    assert receiver.values(cluster_name("loss")) == [2.0, 2.0, 2.0]


@pytest.mark.usefixtures("receiver")
def test_sidecar_leaves_ranks_cores(tmp_path: Path) -> None:
    """The sidecar is detached, has the cores and memory that a bound rank gave up, and a lower priority."""

    @contextmanager
    def bound() -> Iterator[set[int]]:
        """Bind this process to one core and one memory node, as numactl does it; give the cores that there are."""
        cores = os.sched_getaffinity(0)
        set_policy, number = ctypes.CDLL(None).syscall, SET_MEMPOLICY.get(platform.machine(), -1)
        os.sched_setaffinity(0, {min(cores)})
        set_policy(number, 2, ctypes.byref(ctypes.c_ulong(1)), 64)  # MPOL_BIND
        try:
            yield cores
        finally:
            set_policy(number, 0, None, 0)
            os.sched_setaffinity(0, cores)

    rank = Rank(tmp_path)
    with bound() as cores, closing(SidecarProcess(tmp_path, 0.0)) as process:
        rank.record(1)
        wait_until(lambda: rank.acknowledged() and process.pid > 0)
        proc = Path(f"/proc/{process.pid}")
        assert int((proc / "stat").read_text().rpartition(")")[2].split()[1]) != os.getpid()
        assert os.sched_getaffinity(process.pid) >= cores
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= NICENESS
        assert (proc / "cwd").readlink() == Path("/")
        maps = proc / "numa_maps"  # not in every kernel
        assert not maps.exists() or "bind:" not in maps.read_text()
        rank.ring.close(1, 0)
