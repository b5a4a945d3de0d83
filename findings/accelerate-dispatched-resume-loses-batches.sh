#!/usr/bin/env bash
# accelerate 1.15.0 with torchdata 0.11.0: with use_stateful_dataloader a prepared loader's state_dict() is meant to be that
# of what the loop got ("Adjusts the state dict for prefetching"). Where process 0 reads for all, which is the default for
# an IterableDataset, it takes the state back by the batches that it has fetched for the next step only in the loader's own
# counters; the state of a dataset that has one, as torchdata advises, stays ahead. A resume loses processes - 1 batches.
#
# Seen, with 2 processes and batches of 2: five steps trained on numbers 0 to 19, the resumed loop on 22 to 47; 20 and 21
# on neither side. With dispatch_batches=False nothing is lost.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 accelerate==1.15.0 torchdata==0.11.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader

assert (version("accelerate"), version("torchdata")) == ("1.15.0", "0.11.0")


class Numbers(torch.utils.data.IterableDataset):
    """Forty-eight numbers, with the state that torchdata asks for."""

    def __init__(self):
        self.next = 0

    def __iter__(self):
        while self.next < 48:
            self.next += 1
            yield torch.tensor(self.next - 1)

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


configuration = {"dispatched": {}, "own": {"dispatch_batches": False}}[sys.argv[1]]
accelerator = Accelerator(
    cpu=True, dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=True, **configuration)
)
loader = accelerator.prepare(DataLoader(Numbers(), batch_size=2))
before, state = [], None
for step, batch in enumerate(loader, start=1):
    before += batch.tolist()
    if step == 5:
        state = loader.state_dict()
        break
resumed = accelerator.prepare(DataLoader(Numbers(), batch_size=2))
resumed.load_state_dict(state)
after = [number for batch in resumed for number in batch.tolist()]
before, after = (sorted(accelerator.gather(torch.tensor(numbers)).tolist()) for numbers in (before, after))
expected_before, first = list(range(20)), {"dispatched": 22, "own": 20}[sys.argv[1]]
if accelerator.is_main_process:
    print(f"{sys.argv[1]}: before {before}, after {after}", flush=True)
accelerator.wait_for_everyone()
sys.exit(before != expected_before or after != list(range(first, 48)))
PYTHON
for mode in dispatched own; do
    OMP_NUM_THREADS=1 timeout 120 "$PYTHON" -W ignore -m torch.distributed.run --standalone --nproc-per-node 2 "$work/job.py" "$mode" \
        2>"$work/log" || { tail -5 "$work/log"; exit 1; }
done
