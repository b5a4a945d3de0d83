#!/usr/bin/env bash
# megatron-energon 7.4.1: the `__subflavors__` of a batch, a list beside the list of its samples, leaves out each sample
# whose dataset has none. `Batch.from_samples` drops what is empty, so in a blend in which one dataset has subflavors and
# another does not, the list is shorter than the batch, and its entries stand beside other samples than their own. The lists
# that a batch gets without a `Batch` class have all entries. `__restore_key__` tells the dataset of each sample.
#
# Seen: 8 texts, of prose 5, subflavors 5
# Exits 1 when that changes. PYTHON may name an interpreter that has megatron-energon 7.4.1; else it is installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${PYTHON:-} ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check megatron-energon==7.4.1 torch==2.15.0
    PYTHON=$work/venv/bin/python
fi
cat >"$work/try.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from megatron.energon import Batch, DefaultTaskEncoder, WorkerConfig, get_savable_loader, get_train_dataset
from megatron.energon.edataclass import edataclass
from megatron.energon.flavors import BaseWebdatasetFactory
from webdataset import TarWriter

assert version("megatron-energon") == "7.4.1"
folder = Path(sys.argv[1])
SAMPLES = {"sample_type": {"__module__": "megatron.energon", "__class__": "TextSample"}, "field_map": {"text": "txt"}}


@edataclass
class TextBatch(Batch):
    text: list


for source in ("code", "prose"):
    (folder / source).mkdir()
    with TarWriter(str(folder / source / "0.tar")) as tar:
        for key in range(50):
            tar.write({"__key__": f"{source}{key}", "txt": source})
    BaseWebdatasetFactory.prepare_dataset(folder / source, ["0.tar"], split_parts_ratio=[("train", 1)], workers=1)
    (folder / source / ".nv-meta" / "dataset.yaml").write_text(json.dumps(SAMPLES))
blend = [{"path": "code", "weight": 1}, {"path": "prose", "weight": 1, "subflavors": {"kind": "prose"}}]
mix = {"__module__": "megatron.energon", "__class__": "MetadatasetV2", "splits": {"train": {"blend": blend}}}
(folder / "mix.yaml").write_text(json.dumps(mix))
dataset = get_train_dataset(
    folder / "mix.yaml",
    worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
    batch_size=8,
    shuffle_buffer_size=None,
    max_samples_per_sequence=None,
    task_encoder=DefaultTaskEncoder(raw_batch_type=TextBatch),
)
batch = next(iter(get_savable_loader(dataset)))
print(f"{len(batch.text)} texts, of prose {batch.text.count('prose')}, subflavors {len(batch.__subflavors__)}")
PYTHON
mkdir "$work/data"
output=$("$PYTHON" "$work/try.py" "$work/data" 2>"$work/errors" | tail -1) || { cat "$work/errors"; exit 1; }
echo "$output"
[ "$output" = "8 texts, of prose 5, subflavors 5" ]
