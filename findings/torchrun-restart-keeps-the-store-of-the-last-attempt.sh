#!/usr/bin/env bash
# torch 2.15.0: torchrun's restarts (--max-restarts) leave the keys of the last attempt in the store that the new ranks
# meet in. A rank that comes a moment before another finds that one's old address: gloo ends with "Connection refused"
# (NCCL's id is read from the same store), and the restart is used up, so that a job with one restart fails for good.
#
# The source says "We create a new TCPStore for every retry so no need to add prefix for each attempt", which was the
# remedy of pytorch/pytorch#135712; in this release the agent's store is made once. With
# TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 each attempt has its own.
#
# Seen: exit code 1 with the shared store, which is the default (or a rank that waits for half an hour), and 0 with the
# variable.
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
import time

import torch.distributed as dist

again = os.environ["TORCHELASTIC_RESTART_COUNT"] == "1"
if again and os.environ["RANK"] == "0":
    open(f"{__file__}.came", "w").close()
elif again:  # ranks need not come at once
    while not os.path.exists(f"{__file__}.came"):
        time.sleep(0.1)
    time.sleep(10)
dist.init_process_group("gloo")
dist.barrier()
os._exit(0 if again else 1)
PYTHON
"$PYTHON" -c 'import torch; assert torch.__version__.startswith("2.15.0"), torch.__version__'
run() { rm -f "$work/job.py.came"; OMP_NUM_THREADS=1 timeout 120 "$PYTHON" -m torch.distributed.run --nproc-per-node 2 --max-restarts 1 "$work/job.py" >"$work/log" 2>&1; }
shared=0 own=0
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=0 run || shared=$?
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 run || own=$?
echo "exit code with the shared store $shared, with a store of each attempt's own $own"
[[ $shared != 0 && $own == 0 ]]
