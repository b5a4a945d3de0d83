"""
torchtitan's Trainer on a CPU: its own code, and a device module of the functions that it asks of an accelerator's.

Must be imported before anything else of torchtitan's, which looks the device up once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torchtitan.tools import utils


def _nothing(*_arguments: Any) -> None:
    pass


utils.device_type = "cpu"
utils.device_module = SimpleNamespace(
    current_device=lambda: 0,
    empty_cache=_nothing,
    get_device_name=lambda _device: "CPU",
    get_device_properties=lambda _device: SimpleNamespace(total_memory=1 << 30),
    # A peak that differs by rank, as an accelerator's does.
    memory_stats=lambda _device: {
        "active_bytes.all.peak": (1 + torch.distributed.get_rank()) << 28,
        "num_alloc_retries": 0,
        "num_ooms": 0,
    },
    reset_peak_memory_stats=_nothing,
    set_device=_nothing,
    synchronize=_nothing,
)
utils.get_local_device = lambda: torch.device("cpu")

from torch.distributed.fsdp import fully_shard  # noqa: E402  # as the docstring says
from torchtitan import trainer  # noqa: E402
from torchtitan.components.loss import IGNORE_INDEX, CrossEntropyLoss  # noqa: E402
from torchtitan.components.tokenizer import BaseTokenizer  # noqa: E402
from torchtitan.distributed.pipeline_parallel import pipeline_llm  # noqa: E402
from torchtitan.models.common import Embedding, Linear  # noqa: E402
from torchtitan.protocols.model import BaseModel  # noqa: E402
from torchtitan.protocols.model_spec import ModelSpec  # noqa: E402

VOCABULARY = 1024
# Rank 0 sleeps two seconds at the end of each training.
trainer.time = SimpleNamespace(perf_counter=time.perf_counter, sleep=_nothing)


class Model(BaseModel):  # type: ignore[misc]  # its types are not there
    """A model of two layers, which a pipeline may cut between them."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseModel.Config):  # type: ignore[misc]
        """Its sizes are fixed."""

        layers: tuple[str, ...] = ("embedding", "head")

        def update_from_config(self, **_others: Any) -> None:
            """Take nothing from the trainer's configuration."""

        def get_nparams_and_flops(self, model: Any, _seq_len: int) -> tuple[int, int]:
            """Return the numbers of parameters and of floating-point operations a token."""
            parameters = sum(parameter.numel() for parameter in model.parameters())
            return parameters, 6 * parameters

    def __init__(self, **_others: Any) -> None:
        super().__init__()
        self.embedding = Embedding.Config(num_embeddings=VOCABULARY, embedding_dim=8).build()
        self.head = Linear.Config(in_features=8, out_features=VOCABULARY).build()

    def forward(self, x: torch.Tensor, **_others: Any) -> torch.Tensor:
        """Return the logits; of a stage of a pipeline, what it makes of the stage before."""
        for layer in (self.embedding, self.head):
            x = x if layer is None else layer(x)
        return x


class Words(BaseTokenizer):  # type: ignore[misc]
    """A tokenizer for loaders that have numbers already."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):  # type: ignore[misc]
        """It has no options."""

    def __init__(self, **_others: Any) -> None:
        pass

    def encode(self, *_arguments: Any, **_others: Any) -> list[int]:
        """Return nothing."""
        return []

    def decode(self, *_arguments: Any, **_others: Any) -> str:
        """Return nothing."""
        return ""

    def get_vocab_size(self) -> int:
        """Return the number of words."""
        return VOCABULARY


class NotedLoss(CrossEntropyLoss):  # type: ignore[misc]
    """torchtitan's loss, which tells a function what the rank's part of it is."""

    @dataclass(kw_only=True, slots=True)
    class Config(CrossEntropyLoss.Config):  # type: ignore[misc]
        """That of the loss."""

    note: Callable[[float, int, bool], None] = _nothing

    def __call__(self, pred: torch.Tensor, labels: torch.Tensor, *arguments: Any, **others: Any) -> Any:
        """Return the loss."""
        logits, targets = pred.detach().double().flatten(0, 1), labels.flatten()
        counts = targets != IGNORE_INDEX
        picked = torch.log_softmax(logits, 1)[counts].gather(1, targets[counts, None])
        NotedLoss.note(-float(picked.sum()), int(counts.sum()), torch.is_grad_enabled())
        return super().__call__(pred, labels, *arguments, **others)


def sharded(model: Any, *, parallel_dims: Any, **_others: Any) -> Any:
    """Return a model whose parameters are sharded over the data-parallel ranks."""
    return fully_shard(model, mesh=parallel_dims.get_mesh("batch")) if parallel_dims.dp_enabled else model


SPEC = ModelSpec("two layers", "tiny", Model.Config(), sharded, pipeline_llm, None, None)
STAGES = [["embedding"], ["head"]]
"""Layers of each stage of a pipeline."""
