"""Measure a setting's value as its bounds do."""

from __future__ import annotations

import json
from typing import Any


def json_size(value: Any) -> int:
    """Return the number of characters of a value's JSON, without spaces between its parts.

    Args:
        value: Text, a number, a truth value, None, or a list or mapping of these.

    Examples:
        >>> json_size([0.9, {"a": None}])
        16
    """
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
