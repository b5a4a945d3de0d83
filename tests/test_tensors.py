"""Every tensor that we make names its device and dtype: the defaults are the training process' own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import otel_train


# The parts that run in somebody else's training; the reference job is a training of its own.
@pytest.mark.parametrize("part", ["ledger", "mixing", "step"])
def test_tensors_name_device_and_dtype(part: str) -> None:
    """Each tensor that the package makes names its device and dtype, so that a default changes nothing."""
    makers = {
        *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn"),
        *("randperm", "scalar_tensor", "tensor", "zeros"),
    }
    calls = [
        (f"{path}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for path in (Path(otel_train.__file__).parent / part).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in makers}
    ]
    assert calls
    assert [line for line, keywords in calls if not {"device", "dtype"} <= keywords] == []
