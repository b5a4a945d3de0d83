"""Keep torch.compile out of what telemetry does: a graph has no clock, no counters and no collectives of ours."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

import torch

T = TypeVar("T", bound=Callable[..., Any])
_REASON = "otel_train's telemetry belongs to Python, not to a graph"


def untraced(target: T) -> T:
    """Have torch.compile leave a function, or each public method of a class, to Python with all that it calls.

    `torch.compiler.disable` does that by a wrapper, which costs as much as half a step of telemetry at each call,
    compiled or not. Here the function itself is marked, which costs nothing; where this torch can't, it is wrapped.

    Args:
        target: A function, or a class; inherited methods are its base's.
    """
    if isinstance(target, type):
        for name, member in list(vars(target).items()):
            if isinstance(member, FunctionType) and (not name.startswith("_") or name in ("__enter__", "__exit__")):
                setattr(target, name, _untraced_function(member))
        return target
    wrapped: T = _untraced_function(target)
    return wrapped


def _untraced_function(function: Any) -> Any:
    try:
        frames: Any = torch._C._dynamo.eval_frame  # noqa: SLF001  # the public wrapper does the same, and more
        skip = frames._FrameAction.SKIP  # noqa: SLF001
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))  # noqa: SLF001
    except (AttributeError, TypeError):  # another release of torch
        return torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    function._torchdynamo_disable = True  # noqa: SLF001  # has a trace of the caller break there
    function._torchdynamo_disable_msg = _REASON  # noqa: SLF001
    return function
