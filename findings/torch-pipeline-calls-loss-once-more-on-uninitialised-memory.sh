#!/usr/bin/env bash
# torch 2.15.0: a pipeline schedule calls the loss function of its last stage once more than there are microbatches, in
# the first step only, with an output that was made of uninitialised memory (the stages learn their shapes by a forward
# of `torch.empty`). The loss that `losses=` returns leaves it out, so that nothing shows it; whoever adds up a metric
# within the loss function (tokens, a mean, losses by source) has 1e21, NaN or a plausible number too many in it.
# torchtitan 0.3.0 trains that way.
#
# Seen, two microbatches on two gloo ranks: 3 calls in step 0, the first with a loss of 3.2e+21 or 0.038 where the targets
# make 0.107, and 2 calls in each later step.
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
import sys

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
stage = PipelineStage(torch.nn.Linear(8, 8), rank, 2, torch.device("cpu"))
calls = []


def loss_function(output, target):
    loss = (output - target).square().mean()
    calls.append(loss.item())
    return loss


schedule = ScheduleGPipe(stage, n_microbatches=2, loss_fn=loss_function)
counts = []
for step in range(3):
    calls.clear()
    losses = []
    schedule.step(torch.ones(4, 8)) if rank == 0 else schedule.step(target=torch.zeros(4, 8), losses=losses)
    if rank == 1:
        counts.append(len(calls))
        print(f"step {step}: the loss function gave {calls}, the schedule {[loss.item() for loss in losses]}", flush=True)
dist.barrier()
dist.destroy_process_group()
sys.exit(rank == 1 and counts != [3, 2, 2])
PYTHON
"$PYTHON" -c 'import torch; assert torch.__version__.startswith("2.15.0"), torch.__version__'
OMP_NUM_THREADS=1 timeout 120 "$PYTHON" -m torch.distributed.run --nproc-per-node 2 "$work/job.py"
