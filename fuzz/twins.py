"""The twins in Python of what runs natively in this process."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

PURE = "OTEL_TRAIN_PURE"


def twin_of(name: str) -> ModuleType:
    """Return a module of otel_train as it is where the native core is not built, beside the one that is imported."""

    def take_ours() -> dict[str, ModuleType]:
        names = [module for module in sys.modules if module.partition(".")[0] == "otel_train"]
        return {module: sys.modules.pop(module) for module in names}

    before, ours = os.environ.get(PURE, ""), take_ours()
    os.environ[PURE] = "1"
    try:
        return import_module(name)
    finally:
        os.environ[PURE] = before
        take_ours()
        sys.modules.update(ours)
