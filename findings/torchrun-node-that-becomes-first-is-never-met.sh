#!/usr/bin/env bash
# torch 2.15.0: where a node joins a running elastic job (torchrun --nnodes=1:2, c10d) and its address sorts before the
# others', the ranks of one world are told two different MASTER_ADDR:MASTER_PORT. The new node is the first one and opens
# a store; a node that was the first one before keeps the address of its own. They wait for each other until they time out.
#
# Only the node that becomes the first one asks again where the store is (dynamic_rendezvous.py, next_rendezvous). With
# TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, which is not the default, all are told the same.
#
# Seen: two addresses in a world of two nodes by default, and one with the variable.
# Exits 1 when that changes. PYTHON may name an interpreter that has torch 2.15.0; else it is installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'touch "$work/stop"; wait; rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import os
import sys
import time

told = os.environ["MASTER_ADDR"] + ":" + os.environ["MASTER_PORT"]
with open(f"{sys.argv[1]}/{os.environ['WORLD_SIZE']}-{os.environ['RANK']}", "w") as file:
    file.write(told)
while not os.path.exists(f"{sys.argv[1]}/stop"):
    time.sleep(0.1)
PYTHON
"$PYTHON" -c 'import torch; assert torch.__version__.startswith("2.15.0"), torch.__version__'
# Two nodes of this machine, by their addresses; the one that begins has the rendezvous, and comes second in their order.
node() {
    "$PYTHON" -m torch.distributed.run --nnodes=1:2 --rdzv-backend=c10d --rdzv-endpoint="127.0.0.2:$port" \
        --rdzv-conf=last_call_timeout=1 --local-addr="$1" "$work/job.py" "$work" >>"$work/log" 2>&1 &
}
until_there() { for _ in $(seq 600); do [[ -s $1 ]] && return; sleep 0.1; done; cat "$work/log"; exit 1; }
addresses() {
    rm -f "$work"/stop "$work"/[12]-*
    port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.2", 0)); print(s.getsockname()[1])')
    node 127.0.0.2
    until_there "$work/1-0"
    node 127.0.0.1
    until_there "$work/2-0"
    until_there "$work/2-1"
    touch "$work/stop"
    wait
    for rank in 0 1; do cat "$work/2-$rank"; echo; done | sort -u | wc -l
}
export OMP_NUM_THREADS=1
shared=$(TORCH_DISABLE_SHARE_RDZV_TCP_STORE=0 addresses)
own=$(TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 addresses)
echo "addresses of the store in one world of two nodes: $shared by default, $own with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
[[ $shared == 2 && $own == 1 ]]
