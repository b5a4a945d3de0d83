"""megatron-energon: a blend of two datasets on disk, also with packed samples, resumed by the loader's state."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.energon import (
    DefaultTaskEncoder,
    SkipSample,
    WorkerConfig,
    get_savable_loader,
    get_train_dataset,
    stateless,
)
from megatron.energon.flavors import BaseWebdatasetFactory

from otel_train.integrations.energon import track
from tests.integrations.support.case_loop import Case, Loading, Row, run_cases
from tests.integrations.support.payload import SOURCES, WEIGHTS, numbers, rows_of

SHARDS, ROWS = 8, 10
BATCH = 8
SAMPLES = """
sample_type:
  __module__: megatron.energon
  __class__: TextSample
field_map:
  text: txt
"""


@cache
def data_folder() -> Path:
    """Return a folder with a dataset for each source, and the blends of them."""
    folder = Path(tempfile.mkdtemp(prefix="energon-"))
    atexit.register(shutil.rmtree, folder)
    for source in SOURCES:
        names = [f"{number}.tar" for number in range(SHARDS)]
        (folder / source).mkdir()
        for number, name in enumerate(names):
            with tarfile.open(folder / source / name, "w") as tar:
                for key in range(number * ROWS, (number + 1) * ROWS):
                    text = json.dumps(numbers(source, key)).encode()
                    entry = tarfile.TarInfo(f"{source}{key}.txt")
                    entry.size = len(text)
                    tar.addfile(entry, io.BytesIO(text))
        BaseWebdatasetFactory.prepare_dataset(folder / source, names, split_parts_ratio=[("train", 1.0)], workers=1)
        (folder / source / ".nv-meta" / "dataset.yaml").write_text(SAMPLES)
    blend = [{"path": source, "weight": weight, "subflavors": {"kind": source}} for source, weight in WEIGHTS.items()]
    mix = {"__module__": "megatron.energon", "__class__": "MetadatasetV2", "splits": {"train": {"blend": blend}}}
    (folder / "mix.yaml").write_text(json.dumps(mix))  # JSON is YAML
    return folder


class Packing(DefaultTaskEncoder):  # type: ignore[misc]
    """Packs two texts into one sample."""

    def select_samples_to_pack(self, samples: list[Any]) -> list[list[Any]]:
        return [samples[begin : begin + 2] for begin in range(0, len(samples), 2)]

    @stateless  # type: ignore[untyped-decorator]
    def pack_selected_samples(self, samples: list[Any]) -> Any:
        return type(samples[0]).extend(samples[0], text="\n".join(sample.text for sample in samples))


class Dropping(DefaultTaskEncoder):  # type: ignore[misc]
    """Skips two thirds of the prose."""

    @stateless  # type: ignore[untyped-decorator]
    def encode_sample(self, sample: Any) -> Any:
        source, key, *_ = json.loads(sample.text)
        if source == SOURCES.index("prose") + 1 and key % 3:
            raise SkipSample
        return sample


def texts(batch: Any) -> list[list[int]]:
    """Return the payload of each segment of a batch."""
    return [json.loads(text) for row in batch.text for text in row.splitlines()]


def tokens(batch: Any) -> list[int]:
    """Return the number of tokens of each segment of a batch."""
    return [sum(x[3:]) for x in texts(batch)]


def begin(case: Case, saved: Any) -> Loading:
    """Make the loader of a case."""
    config = WorkerConfig(rank=dist.get_rank(), world_size=dist.get_world_size(), num_workers=case.workers)
    encoder = {"packed": Packing, "wrong": Dropping}.get(case.variant, DefaultTaskEncoder)()
    dataset = get_train_dataset(
        data_folder() / "mix.yaml",
        worker_config=config,
        batch_size=BATCH // 2 if case.variant == "packed" else BATCH,
        packing_buffer_size=16 if case.variant == "packed" else None,
        shuffle_buffer_size=16,
        max_samples_per_sequence=5,
        task_encoder=encoder,
    )
    loader = get_savable_loader(dataset)
    if saved is not None:
        loader.restore_state_rank(saved)
    meter, batches = track(loader, source="kind", tokens=tokens)
    return Loading(meter=meter, batches=batches, rows=rows, save=batches.save_state_rank)


def rows(batch: Any) -> list[Row]:
    """Return the rows of a batch."""
    return rows_of(torch.tensor(texts(batch)))


if __name__ == "__main__":
    run_cases(begin)
