#!/usr/bin/env bash
# accelerate 1.15.0: a loader with a sampler of one's own gives two processes the same rows, and leaves others out, after
# Accelerator.prepare. With shuffle=True, and with torch's random samplers, each row comes once.
#
# prepare lets every process draw the whole order and keep each second batch of it. That is right only if all draw the same
# order: it sees to that for samplers that have an attribute `generator`, which it sets, and for no other. A sampler that
# calls torch.randperm, as samplers by length, by class or by weight do, draws another order in each process, since the
# processes' seeds differ unless the user sets them alike. Nothing is said, and the loss looks as it should.
#
# Seen, for 320 rows: "shuffle=True: 320 of them, 0 by both", "own sampler: 240 of them, 80 by both" or about so.
# Exits 1 when that changes. PYTHON may name an interpreter that has accelerate 1.15.0 and torch; else they are installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check accelerate==1.15.0 torch==2.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import accelerate
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Sampler

assert accelerate.__version__ == "1.15.0", accelerate.__version__
ROWS = 320


class OwnOrder(Sampler):
    def __iter__(self):
        return iter(torch.randperm(ROWS).tolist())

    def __len__(self):
        return ROWS


accelerator = accelerate.Accelerator(cpu=True)
seen = {}
for name, options in {"shuffle=True": {"shuffle": True}, "own sampler": {"sampler": OwnOrder()}}.items():
    loader = accelerator.prepare(DataLoader(range(ROWS), batch_size=8, **options))
    parts = [None, None]
    dist.all_gather_object(parts, [int(row) for batch in loader for row in batch])
    first, second = map(set, parts)
    seen[name] = len(first | second), len(first & second)
    if accelerator.is_main_process:
        print(f"{name}: {seen[name][0]} of them, {seen[name][1]} by both")
assert seen["shuffle=True"] == (ROWS, 0), seen
assert seen["own sampler"][0] < 0.9 * ROWS and seen["own sampler"][1] > 0.1 * ROWS, seen
accelerator.end_training()
PYTHON
export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1
timeout 300 "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node 2 "$work/job.py" 2>"$work/log" || { cat "$work/log"; exit 1; }
