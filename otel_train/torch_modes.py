"""Run tensor code of ours outside the modes that its caller has set in torch.

In inference mode a tensor is made that nobody may write later; under a FakeTensorMode it has no values; a default
device, a user's own mode or a function transform changes what an operation does. The training process is somebody
else's, so none of this is rare: a step may well end inside any of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch.utils import _python_dispatch

P = ParamSpec("P")
T = TypeVar("T")


def _no_layers() -> object:
    return None


def _outside_transforms() -> AbstractContextManager[object]:
    """Return what clears the stack of torch.func's transforms, where this torch can."""
    from torch._functorch import pyfunctorch  # noqa: PLC0415  # loaded with the first transform at the latest

    clear = getattr(pyfunctorch, "temporarily_clear_interpreter_stack", nullcontext)
    cleared: AbstractContextManager[object] = clear()
    return cleared


# Names of torch's own, looked up once: these four take an eighth of a microsecond together.
_in_inference_mode = torch.is_inference_mode_enabled
_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack  # noqa: SLF001  # there is no public one
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack  # noqa: SLF001  # as above
_transform: Callable[[], object] = getattr(
    getattr(torch._C, "_functorch", None),  # noqa: SLF001  # as above
    "peek_interpreter_stack",
    _no_layers,
)


def in_a_mode() -> bool:
    """Tell whether the caller has set a mode that our operations must not meet."""
    return bool(_in_inference_mode() or _dispatch_modes() or _function_modes() or _transform() is not None)


@contextmanager
def _outside() -> Iterator[None]:
    with ExitStack() as stack:
        if _transform() is not None:
            stack.enter_context(_outside_transforms())
        if _dispatch_modes():  # it loads a part of the compiler, which whoever has set such a mode has
            stack.enter_context(_python_dispatch._disable_current_modes())  # noqa: SLF001  # there is no public one
        stack.enter_context(torch._C.DisableTorchFunction())  # noqa: SLF001  # as above
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        yield


def outside_modes(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function run as if its caller had set no mode: in none it costs a quarter of a microsecond."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not (_in_inference_mode() or _dispatch_modes() or _function_modes() or _transform() is not None):
            return function(*args, **kwargs)
        with _outside():
            return function(*args, **kwargs)

    return call


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without its class, whose own `__torch_function__` decides what an operation does.

    One that wraps others (a DTensor, a quantised one) has no data of its own, and stays as it is.
    """
    if type(tensor) is torch.Tensor:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  # there is no public one
        if has_no_data(tensor):
            return tensor
        return tensor.as_subclass(torch.Tensor)  # type: ignore[no-any-return,unused-ignore]


def has_no_data(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is made of others, as a DTensor and a jagged one are, or is a fake one."""
    return hasattr(tensor, "__tensor_flatten__") or getattr(tensor, "fake_mode", None) is not None
