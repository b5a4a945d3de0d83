#!/usr/bin/env bash
# lightning 2.6.6: a value that training_step logs at some steps only (self.log within an `if`, as the documentation of
# self.log allows) reaches the loggers at every step from then on: the last value is written again and again under the
# steps that have logged none, until the epoch ends. On a curve an old value can't be told from a new one.
#
# Seen: `rare` was logged at steps 0 and 4 (0.0 and 4.0); CSVLogger has it at 0 to 7, four times each. What nobody logs in
# the second epoch is absent there.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 lightning==2.6.6
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import csv
import sys
from importlib.metadata import version
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

assert version("lightning") == "2.6.6"


class Model(lightning.LightningModule):
    """A model that logs one value at each step, and another at each fourth step of the first epoch."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        self.log("each", float(index))
        if index % 4 == 0 and self.current_epoch == 0:
            self.log("rare", float(index))
        return self.linear(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


folder = sys.argv[1]
trainer = lightning.Trainer(
    max_epochs=2, accelerator="cpu", devices=1, log_every_n_steps=1, logger=CSVLogger(folder), default_root_dir=folder,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(Model(), DataLoader(torch.ones(8, 1), batch_size=1))
[path] = Path(folder).rglob("metrics.csv")
rows = [(int(row["step"]), row["each"], row["rare"]) for row in csv.DictReader(path.open())]
print("step, each, rare:", *rows)
assert [float(each) for _, each, _ in rows] == [*range(8), *range(8)]
assert [rare and float(rare) for _, _, rare in rows] == [0.0] * 4 + [4.0] * 4 + [""] * 8
PYTHON
timeout 300 "$PYTHON" -W ignore "$work/job.py" "$work" 2>"$work/log" || { tail -5 "$work/log"; exit 1; }
