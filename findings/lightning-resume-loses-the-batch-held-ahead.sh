#!/usr/bin/env bash
# lightning 2.6.6 with torchdata 0.11.0: Lightning puts the state of a StatefulDataLoader into a checkpoint in the middle
# of an epoch, and a resume loses the batch after it. Where the loader has no length, as of an IterableDataset, Lightning
# fetches one batch ahead to see the end in time, and the loader's state has that batch as handed out. The loader's whole
# purpose is to go on where training was.
#
# Seen, with 0 workers and with 1: trained on batches 0 to 4 before the checkpoint of step 5, on 6 to 19 after it; batch 5
# on neither side.
# Exits 1 when that changes. PYTHON may name an interpreter that has the packages; else they are installed (some GB).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 lightning==2.6.6 torchdata==0.11.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/job.py" <<'PYTHON'
import sys
from importlib.metadata import version

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torchdata.stateful_dataloader import StatefulDataLoader

assert (version("lightning"), version("torchdata")) == ("2.6.6", "0.11.0")
work = sys.argv[1]


class Numbers(torch.utils.data.IterableDataset):
    """Twenty numbers, with the state that torchdata asks for."""

    def __init__(self):
        self.next = 0

    def __iter__(self):
        while self.next < 20:
            self.next += 1
            yield torch.tensor([float(self.next - 1)])

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch):
        self.seen.append(int(batch))
        return self.linear(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def fit(workers, checkpoint=None, **options):
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options
    )
    trainer.fit(module, StatefulDataLoader(Numbers(), batch_size=1, num_workers=workers), ckpt_path=checkpoint)
    return module.seen


as_seen = True
for workers in (0, 1):
    folder = f"{work}/{workers}"
    saving = ModelCheckpoint(folder, every_n_train_steps=5, save_top_k=-1, filename="{step}")
    whole = fit(workers, callbacks=[saving])
    resumed = fit(workers, f"{folder}/step=5.ckpt", enable_checkpointing=False)
    print(f"{workers} workers: without a stop {whole}, after the checkpoint of step 5 {resumed}")
    as_seen = as_seen and whole == list(range(20)) and resumed == list(range(6, 20))
sys.exit(not as_seen)
PYTHON
OMP_NUM_THREADS=1 timeout 300 "$PYTHON" -W ignore "$work/job.py" "$work" 2>"$work/log" || { tail -5 "$work/log"; exit 1; }
