"""Measure a blend of megatron-energon, whose weights are read from the loader, with the loader's state.

Run it on two ranks: torchrun --nproc-per-node 2 examples/loaders/energon_blend.py
It needs what tests/integrations/requirements/energon.in names.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch.distributed as dist
from megatron.energon import WorkerConfig, get_savable_loader, get_train_dataset
from megatron.energon.flavors import BaseWebdatasetFactory
from webdataset import TarWriter

import otel_train
from otel_train.integrations import energon

SAMPLES = {"sample_type": {"__module__": "megatron.energon", "__class__": "TextSample"}, "field_map": {"text": "txt"}}


def make_blend(folder: Path) -> Path:
    """Write two datasets and a blend of them, and return its path; JSON is YAML."""
    for source in ("code", "prose"):
        (folder / source).mkdir()
        with TarWriter(str(folder / source / "0.tar")) as tar:
            for key in range(200):
                tar.write({"__key__": f"{source}{key}", "txt": f"a text of {source}"})
        BaseWebdatasetFactory.prepare_dataset(folder / source, ["0.tar"], split_parts_ratio=[("train", 1)], workers=1)
        (folder / source / ".nv-meta" / "dataset.yaml").write_text(json.dumps(SAMPLES))
    splits = {"train": {"blend": [{"path": "code", "weight": 1}, {"path": "prose", "weight": 3}]}}
    metadata = {"__module__": "megatron.energon", "__class__": "MetadatasetV2", "splits": splits}
    (folder / "mix.yaml").write_text(json.dumps(metadata))
    return folder / "mix.yaml"


def main() -> None:
    """Read fifty batches, and save."""
    dist.init_process_group("gloo")
    with TemporaryDirectory() as folder:
        config = WorkerConfig(rank=dist.get_rank(), world_size=dist.get_world_size(), num_workers=0)
        options = {"batch_size": 8, "shuffle_buffer_size": 16, "max_samples_per_sequence": 10}
        dataset = get_train_dataset(make_blend(Path(folder)), worker_config=config, **options)
        meter, loader = energon.track(get_savable_loader(dataset), tokens=lambda batch: map(len, batch.text))
        with otel_train.init(sources=[meter]) as telemetry:
            for step, _ in zip(range(1, 51), telemetry.timed(meter.counted(loader)), strict=False):
                telemetry.step(step)
            print({"loader": loader.save_state_rank(), "meter": meter.state_dict()}.keys())  # what a checkpoint has
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
