"""Choose what runs at each step: the core in C where it is built, else its twins in Python.

Both do the same, to the last bit, over the same arrays; the twins are the reference. A part that has a twin asks
`core`:

    if core is not None: ...

`OTEL_TRAIN_PURE=1` chooses the twins.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from types import ModuleType
from typing import Final

__all__ = ["IMPLEMENTATION", "core"]

logger = logging.getLogger(__name__)

VERSION: Final = 12
"""Version of the sources that a build must be of: a checkout may have an older build beside it."""
_TRUE = {"1", "true"}


def _load() -> ModuleType | None:
    if os.environ.get("OTEL_TRAIN_PURE", "").strip().lower() in _TRUE:
        return None
    try:
        built = import_module("otel_train.native._core")
    except ImportError as error:
        logger.debug("the native core is not there, its twins in Python run: %s", error)
        return None
    if built.VERSION != VERSION:
        logger.warning(
            "the native core is a build of other sources (%s, these are %s): its twins in Python run; build it anew "
            "(pip install -e .)",
            built.VERSION,
            VERSION,
        )
        return None
    return built


core = _load()
"""The core; None where the twins run."""
IMPLEMENTATION: Final = "python" if core is None else "native"
"""Which of the two runs."""
