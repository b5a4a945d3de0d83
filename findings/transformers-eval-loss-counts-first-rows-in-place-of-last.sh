#!/usr/bin/env bash
# transformers 5.23.0 with accelerate 1.15.0: Trainer.evaluate() on several processes gives another eval_loss than on one.
# The last round of batches is filled up with rows from the beginning of the set. A batch's loss is the mean over its rows,
# the repeated ones among them; only then is it repeated for each row and cut to the number of rows of the set, as
# predictions and labels are. So the set's last rows hardly count where their batch is mostly filled up, without a warning.
#
# Seen, with ten rows whose losses are 0 to 9 and batches of eight: 4.5 on one process, which is their mean; 3.6 on two:
# process 1 had 8 and 9 and, once more, 0 to 5, whose mean 4.0 stands for both. With compute_metrics on the gathered
# predictions it is 4.5 on both.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 accelerate==1.15.0 transformers==5.23.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from transformers import Trainer, TrainingArguments

assert (version("transformers"), version("accelerate")) == ("5.23.0", "1.15.0")


class Model(torch.nn.Module):
    """A model whose loss is the mean of its rows' numbers."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, labels=None):
        return {"loss": (self.weight * x).mean(), "logits": self.weight * x}


args = TrainingArguments(
    sys.argv[1], per_device_eval_batch_size=8, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
)
rows = [{"x": float(number), "labels": 0} for number in range(10)]
metrics = Trainer(
    Model(), args, eval_dataset=rows, compute_metrics=lambda predicted: {"mean": float(predicted.predictions.mean())}
).evaluate()
if args.process_index == 0:
    print(f"processes {args.world_size}: eval_loss {metrics['eval_loss']:.3f}, mean {metrics['eval_mean']:.3f}", flush=True)
expected = {1: 4.5, 2: 3.6}[args.world_size]
sys.exit(abs(metrics["eval_loss"] - expected) > 1e-6 or abs(metrics["eval_mean"] - 4.5) > 1e-6)
PYTHON
for processes in 1 2; do
    OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true timeout 200 "$PYTHON" -W ignore -m torch.distributed.run --standalone \
        --nproc-per-node "$processes" "$work/job.py" "$work/out" 2>"$work/log" || { tail -5 "$work/log"; exit 1; }
done
