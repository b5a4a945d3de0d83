"""Every tensor that we make says its device and dtype: the defaults are the training process' own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import otel_train

PACKAGE = Path(otel_train.__file__).parent
MAKERS = {
    *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn"),
    *("randperm", "scalar_tensor", "tensor", "zeros"),
}
OURS = ("ledger", "mixing", "step")
"""The parts that run in somebody else's training; the reference job is a training of its own."""


def unsaid() -> Iterator[str]:
    """Yield each call of torch that makes a tensor and leaves its device or dtype to the defaults."""
    for part in OURS:
        for path in sorted((PACKAGE / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if isinstance(node.func.value, ast.Name) and node.func.value.id == "torch" and node.func.attr in MAKERS:
                    missing = {"device", "dtype"} - {keyword.arg for keyword in node.keywords}
                    where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                    yield from [f"{where} torch.{node.func.attr} lacks {sorted(missing)}"] if missing else ()


def test_tensors_name_device_and_dtype() -> None:
    """Each tensor that the package makes names its device and dtype, so that a default changes nothing."""
    assert list(unsaid()) == []
