#!/usr/bin/env bash
# accelerate 1.15.0: a tracker's main_process_only is documented to "toggle if relevant logging, init, and other functions
# should occur on the main process or across all processes". But Accelerator.log and Accelerator.init_trackers are
# themselves decorated to run on the main process only (with the class' own method of that name, while it is being
# defined), so that a tracker with main_process_only = False is never called on the others: their values reach nothing,
# without a word.
#
# Seen, with 2 processes that both call log({"loss": rank}): start and log once on process 0, nothing on process 1;
# trackers are [1, 0] long. The method of the same tracker, called directly, works on both.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 accelerate==1.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import sys
from importlib.metadata import version

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process
from accelerate.utils import gather_object

assert version("accelerate") == "1.15.0"


class Calls(GeneralTracker):
    """A tracker that keeps the names of its calls, as one for all processes would be written."""

    name, requires_logging_directory, main_process_only = "calls", False, False

    def __init__(self):
        super().__init__()
        self.calls = []

    @property
    def tracker(self):
        return self.calls

    @on_main_process
    def start(self):
        self.calls.append("start")

    @on_main_process
    def log(self, values, step=None, **_):
        self.calls.append(f"log {values['loss']}")


tracker = Calls()
accelerator = Accelerator(cpu=True, log_with=[tracker])
accelerator.init_trackers("pilot")
accelerator.log({"loss": accelerator.process_index}, step=1)
through_accelerator = gather_object([list(tracker.calls)])
tracker.log({"loss": accelerator.process_index}, step=2)
directly = gather_object([tracker.calls[-1:]])
lengths = gather_object([len(accelerator.trackers)])
if accelerator.is_main_process:
    print(f"accelerator.log: {through_accelerator}; tracker.log: {directly}; trackers: {lengths}", flush=True)
sys.exit(
    through_accelerator != [["start", "log 0"], []] or directly != [["log 0"], ["log 1"]] or lengths != [1, 0]
)
PYTHON
OMP_NUM_THREADS=1 timeout 120 "$PYTHON" -W ignore -m torch.distributed.run --standalone --nproc-per-node 2 "$work/job.py" \
    2>"$work/log" || { tail -5 "$work/log"; exit 1; }
