"""Tell by its name what in a configuration may be a secret, which whoever looks at a run is not to see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from numbers import Number
from typing import Any

_ALONE = re.compile(
    "pass(word|wd|phrase)s?|secrets?|credentials?|authorization|bearer|cookies?|webhooks?|dsn|"
    "(api|access|auth|secret|private|hf)(key|token)s?"
)
"""Words of the name of a secret, and of a mapping of secrets."""
_BEFORE = re.compile(
    "access|account|api|auth|aws|bearer|csrf|deploy|encryption|gh|git|github|gitlab|hf|hub|huggingface|jwt|login|oauth|"
    "openai|personal|private|refresh|secret|service|session|signing|slack|ssh|wandb"
)
"""Words before `token` and `key` in the name of a secret: a trainer has a `pad_token` and a `sort_key` too."""
_AFTER = re.compile("(key|token)s?")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_MASK = re.compile(r"<\w*>|[*•.…]*|x{3,}", re.IGNORECASE)
"""Text that others have put in a secret's stead, as transformers' arguments do."""


def is_secret(names: Sequence[str], value: Any) -> bool:
    """Tell whether a value may be a secret by its name.

    Args:
        names: The keys that lead to it.
        value: None, truth values and what is masked already are no secrets, nor are numbers as keys and tokens.

    Examples:
        >>> is_secret(["wandb", "api_key"], "0123abc"), is_secret(["pad_token"], "<pad>"), is_secret(["max_tokens"], 9)
        (True, False, False)
    """
    if value is None or isinstance(value, bool) or (isinstance(value, str) and _MASK.fullmatch(value)):
        return False
    if isinstance(value, list | tuple | dict) and not value:
        return False
    words = [[word.lower() for word in _WORD.findall(name)] for name in names]
    if any(_ALONE.fullmatch(word) for part in words for word in part):
        return True
    own = words[-1]
    named = own == ["token"] or any(
        _BEFORE.fullmatch(before) and _AFTER.fullmatch(word) for before, word in pairwise(own)
    )
    return named and not isinstance(value, Number)
