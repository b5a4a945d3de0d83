"""The modes that a training process may have set in torch when it calls us, for tests that hold in each of them.

A test with the mark `modes` runs once in each: two of three calls of ours are made inside the mode and the third
outside, so that what is made in one is used in the other. The test itself stays outside.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from otel_train.ledger import LedgerMeter, StateLedger
from otel_train.mixing import MixingMeter, SourceMeter, StreamMixingDataset
from otel_train.step import Telemetry
from otel_train.step.cluster_values import ClusterValues
from otel_train.step.reduction import Reducer
from otel_train.step.scalar_recorder import ScalarRecorder

Call = Callable[[], Any]


class ForbiddenError(Exception):
    """Raised by a mode that allows nothing."""


class FunctionsForbidden(TorchFunctionMode):
    """A user's mode that no function of torch passes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ForbiddenError(func)


class OperationsForbidden(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A user's mode that no operation passes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ForbiddenError(func)


@contextmanager
def setting(change: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    """Change a setting of torch's, and change it back."""
    change(value)
    try:
        yield
    finally:
        change(before)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default device": lambda: setting(torch.set_default_device, "meta", None),
    "float16": lambda: setting(torch.set_default_dtype, torch.float16, torch.float32),
    "float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    # What `torch.use_deterministic_algorithms` does; that loads the whole compiler first.
    "deterministic": lambda: setting(torch._C._set_deterministic_algorithms, True, False),
    "fake": FakeTensorMode,
    "function mode": FunctionsForbidden,
    "dispatch mode": OperationsForbidden,
}


def in_a_transform(call: Call, transform: Callable[[Callable[[torch.Tensor], torch.Tensor]], Any]) -> Any:
    """Make a call inside a function that torch.func transforms."""
    results: list[Any] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        results.append(call())
        return x

    transform(run)
    return results[0]


def in_a_thread(call: Call) -> Any:
    """Make a call in another thread, where torch's modes are those of a new one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result()


CALLS: dict[str, Callable[[Call], Any]] = {
    "vmap": lambda call: in_a_transform(call, lambda run: torch.func.vmap(run)(torch.zeros(1))),
    "grad": lambda call: in_a_transform(call, lambda run: torch.func.grad(run)(torch.zeros(()))),
    "thread": in_a_thread,
}
MODES = (*CONTEXTS, *CALLS)
OURS: dict[type, tuple[str, ...]] = {
    MixingMeter: ("open", "pick", "set_weights", "drain_measurements", "state_dict", "load_state_dict"),
    SourceMeter: ("__init__", "count", "drain_measurements", "state_dict", "load_state_dict"),
    StreamMixingDataset: ("__init__", "consume", "drain_measurements", "state_dict", "load_state_dict"),
    StateLedger: (
        *("__init__", "fetch", "store", "wipe", "end_step", "drain_measurements"),
        *("state_dict", "load_state_dict"),
    ),
    LedgerMeter: ("__init__", "store", "evict", "drain_measurements"),
    ScalarRecorder: ("add", "drain", "_add_on_device"),
    Reducer: ("__init__",),
    ClusterValues: ("record", "reduce", "collect"),
    Telemetry: ("step", "add", "flush", "close"),
}


def run_in(mode: str, call: Call) -> Any:
    """Make a call in a mode."""
    if mode in CALLS:
        return CALLS[mode](call)
    with CONTEXTS[mode]():
        return call()


def set_mode(mode: str, patch: pytest.MonkeyPatch) -> None:
    """Have two of three calls of ours made in a mode; a call that another one of ours makes is a part of that."""
    count = itertools.count()
    within = False

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal within
            if within or next(count) % 3 == 2:
                return function(*args, **kwargs)
            within = True
            try:
                return run_in(mode, lambda: function(*args, **kwargs))
            finally:
                within = False

        return call

    for kind, names in OURS.items():
        for name in names:
            patch.setattr(kind, name, wrap(getattr(kind, name)))
