"""The modes that a training process may have set in torch when it calls us, for tests that hold in each of them.

A test with the mark `modes` runs once in each: two of three calls of ours are made inside the mode and the third
outside, so that what is made in one is used in the other. The test itself stays outside.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
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
def default_device() -> Iterator[None]:
    """Make tensors on another device, unless told otherwise."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make tensors of another type, unless told otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """Refuse what is not deterministic."""
    # What `torch.use_deterministic_algorithms` does; that loads the whole compiler first.
    torch._C._set_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default device": default_device,
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": deterministic,
    "fake": FakeTensorMode,
    "function mode": FunctionsForbidden,
    "dispatch mode": OperationsForbidden,
}


def in_a_transform(call: Call) -> Any:
    """Make a call inside a function that torch.func maps."""
    results: list[Any] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        results.append(call())
        return x

    torch.func.vmap(run)(torch.zeros(1))
    return results[0]


def in_a_gradient(call: Call) -> Any:
    """Make a call inside a function that torch.func differentiates."""
    results: list[Any] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        results.append(call())
        return x

    torch.func.grad(run)(torch.zeros(()))
    return results[0]


def in_a_thread(call: Call) -> Any:
    """Make a call in another thread, where torch's modes are those of a new one."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # it is the caller's
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


CALLS: dict[str, Callable[[Call], Any]] = {
    "vmap": in_a_transform,
    "grad": in_a_gradient,
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
    Reducer: ("__init__", "launch", "harvest", "finish"),
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
