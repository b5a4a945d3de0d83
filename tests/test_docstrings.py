"""The public names, and the examples in their docstrings."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from otel_train.endpoint import Endpoint

PUBLIC_MODULES = ("otel_train", "otel_train.step", "otel_train.mixing", "otel_train.ledger", "otel_train.testing")


def public_names() -> list[Any]:
    """Return the classes and functions that a user may import, each once, with their names as identifiers."""
    objects: dict[Any, str] = {}
    for module in PUBLIC_MODULES:
        for name in import_module(module).__all__:
            value = getattr(import_module(module), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                objects.setdefault(value, f"{module}.{name}")
    return [pytest.param(value, id=name) for value, name in objects.items()]


@pytest.mark.parametrize("value", public_names())
def test_public_examples_hold(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each public name has an example in its docstring, and it gives what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_TRAIN_RING_DIR", "rings")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    monkeypatch.setattr(Endpoint, "is_there", property(lambda endpoint: bool(endpoint.variable)))
    examples = doctest.DocTestFinder(recurse=False).find(value, value.__name__, globs={})
    report: list[str] = []
    for example in examples:
        doctest.DocTestRunner().run(example, out=report.append)
    assert [len(example.examples) > 0 for example in examples] == [True], f"{value.__name__} has no example"
    assert not report, "".join(report)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_names_are_complete(module: str) -> None:
    """A module's `__all__` is sorted, names what is there, and leaves out no class or function that it shows."""
    imported = import_module(module)
    names = imported.__all__
    assert names == sorted(names)
    assert set(names) <= set(dir(imported))
    shown = {name: getattr(imported, name) for name in dir(imported)}
    own = {name for name, value in shown.items() if getattr(value, "__module__", "").startswith("otel_train")}
    assert {name for name in own if not name.startswith("_")} <= set(names)
