#!/usr/bin/env bash
# torch 2.15.0, gloo: after destroy_process_group() has returned, the process still waits for an asynchronous collective
# that a peer has not come to: in the group's destructor, when the last reference goes, at the interpreter's end at the
# latest, for as long as the collective's timeout (half an hour by default). A rank that leaves a job early seems to hang
# after its last line.
#
# Seen: the call takes 0.0 s, the process ends when the peer's does, here 10 s later. Without destroy_process_group() it
# ends at once.
# Exits 1 when that changes. PYTHON may name an interpreter that has torch 2.15.0; else it is installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import os
import sys
import time

import torch
import torch.distributed as dist


def main():
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
    group = dist.new_group([0, 1])
    if sys.argv[2] == "1":
        time.sleep(10)  # trains on, without the collective
        os._exit(0)
    work = dist.all_reduce(torch.ones(1), group=group, async_op=True)
    if sys.argv[3] == "destroy":
        dist.destroy_process_group()


main()
PYTHON
"$PYTHON" -c 'import torch; assert torch.__version__.startswith("2.15.0"), torch.__version__'
run() {
    rm -f "$work/store"
    "$PYTHON" "$work/job.py" "$work/store" 1 "$1" 2>"$work/log" &
    "$PYTHON" "$work/job.py" "$work/store" 0 "$1" 2>>"$work/log"
    kill -0 $! 2>/dev/null && echo first || echo last
    wait
}
kept=$(run keep) destroyed=$(run destroy)
echo "rank 0 ended $kept where it destroyed nothing, $destroyed where it destroyed its groups"
[[ $kept == first && $destroyed == last ]]
