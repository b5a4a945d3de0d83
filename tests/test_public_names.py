"""Names that each package gives to users."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    "package",
    ["", ".catalogue", ".mixing", ".ledger", ".ring", ".step", ".sidecar", ".bridge", ".render", ".trainer"],
)
def test_public_names_are_sorted(package: str) -> None:
    """The package has each name of `__all__`."""
    module = importlib.import_module(f"otel_train{package}")
    assert list(module.__all__) == sorted(
        module.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)
    )
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
