"""The tags of batches that are on a GPU: copied back without a wait, and counted when the step ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from otel_train.mixing.batch_tags import Tags, tag_tensor
from otel_train.torch_modes import outside_modes, plain_tensor

MOST_COPIES = 256
"""Batches that may wait to be counted: a meter that nobody drains must not grow."""


class TagCopies:
    """Copies of tags that are under way from a GPU.

    A copy waits on the GPU for what was queued before its batch, and for nothing that the step queues after it. So the
    end of the step, which needs its values, waits for it without leaving the GPU idle; the loop itself does not wait.
    """

    def __init__(self) -> None:
        self._copies: deque[tuple[Tags, list[torch.cuda.Event]]] = deque()

    def __reduce__(self) -> tuple[type[TagCopies], tuple[()]]:
        # A meter may be pickled with a dataset, for a worker process: what is under way stays here.
        return TagCopies, ()

    @outside_modes
    def begin(self, tags: Tags) -> bool:
        """Begin to copy the tags of a batch where some are on a GPU, and tell whether.

        Raises:
            ConfigurationError: They are no whole numbers.
        """
        tensors = [plain_tensor(part) for part in (*tags.words, *tags.samples) if isinstance(part, torch.Tensor)]
        devices = {tensor.device for tensor in tensors if tensor.is_cuda}
        if not devices:
            return False
        for tensor in tensors:
            if tensor.dtype != torch.int64:
                tag_tensor(tensor)  # raises
        copied = Tags(*([_to_host(part) for part in parts] for parts in tags))
        events = []
        for device in devices:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            events.append(event)
        self._copies.append((copied, events))
        return True

    @property
    def are_many(self) -> bool:
        """Whether as many are under way as may be."""
        return len(self._copies) >= MOST_COPIES

    def finish(self) -> Iterator[Tags]:
        """Yield the tags of each batch in order, on the CPU, when its copy has come."""
        while self._copies:
            tags, events = self._copies.popleft()
            for event in events:
                event.synchronize()
            yield tags


def _to_host(part: Any) -> Any:
    """Return a tensor's copy in pinned memory, which is not there yet; anything else as it is."""
    if not isinstance(part, torch.Tensor):
        return part
    return plain_tensor(part).detach().to("cpu", non_blocking=True)
