#!/usr/bin/env bash
# ray[train] 2.60.0 with torch 2.15.0: the documentation of TorchTrainer says that the training function runs in workers and
# that a run ends when all have returned; nothing says how a worker ends. Each gets SIGKILL as soon as its function has
# returned: no atexit handler runs, no finalizer of multiprocessing, and whatever a library flushes at the end of its process
# (loggers, trackers, exporters) is lost without a word. Its child processes are killed with it, also one that was started
# with start_new_session=True, which survives under every other launcher; only a process whose own parent has ended stays.
#
# Seen, after fit() has returned without an error: atexit has not run, the child in a session of its own is gone, the
# grandchild that was left by its parent lives.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 'ray[train]==2.60.0'
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import atexit
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

assert version("ray") == "2.60.0"
folder = Path(sys.argv[1])


def lives(name):
    return (Path("/proc") / (folder / name).read_text()).exists()


def train():
    atexit.register((folder / "atexit").touch)
    detached = subprocess.Popen(["sleep", "300"], start_new_session=True)
    (folder / "detached").write_text(str(detached.pid))
    command = f"sleep 300 >/dev/null 2>&1 & echo -n $! >{folder}/grandchild"
    subprocess.run(["sh", "-c", command], start_new_session=True, check=True)
    (folder / "worker").write_text(str(os.getpid()))
    assert lives("detached") and lives("grandchild")


ray.init(num_cpus=1, include_dashboard=False, _temp_dir=str(folder), log_to_driver=False)
TorchTrainer(
    train,
    scaling_config=ScalingConfig(num_workers=1),
    run_config=RunConfig(storage_path=str(folder)),
).fit()
while lives("worker"):
    time.sleep(0.1)
time.sleep(2)
seen = {"atexit ran": (folder / "atexit").exists()}
seen |= {f"{name} lives": lives(name) for name in ("detached", "grandchild")}
print(seen)
os.kill(int((folder / "grandchild").read_text()), 9)
sys.exit(seen != {"atexit ran": False, "detached lives": False, "grandchild lives": True})
PYTHON
RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 "$PYTHON" "$work/job.py" "$work"
echo "as described: Ray Train kills a worker, and its child in a session of its own, before its process can end"
